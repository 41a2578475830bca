"""`label-corpus inspect`: the steps under the hood for one text, with the same functions that the job uses."""

import math
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from jobs.start.attention_plot import pieces_of, plot, shaded
from pipeline_ops.classifying.attention import attention_of, over_text
from pipeline_ops.classifying.classify import classify
from pipeline_ops.models.config import ModelConfig, ModelFacts
from pipeline_ops.models.device import resolve_dtype
from pipeline_ops.models.heads import Head, check_output
from pipeline_ops.models.load import load_classifier
from pipeline_ops.models.resolve import resolve_model
from pipeline_ops.schema.output_columns import Embedding, OutputConfig
from pipeline_ops.storage.files import StorageConfig
from pipeline_ops.tokenizing.batching import TokenBatches, attention_mask, make_batches
from pipeline_ops.tokenizing.encoding import truncating_backend
from pipeline_ops.tokenizing.sequences import TextEncoder
from pipeline_ops.writing.postprocessing import Classified, label_documents

MAX_SHOWN_TOKENS = 40
MAX_SHOWN_WINDOWS = 3


class InspectOutputConfig(BaseModel):
    """What is shown beside the label."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    top_k: int | None = Field(default=None, ge=1, description="the k best labels")
    embedding: Embedding | None = Field(default=None, description="the pooled last hidden state")


class InspectConfig(BaseModel):
    """The keys that inspecting takes from the command line: model.*, storage.*, and of output.* what shows in an answer."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: ModelConfig
    storage: StorageConfig = StorageConfig()
    output: InspectOutputConfig = InspectOutputConfig()


def inspect_text(text: str, config: InspectConfig, *, pair: str | None = None, attention: bool = False) -> dict[str, Any]:
    """Tokens, input_ids, attention_mask, logits, scores and label of one text, as the job would have them.

    Args:
        pair: the second text, for models that read two.
        attention: look as well at which tokens the classifier looks.

    Raises:
        UserError: as resolve_model, load_classifier and attention_of.
    """
    model, storage = config.model, config.storage
    facts, tokenizer, _ = resolve_model(model, storage, pairs=pair is not None)
    head = facts.head
    asked = OutputConfig(path="-", scores=True, logits=True, **config.output.model_dump())
    output = check_output(head, asked, windows=facts.windows is not None)
    dtype = resolve_dtype(model.dtype, use_gpu=False)
    encoder = TextEncoder(
        truncating_backend(tokenizer, facts.max_length).to_str(),
        with_type_ids=facts.has_type_ids,
        pairs=facts.pairs,
        windows=facts.windows,
    )
    encodings = encoder.encode([[text]] if pair is None else [[text], [pair]])
    batches = make_batches(
        encodings,
        batch_tokens=1,
        pad_id=facts.pad_id,
        pad_type_id=facts.pad_type_id,
        pad_left=facts.pad_left,
        max_width=facts.max_length,
    )
    classifier = load_classifier(
        model, storage, revision=facts.revision, dtype=dtype, device="cpu", attention="eager" if attention else None
    )
    values = classify(batches, classifier, num_labels=len(head.labels), pad_left=facts.pad_left, embedding=output.embedding)
    logits = values[:, : len(head.labels)]
    embedding = values[:, len(head.labels) :] if output.embedding is not None else None
    classified = Classified(logits, encodings.num_tokens, encodings.truncated, encodings.windows, embedding)
    finite = classified.finite()
    labeled = label_documents(
        pa.table({"text": [text]}).filter(pa.array(finite)),
        classified.of(finite),
        head=head,
        output=output,
        windows=facts.windows,
    )
    shown = {"label", "score", "labels", "top_labels", "top_scores", "embedding"}
    answer = labeled.select([name for name in labeled.column_names if name in shown])
    windows = _windows(batches, facts, tokenizer, logits)
    if attention:
        for window in windows:
            weights = attention_of(classifier, window["input_ids"], window["attention_mask"], window.get("token_type_ids"))
            of_text = ~np.isin(window["input_ids"], tokenizer.all_special_ids)
            window["pieces"] = pieces_of(window["tokens"], tokenizer)
            window["attention"] = over_text(weights, of_text).tolist()
    first = {key: value for key, value in windows[0].items() if key != "logits"}
    return {
        "text": text,
        **({} if pair is None else {"text_pair": pair}),
        "model": facts.path,
        "revision": facts.revision,
        "max_length": facts.max_length,
        "dtype": dtype,
        **first,
        **({} if facts.windows is None else {"windows": windows}),
        "num_tokens": int(encodings.num_tokens[0]),
        "truncated": bool(encodings.truncated[0]),
        "activation": head.activation,
        **{
            name: _by_label(head, labeled[name][0].as_py() if finite.all() else [math.nan] * len(head.labels))
            for name in ("logits", "scores")
        },
        **(answer.to_pylist()[0] if finite.all() else dict.fromkeys(answer.column_names)),
    }


def _windows(batches: TokenBatches, facts: ModelFacts, tokenizer: Any, logits: np.ndarray) -> list[dict[str, Any]]:
    """What the model reads, window by window, and says to each; `batches` of one each."""
    starts = np.cumsum(batches.widths) - batches.widths
    found = []
    for batch in np.argsort(batches.order):
        width = int(batches.widths[batch])
        cells = slice(starts[batch], starts[batch] + width)
        ids = batches.ids[cells].tolist()
        found.append(
            {
                "tokens": tokenizer.convert_ids_to_tokens(ids),
                "input_ids": ids,
                "attention_mask": attention_mask(batches.lengths[[batch]], width, facts.pad_left)[0].tolist(),
                **({"token_type_ids": batches.type_ids[cells].tolist()} if facts.has_type_ids else {}),
                "logits": _by_label(facts.head, logits[batches.order[batch]].tolist()),
            }
        )
    return found


def _without_specials(window: dict[str, Any]) -> tuple[list[str], list[float]]:
    """(pieces, attention) of a window's text; special tokens and padding, which have none, left out."""
    shown = [(piece, share) for piece, share in zip(window["pieces"], window["attention"], strict=True) if share]
    return [piece for piece, _ in shown], [share for _, share in shown]


def plot_attention(steps: dict[str, Any], path: str) -> None:
    """Writes the picture of what inspect_text has found with `attention`."""
    title = f"{steps['label']} {steps['score']:.3f}" if steps["label"] is not None else "rejected"
    plot(path, f"{title}    {steps['model']}", [_without_specials(window) for window in steps.get("windows", [steps])])


def _by_label(head: Head, values: Iterable[float]) -> dict[str, float]:
    return dict(zip(head.labels, values, strict=True))


def show(steps: dict[str, Any]) -> None:
    """Prints the steps for people, on stdout."""
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stdout)
    for name in ("text", "text_pair"):
        if name in steps:
            console.print(f"{name:<11} {steps[name]!r}", markup=False, highlight=False)
    console.print(f"model       {steps['model']}  max_length {steps['max_length']}  {steps['dtype']}", highlight=False)
    windows = steps.get("windows", [steps])
    for number, window in enumerate(windows[:MAX_SHOWN_WINDOWS], 1):
        columns = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in window]
        which = f", window {number} of {len(windows)}" if "windows" in steps else ""
        tokens = Table("token", *(name.removesuffix("s") for name in columns), title=f"tokenized{which}")
        rows = list(zip(window["tokens"], *(window[name] for name in columns), strict=True))
        for token, *values in rows[:MAX_SHOWN_TOKENS]:
            tokens.add_row(token.replace("[", r"\["), *map(str, values))
        if len(rows) > MAX_SHOWN_TOKENS:
            tokens.add_row(f"... {len(rows) - MAX_SHOWN_TOKENS} more")
        console.print(tokens)
        if "attention" in window:
            console.print("where the head's token looks", style="bold")
            console.print(shaded(*_without_specials(window)))
    cut = ", truncated" if steps["truncated"] else ""
    console.print(f"{steps['num_tokens']} tokens{cut}; a mask of 0 is padding", highlight=False)
    if "windows" in steps:
        console.print(f"{len(windows)} windows; what they say together follows", highlight=False)
    scores = Table("label", "logit", f"score ({steps['activation']})", title="classified")
    for label in steps["logits"]:
        scores.add_row(label, f"{steps['logits'][label]:.4f}", f"{steps['scores'][label]:.6f}")
    console.print(scores)
    if steps["label"] is None:
        console.print("rejected: non-finite logits")
        return
    console.print(f"label       {steps['label']}  {steps['score']:.6f}", markup=False, highlight=False)
    if "labels" in steps:
        console.print(f"labels      {', '.join(steps['labels']) or 'none'}", markup=False, highlight=False)
    if "top_labels" in steps:
        best = zip(steps["top_labels"], steps["top_scores"], strict=True)
        console.print(f"best        {', '.join(f'{name} {score:.6f}' for name, score in best)}", markup=False, highlight=False)
    if "embedding" in steps:
        numbers = ", ".join(f"{number:.4f}" for number in steps["embedding"][:6])
        console.print(f"embedding   {len(steps['embedding'])} numbers: {numbers}, ...", markup=False, highlight=False)
