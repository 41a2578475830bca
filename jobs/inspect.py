"""`label-corpus inspect`: the steps under the hood for one text, with the same functions that the job uses."""

import sys
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from pipeline_ops.actors import resolve_dtype
from pipeline_ops.classifying import classify
from pipeline_ops.heads import check_output, scores_of
from pipeline_ops.models import ModelConfig, load_classifier, resolve_model
from pipeline_ops.postprocessing import label_documents
from pipeline_ops.schema import OutputConfig
from pipeline_ops.storage import StorageConfig
from pipeline_ops.tokenizing import attention_mask, encode, make_batches, truncating_backend

MAX_SHOWN_TOKENS = 40


class InspectConfig(BaseModel):
    """The keys that inspecting takes from the command line: model.* and storage.*"""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: ModelConfig
    storage: StorageConfig = StorageConfig()


def inspect_text(text: str, model: ModelConfig, storage: StorageConfig) -> dict[str, Any]:
    """Tokens, input_ids, attention_mask, logits, scores and label of one text, as the job would have them."""
    facts, tokenizer, _ = resolve_model(model, storage)
    head = facts.head
    dtype = resolve_dtype(model.dtype, use_gpu=False)
    encodings = encode([text], truncating_backend(tokenizer, facts.max_length), with_type_ids=facts.has_type_ids)
    batches = make_batches(
        encodings,
        batch_tokens=1,
        pad_id=facts.pad_id,
        pad_type_id=facts.pad_type_id,
        pad_left=facts.pad_left,
        max_width=facts.max_length,
    )
    classifier = load_classifier(model, storage, revision=facts.revision, dtype=dtype, device="cpu")
    logits = classify(batches, classifier, num_labels=len(head.labels), pad_left=facts.pad_left)
    labelled, finite = label_documents(
        pa.table({"text": [text]}),
        logits,
        head=head,
        num_tokens=encodings.lengths,
        truncated=encodings.truncated,
        output=check_output(head, OutputConfig(path="-")),
    )
    scores = scores_of(logits, head.activation)[0] if finite.all() else np.full(len(head.labels), np.nan)
    answer = labelled.select(["label", "score", *(["labels"] if head.kind == "multi_label" else [])])
    return {
        "text": text,
        "model": facts.path,
        "revision": facts.revision,
        "max_length": facts.max_length,
        "dtype": dtype,
        "tokens": tokenizer.convert_ids_to_tokens(batches.ids.tolist()),
        "input_ids": batches.ids.tolist(),
        "attention_mask": attention_mask(batches.lengths, int(batches.widths[0]), facts.pad_left)[0].tolist(),
        "num_tokens": int(encodings.lengths[0]),
        "truncated": bool(encodings.truncated[0]),
        "activation": head.activation,
        "logits": dict(zip(head.labels, map(float, logits[0]), strict=True)),
        "scores": dict(zip(head.labels, map(float, scores), strict=True)),
        **(answer.to_pylist()[0] if finite.all() else dict.fromkeys(answer.column_names)),
    }


def show(steps: dict[str, Any]) -> None:
    """Prints the steps for people, on stdout."""
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stdout)
    console.print(f"text        {steps['text']!r}", markup=False, highlight=False)
    console.print(f"model       {steps['model']}  max_length {steps['max_length']}  {steps['dtype']}", highlight=False)
    tokens = Table("token", "input_id", "attention_mask", title="tokenized")
    rows = list(zip(steps["tokens"], steps["input_ids"], steps["attention_mask"], strict=True))
    for token, input_id, mask in rows[:MAX_SHOWN_TOKENS]:
        tokens.add_row(token.replace("[", r"\["), str(input_id), str(mask))
    if len(rows) > MAX_SHOWN_TOKENS:
        tokens.add_row(f"... {len(rows) - MAX_SHOWN_TOKENS} more", "", "")
    console.print(tokens)
    cut = ", truncated" if steps["truncated"] else ""
    console.print(f"{steps['num_tokens']} tokens{cut}; a mask of 0 is padding", highlight=False)
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


if __name__ == "__main__":
    from jobs.cli import main

    main("inspect")
