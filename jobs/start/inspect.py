"""`label-corpus inspect`: tokenize, classify and label one text with the functions that the job uses."""

import math
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from jobs.number_format import counted
from jobs.start.attention_shading import readable_tokens, shade_tokens
from pipeline_ops.classifying.attention import attention_weights, normalize_over_text
from pipeline_ops.classifying.classify import classify_isolating_failures
from pipeline_ops.classifying.forward_pass import ForwardPasses
from pipeline_ops.classifying.padding_check import reason_against_padding
from pipeline_ops.loading.device import resolve_dtype
from pipeline_ops.loading.load import load_classifier
from pipeline_ops.models.adapters import pinned
from pipeline_ops.models.config import ModelConfig, ModelFacts
from pipeline_ops.models.heads import Head, check_output
from pipeline_ops.models.padding_side import padding_line
from pipeline_ops.models.resolve import resolve_model
from pipeline_ops.schema.errors import UserError, one_line
from pipeline_ops.schema.output_columns import Embedding, OutputConfig
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.tokenizing.batching import TokenBatches, attention_mask, make_batches
from pipeline_ops.tokenizing.sequences import TextEncoder, definition_of
from pipeline_ops.writing.postprocessing import ModelOutputs, label_documents

MAX_PRINTED_TOKENS = 40
MAX_PRINTED_WINDOWS = 3
ANSWER_COLUMNS = {"label", "score", "labels", "top_labels", "top_scores", "embedding"}


class InspectOutputConfig(BaseModel):
    """Optional output beside the label."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    top_k: int | None = Field(default=None, ge=1, description="the k best labels")
    embedding: Embedding | None = Field(default=None, description="the pooled last hidden state")


class InspectConfig(BaseModel):
    """Settings that inspect accepts as KEY.SUB=VALUE: model.*, storage.*, output.top_k and output.embedding."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: ModelConfig
    storage: StorageConfig = StorageConfig()
    output: InspectOutputConfig = InspectOutputConfig()


def inspect_text(text: str, config: InspectConfig, *, pair: str | None = None, attention: bool = False) -> dict[str, Any]:
    """Compute tokens, input_ids, attention_mask, logits, scores and label of one text, as the job does.

    Args:
        pair: the second text, for models that read two.
        attention: add `pieces` (readable tokens) and `attention` (a weight per token; they sum to 1) to each window.

    Raises:
        UserError: the model raises for this text; and as resolve_model, load_classifier, reason_against_padding and
            attention_weights.
    """
    model, storage = config.model, config.storage
    resolved = resolve_model(model, storage, pairs=pair is not None)
    facts, tokenizer, head = resolved.facts, resolved.tokenizer, resolved.facts.head
    requested = OutputConfig(path="-", scores=True, logits=True, **config.output.model_dump())
    output = check_output(head, requested, windows=facts.windows is not None, model_type=facts.model_type)
    dtype = resolve_dtype(model.dtype, False, facts.model_type)
    encoder = TextEncoder(
        definition_of(tokenizer, facts.max_length),
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
    implementation = "eager" if attention else None
    classifier = load_classifier(
        pinned(model, facts), storage, revision=facts.revision, dtype=dtype, device="cpu", attention=implementation
    )
    reason = reason_against_padding(classifier, facts)
    passes = ForwardPasses(classifier, pad_left=facts.pad_left, against_padding=reason, embedding=output.embedding)
    batches = passes.arrange(batches)
    values, failed = classify_isolating_failures(batches, passes, num_labels=len(head.labels))
    for error in failed.values():
        raise UserError(
            f"model.path: {facts.path!r} cannot read this text ({type(error).__name__}: {one_line(error)[:200]}); `run` rejects"
            " such a document as model_error"
        ) from error
    logits = values[:, : len(head.labels)]
    embedding = values[:, len(head.labels) :] if output.embedding is not None else None
    classified = ModelOutputs(logits, encodings.num_tokens, encodings.truncated, encodings.windows, embedding)
    finite = classified.finite_rows()
    labeled = label_documents(
        pa.table({"text": [text]}).filter(pa.array(finite)),
        classified.filter(finite),
        head=head,
        output=output,
        windows=facts.windows,
    )
    answer = labeled.select([name for name in labeled.column_names if name in ANSWER_COLUMNS])
    windows = _windows(batches, facts, tokenizer, logits)
    if attention:
        for window in windows:
            weights = attention_weights(classifier, window["input_ids"], window["attention_mask"], window.get("token_type_ids"))
            is_text = ~np.isin(window["input_ids"], tokenizer.all_special_ids)
            window["pieces"] = readable_tokens(window["tokens"], tokenizer)
            window["attention"] = normalize_over_text(weights, is_text).tolist()
    first = {key: value for key, value in windows[0].items() if key != "logits"}
    return {
        "text": text,
        **({} if pair is None else {"text_pair": pair}),
        "model": facts.path,
        "revision": facts.revision,
        "max_length": facts.max_length,
        "dtype": dtype,
        **({} if reason is None else {"padding": padding_line(facts.model_type, reason)}),
        "remarks": list(resolved.remarks),
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
    """Tokens, ids, mask and logits of each window, in text order.

    Args:
        batches: one window per batch.
        logits: float32 (windows, labels).
    """
    starts = np.cumsum(batches.widths) - batches.widths
    windows = []
    for batch in np.argsort(batches.order):
        width = int(batches.widths[batch])
        cells = slice(starts[batch], starts[batch] + width)
        ids = batches.ids[cells].tolist()
        windows.append(
            {
                "tokens": tokenizer.convert_ids_to_tokens(ids),
                "input_ids": ids,
                "attention_mask": attention_mask(batches.lengths[[batch]], width, facts.pad_left)[0].tolist(),
                **({"token_type_ids": batches.type_ids[cells].tolist()} if facts.has_type_ids else {}),
                "logits": _by_label(facts.head, logits[batches.order[batch]].tolist()),
            }
        )
    return windows


def _without_special_tokens(window: dict[str, Any]) -> tuple[list[str], list[float]]:
    """(pieces, attention) of a window without special tokens and padding, whose attention is 0."""
    weighted = [(piece, share) for piece, share in zip(window["pieces"], window["attention"], strict=True) if share]
    return [piece for piece, _ in weighted], [share for _, share in weighted]


def _by_label(head: Head, values: Iterable[float]) -> dict[str, float]:
    return dict(zip(head.labels, values, strict=True))


def print_steps(steps: dict[str, Any]) -> None:
    """Print the steps as tables on stdout."""
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stdout)
    for name in ("text", "text_pair"):
        if name in steps:
            console.print(f"{name:<11} {steps[name]!r}", markup=False, highlight=False)
    console.print(f"model       {steps['model']}  max_length {steps['max_length']}  {steps['dtype']}", highlight=False)
    if "padding" in steps:
        console.print(steps["padding"], markup=False, highlight=False)
    for remark in steps["remarks"]:
        console.print(f"remark      {remark}", markup=False, highlight=False, soft_wrap=True)
    windows = steps.get("windows", [steps])
    for number, window in enumerate(windows[:MAX_PRINTED_WINDOWS], 1):
        columns = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in window]
        suffix = f", window {number} of {len(windows)}" if "windows" in steps else ""
        tokens = Table("token", *(name.removesuffix("s") for name in columns), title=f"tokenized{suffix}")
        rows = list(zip(window["tokens"], *(window[name] for name in columns), strict=True))
        for token, *values in rows[:MAX_PRINTED_TOKENS]:
            tokens.add_row(token.replace("[", r"\["), *map(str, values))
        if len(rows) > MAX_PRINTED_TOKENS:
            tokens.add_row(f"... {len(rows) - MAX_PRINTED_TOKENS} more")
        console.print(tokens)
        if "attention" in window:
            console.print("attention of the token that the head reads", style="bold")
            console.print(shade_tokens(*_without_special_tokens(window)))
    truncated = f", truncated at {steps['max_length']:,} tokens" if steps["truncated"] else ""
    console.print(f"{counted(steps['num_tokens'], 'token')}{truncated}; attention_mask 0 is padding", highlight=False)
    if "windows" in steps:
        console.print(f"{counted(len(windows), 'window')}; their combined logits and scores:", highlight=False)
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
