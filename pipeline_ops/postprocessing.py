"""Logits -> scores -> labels, as transformers' text-classification pipeline does it. Pure.

Columns in: documents and float32 logits (documents, labels). Out: the documents with label, score, num_tokens, truncated and,
on request, scores and logits. A row with a non-finite logit becomes a reject, never a label.
"""

from typing import Literal

import numpy as np
import pyarrow as pa

from pipeline_ops.schema import OutputConfig

Activation = Literal["softmax", "sigmoid", "none"]


def activation_for(problem_type: str | None, num_labels: int) -> Activation:
    """The activation that belongs to a head.

    Source: transformers, pipelines/text_classification.py: regression has none; multi-label or a single label takes the
    sigmoid; otherwise softmax.
    """
    if problem_type == "regression":
        return "none"
    if problem_type == "multi_label_classification" or num_labels == 1:
        return "sigmoid"
    return "softmax"


def scores_of(logits: np.ndarray, activation: Activation) -> np.ndarray:
    """float32 (documents, labels) -> float32 of the same shape; stable for logits of any finite size."""
    if activation == "none":
        return logits
    if activation == "sigmoid":
        # exp of a negative number only: no overflow on either side
        small = np.exp(-np.abs(logits))
        return (np.where(logits >= 0, 1, small) / (1 + small)).astype(np.float32)
    with np.errstate(over="ignore"):  # -inf where the difference is beyond float32: a score of 0
        shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (shifted / shifted.sum(axis=-1, keepdims=True)).astype(np.float32)


def label_documents(
    documents: pa.Table,
    logits: np.ndarray,
    *,
    labels: tuple[str, ...],
    activation: Activation,
    num_tokens: np.ndarray,
    truncated: np.ndarray,
    output: OutputConfig,
) -> tuple[pa.Table, np.ndarray]:
    """Adds the labelling columns.

    Args:
        documents: as read, with source_file and source_row.
        logits: float32 (documents, labels).
        labels: the names in id2label order.
        num_tokens: int32 (documents,); truncated: bool (documents,).

    Returns:
        (the labelled documents, bool (documents,): which rows they are; the others have non-finite logits).
    """
    finite = np.asarray(np.isfinite(logits).all(axis=1))
    if not finite.all():
        documents = documents.filter(pa.array(finite))
        logits, num_tokens, truncated = logits[finite], num_tokens[finite], truncated[finite]
    scores = scores_of(logits, activation)
    best = scores.argmax(axis=1) if len(scores) else np.empty(0, np.int64)
    added: dict[str, pa.Array] = {
        output.label_column: pa.DictionaryArray.from_arrays(best.astype(np.int32), list(labels)).cast(pa.string()),
        output.score_column: pa.array(scores[np.arange(len(best)), best], pa.float32()),
        output.num_tokens_column: pa.array(num_tokens, pa.int32()),
        output.truncated_column: pa.array(truncated, pa.bool_()),
    }
    if output.scores:
        added[output.scores_column] = _fixed_lists(scores)
    if output.logits:
        added[output.logits_column] = _fixed_lists(logits)
    for name, column in added.items():
        documents = documents.append_column(name, column)
    return documents, finite


def _fixed_lists(values: np.ndarray) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(values, np.float32).reshape(-1), pa.float32())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def partitions(documents: pa.Table, columns: tuple[str, ...]) -> list[tuple[tuple[object, ...], pa.Table]]:
    """The documents of each combination of values in `columns`, without those columns; each document is in exactly one."""
    if not columns:
        return [((), documents)] if documents.num_rows else []
    encoded = []
    for name in columns:
        column = documents.column(name)
        plain = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        encoded.append(plain.combine_chunks().dictionary_encode(null_encoding="encode"))
    group_of = np.zeros(documents.num_rows, np.int64)
    first_rows = np.empty(0, np.int64)
    # by number, not by value: NaN equals nothing, and 0.0 equals -0.0
    for array in encoded:  # numbered anew for each column: a product over all of them might not fit
        codes = group_of * max(len(array.dictionary), 1) + array.indices.to_numpy()
        _, first_rows, group_of = np.unique(codes, return_index=True, return_inverse=True)
    rest = documents.drop_columns(list(columns))
    found = []
    for number, row in enumerate(first_rows):
        key = tuple(array.dictionary[array.indices[int(row)].as_py()].as_py() for array in encoded)
        found.append((key, rest.filter(pa.array(group_of == number))))
    return found
