"""Documents and logits -> labelled documents, and these by partition. Pure.

Columns in: documents and float32 logits (documents, labels). Out: the documents with label, score, num_tokens, truncated and
what the head and the output's settings add. A row with a non-finite logit becomes a reject, never a label.
"""

import numpy as np
import pyarrow as pa

from pipeline_ops.heads import Head, above_threshold, answers_of, best_of
from pipeline_ops.schema import OutputConfig


def label_documents(
    documents: pa.Table,
    logits: np.ndarray,
    *,
    head: Head,
    num_tokens: np.ndarray,
    truncated: np.ndarray,
    output: OutputConfig,
) -> tuple[pa.Table, np.ndarray]:
    """Adds the labelling columns.

    Args:
        documents: as read, with source_file and source_row.
        logits: float32 (documents, labels).
        num_tokens: int32 (documents,); truncated: bool (documents,).
        output: as heads.check_output gives it.

    Returns:
        (the labelled documents, bool (documents,): which rows they are; the others have non-finite logits).
    """
    finite = np.asarray(np.isfinite(logits).all(axis=1))
    if not finite.all():
        documents = documents.filter(pa.array(finite))
        logits, num_tokens, truncated = logits[finite], num_tokens[finite], truncated[finite]
    answers = answers_of(logits, head)
    added: dict[str, pa.Array] = {
        output.label_column: _names(answers.labels, answers.names),
        output.score_column: pa.array(answers.score, pa.float32()),
        output.num_tokens_column: pa.array(num_tokens, pa.int32()),
        output.truncated_column: pa.array(truncated, pa.bool_()),
    }
    if output.labels is True:
        offsets, given = above_threshold(answers.scores, head)
        added[output.labels_column] = pa.ListArray.from_arrays(pa.array(offsets), _names(given, head.labels))
    if output.top_k is not None:
        best, scores = best_of(answers.scores, min(output.top_k, len(head.labels)))
        added[output.top_labels_column] = pa.FixedSizeListArray.from_arrays(
            _names(best.reshape(-1), head.labels), best.shape[1]
        )
        added[output.top_scores_column] = _fixed_lists(scores)
    if output.scores:
        added[output.scores_column] = _fixed_lists(answers.scores)
    if output.logits:
        added[output.logits_column] = _fixed_lists(logits)
    for name, column in added.items():
        documents = documents.append_column(name, column)
    return documents, finite


def _names(ids: np.ndarray, names: tuple[str, ...]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(ids, pa.int32()), list(names)).cast(pa.string())


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
