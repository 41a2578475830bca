"""Documents and model outputs -> labeled documents, and these by partition.

Columns in: documents, as read, and ModelOutputs. Columns out: the documents' own plus label, score, num_tokens, truncated and
what the head and the output's settings add; rows and their order stay.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline_ops.models.heads import Head, labels_above_threshold, predict, scores_of, top_k_labels
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.tokenizing.windows import Windows
from pipeline_ops.writing.window_aggregation import aggregate_windows


@dataclass(frozen=True)
class ModelOutputs:
    """Model outputs for one unit.

    logits: float32 (windows, labels), the windows of a document one behind the other; num_tokens: int32 (documents,);
    truncated: bool (documents,); num_windows: int32 (documents,), windows per document, or None: one each; embedding: float32
    (windows, hidden size), or None.
    """

    logits: np.ndarray
    num_tokens: np.ndarray
    truncated: np.ndarray
    num_windows: np.ndarray | None = None
    embedding: np.ndarray | None = None

    def finite_rows(self) -> np.ndarray:
        """bool (documents,): True if all logits of a document are finite."""
        finite = np.asarray(np.isfinite(self.logits).all(axis=1))
        if self.num_windows is None:
            return finite
        return ~aggregate_windows(~finite[:, None], self.num_windows, "max")[:, 0]

    def filter(self, keep: np.ndarray) -> "ModelOutputs":
        """The outputs of the documents in `keep`, bool (documents,)."""
        rows = keep if self.num_windows is None else np.repeat(keep, self.num_windows)
        return ModelOutputs(
            self.logits[rows],
            self.num_tokens[keep],
            self.truncated[keep],
            None if self.num_windows is None else self.num_windows[keep],
            None if self.embedding is None else self.embedding[rows],
        )


def label_documents(
    documents: pa.Table, outputs: ModelOutputs, *, head: Head, output: OutputConfig, windows: Windows | None = None
) -> pa.Table:
    """Append a model's columns to the documents.

    Args:
        documents: as read, with what other models have appended.
        outputs: of the same documents, with finite logits only.
        output: what heads.check_output returns.
        windows: None if documents were truncated. An embedding is the mean of its windows', or with `aggregate: first` the
            first one's.
    """
    logits, num_windows, embedding = outputs.logits, outputs.num_windows, outputs.embedding
    if num_windows is None:
        num_windows = np.ones(documents.num_rows, np.int32)
    scores = window_scores = scores_of(logits, head.activation)
    if windows is not None:
        logits = aggregate_windows(logits, num_windows, windows.aggregate)
        on_scores = windows.aggregate_on == "scores"
        scores = aggregate_windows(scores, num_windows, windows.aggregate) if on_scores else scores_of(logits, head.activation)
    predictions = predict(scores, head)
    added: dict[str, pa.Array] = {
        output.label_name: _label_array(predictions.labels, predictions.names),
        output.score_column: pa.array(predictions.score, pa.float32()),
        output.num_tokens_column: pa.array(outputs.num_tokens, pa.int32()),
        output.truncated_column: pa.array(outputs.truncated, pa.bool_()),
    }
    if output.labels is True:
        offsets, given = labels_above_threshold(scores, head)
        added[output.labels_column] = pa.ListArray.from_arrays(pa.array(offsets), _label_array(given, head.labels))
    if output.top_k is not None:
        best, best_scores = top_k_labels(scores, min(output.top_k, len(head.labels)))
        added[output.top_labels_column] = pa.FixedSizeListArray.from_arrays(
            _label_array(best.reshape(-1), head.labels), best.shape[1]
        )
        added[output.top_scores_column] = _fixed_lists(best_scores)
    if output.scores:
        added[output.scores_column] = _fixed_lists(scores)
    if output.logits:
        added[output.logits_column] = _fixed_lists(logits)
    if embedding is not None:
        pooled = aggregate_windows(
            embedding, num_windows, "first" if windows is None or windows.aggregate == "first" else "mean"
        )
        added[output.embedding_column] = _fixed_lists(pooled, output.embedding_dtype or "float32")
    if output.num_windows is True:
        added[output.num_windows_column] = pa.array(num_windows, pa.int32())
    if output.window_scores:
        offsets = np.concatenate([[0], np.cumsum(num_windows)]).astype(np.int32)
        added[output.window_scores_column] = pa.ListArray.from_arrays(pa.array(offsets), _fixed_lists(window_scores))
    for name, column in added.items():
        documents = documents.append_column(name, column)
    return documents


def count_labels(column: Callable[[str], pa.ChunkedArray], output: OutputConfig) -> tuple[int, int, dict[str, int]]:
    """(tokens over all models, documents that at least one model truncated, documents by label).

    With several models a label's key is `model=label`.

    Args:
        column: returns a column of the labeled documents by its name.
    """
    tokens, truncated, labels = 0, np.zeros(0, bool), {}
    for name, part in output.by_model().items():
        tokens += int(column(part.num_tokens_column).cast(pa.int64()).to_numpy().sum())
        cut = column(part.truncated_column).cast(pa.bool_()).to_numpy()
        truncated = cut | truncated if len(truncated) else cut
        for count in column(part.label_name).value_counts().to_pylist():
            labels[f"{name}={count['values']}" if name else count["values"]] = count["counts"]
    return tokens, int(truncated.sum()), labels


def _label_array(ids: np.ndarray, names: tuple[str, ...]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(ids, pa.int32()), list(names)).cast(pa.string())


def _fixed_lists(values: np.ndarray, dtype: str = "float32") -> pa.Array:
    flat = pa.array(np.ascontiguousarray(values, dtype).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
