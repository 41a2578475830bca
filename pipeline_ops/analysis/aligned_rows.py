"""The rows of an output that are compared, as numpy arrays by name."""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline_ops.analysis.alignment import JoinPart, Position
from pipeline_ops.analysis.multi_label import is_list
from pipeline_ops.analysis.single_label import as_text, check_truths
from pipeline_ops.models.heads import Head
from pipeline_ops.models.model_card import REVIEWED_SAMPLES
from pipeline_ops.output.labeled_output import Labeled, read_columns
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.writing.commit_record import Commit

ROWS_PER_FILE = 2**36  # more than any file has: a document's key is the index of its file times this, plus its row
OTHER_LABELS = "labels that neither output can have"  # of the truth, where sets of labels are compared

# labeled rows of a part: arrays by field of AlignedPredictions, and `key`, int64 (rows,), negative for rows of changed files;
# `truth`, as PairedAccuracy.add takes it (of sets, the last column is for OTHER_LABELS), and `has_truth`, bool (rows,)
Rows = dict[str, np.ndarray]


@dataclass(frozen=True)
class Side:
    """One of the two outputs, and the model whose labels are compared."""

    labeled: Labeled
    model: str = ""

    @cached_property
    def columns(self) -> OutputConfig:
        return self.labeled.columns.by_model()[self.model]

    @cached_property
    def head(self) -> Head:
        return self.labeled.head(self.model)

    @property
    def reviewed_samples(self) -> list[str]:
        """Ids of the review samples that the model was trained on, sorted."""
        return (self.labeled.record["models"][self.model].get("card") or {}).get(REVIEWED_SAMPLES, [])

    @property
    def possible_labels(self) -> tuple[str, ...]:
        """All values of the label column: the head's labels or bins, and the fallback label."""
        head = self.head
        return head.bin_labels if head.bins else (*head.labels, *filter(None, [head.fallback_label]))

    @property
    def text_column(self) -> str | None:
        """The text column, if the output has it."""
        name = self.labeled.record["config"]["input"]["text_column"]
        kept = self.labeled.columns.input_columns()
        return name if kept is None or name in kept else None


@dataclass(frozen=True)
class TruthColumn:
    """The column with the truth, and the output that is read for it."""

    name: str
    side: Side

    @property
    def columns(self) -> list[str]:
        return [self.name]

    def of(self, table: pa.Table) -> pa.Array:
        """The true labels of these rows, null where there is none."""
        return table.column(self.name).combine_chunks()


@dataclass(frozen=True)
class TrueLabels:
    """True labels of single documents, by source_file and source_row as an output has them."""

    labels: Mapping[tuple[str, int], str | tuple[str, ...]]
    side: Side

    @property
    def columns(self) -> list[str]:
        return []

    def of(self, table: pa.Table) -> pa.Array:
        """As TruthColumn.of()."""
        names = self.side.columns
        files = table.column(names.source_file_column).cast(pa.string())
        rows = table.column(names.source_row_column).cast(pa.int64())
        known_rows = pc.is_in(rows, pa.array(sorted({row for _, row in self.labels}), pa.int64()))
        places = pc.indices_nonzero(pc.and_(known_rows, pc.is_in(files, pa.array(sorted({file for file, _ in self.labels})))))
        truths: list[str | tuple[str, ...] | None] = [None] * table.num_rows
        for place in places.to_pylist():
            truths[place] = self.labels.get((files[place].as_py(), rows[place].as_py()))
        are_sets = any(isinstance(label, tuple) for label in self.labels.values())
        return pa.array(truths, pa.list_(pa.string()) if are_sets else pa.string())


@dataclass(frozen=True)
class ComparedLists:
    """Which list columns are compared: those that both outputs have with the same meaning."""

    scores: bool
    labels: bool
    order_b: tuple[int, ...]  # index in B's scores of each of A's labels

    @staticmethod
    def of(a: Side, b: Side) -> "ComparedLists":
        labels_a, labels_b = a.head.labels, b.head.labels
        alike = (
            sorted(labels_a) == sorted(labels_b)
            and len(set(labels_a)) == len(labels_a)
            and a.head.activation == b.head.activation
        )
        scores = alike and a.head.kind != "value" and a.columns.scores and b.columns.scores
        labels = a.columns.labels is True and b.columns.labels is True
        return ComparedLists(scores, labels, tuple(labels_b.index(label) for label in labels_a) if scores else ())


def read_rows(
    side: Side,
    commits: Sequence[Commit],
    root: str,
    numbers: dict[str, int],
    names: dict[str, int],
    true_labels: dict[str, int],
    lists: ComparedLists,
    order: Sequence[int] | None,
    truth: TruthColumn | TrueLabels | None,
) -> Rows:
    """Read the compared columns of these commits' files.

    Args:
        root: the side's root in FileMatching.
        numbers: {file name: index in the part}, without changed files.
        names: {label: id}.
        true_labels: the same of true labels; those that are found are added.
        order: the order in which to take the scores; None: as stored.
        truth: is read if it is a column of this side.
    """
    columns = side.columns
    truth = truth if truth is not None and truth.side is side else None
    wanted = [columns.source_file_column, columns.source_row_column, columns.label_name, columns.score_column]
    wanted += [columns.scores_column] * lists.scores + [columns.labels_column] * lists.labels
    wanted += truth.columns if truth else []
    files = [file for commit in commits for file in commit.files]
    parts: list[Rows] = []
    for _, table in read_columns(side.labeled.store, files, wanted, side.labeled.partition_types):
        numbered = ids_of(table.column(columns.source_file_column), lambda path: numbers.get(path.removeprefix(root), -1))
        parts.append(
            {
                "key": numbered * ROWS_PER_FILE + table.column(columns.source_row_column).cast(pa.int64()).to_numpy(),
                "labels": ids_of(table.column(columns.label_name), names.__getitem__),
                "score": table.column(columns.score_column).cast(pa.float64()).to_numpy(),
            }
        )
        if lists.scores:
            flat = pc.list_flatten(table.column(columns.scores_column).combine_chunks())
            scores = flat.to_numpy(zero_copy_only=False).reshape(table.num_rows, len(side.head.labels))
            parts[-1]["scores"] = scores if order is None else scores[:, list(order)]
        if lists.labels:
            parts[-1]["predicted"] = _predicted(table.column(columns.labels_column), names)
        if truth is not None:
            values = truth.of(table)
            parts[-1] |= _true_sets(values, names) if lists.labels else _true_labels(values, true_labels)
    if not parts:
        return {"key": np.empty(0, np.int64), "labels": np.empty(0, np.int64), "score": np.empty(0)}
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _true_labels(values: pa.Array, names: dict[str, int]) -> Rows:
    """`truth` and `has_truth` of a column with one label per document; labels without an id get one in `names`."""
    if is_list(values.type):
        raise UserError("--truth: the column holds lists, but one label per document is compared; give one with a single label")
    texts = as_text(values)
    has_truth = texts.is_valid().to_numpy(zero_copy_only=False)
    known = texts.fill_null(next(iter(names)))
    truth = ids_of(pa.chunked_array([known]), lambda name: names.setdefault(name, len(names)))
    check_truths(len(names))
    return {"truth": truth, "has_truth": has_truth}


def _true_sets(values: pa.Array, names: dict[str, int]) -> Rows:
    """`truth` and `has_truth` of a column with lists of labels, or with one label, as sets over `names` and OTHER_LABELS."""
    has_truth = values.is_valid().to_numpy(zero_copy_only=False)
    if is_list(values.type):
        owners, labels = pc.list_parent_indices(values).to_numpy(), as_text(pc.list_flatten(values))
    else:
        owners, labels = np.arange(len(values)), as_text(values)
    owners = owners[labels.is_valid().to_numpy(zero_copy_only=False)]
    truth = np.zeros((len(values), len(names) + 1), bool)
    truth[owners, ids_of(pa.chunked_array([labels.drop_null()]), lambda name: names.get(name, len(names)))] = True
    return {"truth": truth, "has_truth": has_truth}


def ids_of(column: pa.ChunkedArray, number_of: Callable[[str], int]) -> np.ndarray:
    """int64 (rows,): number_of() each text, called once per distinct text."""
    encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    numbers = np.array([number_of(text) for text in encoded.dictionary.to_pylist()], np.int64)
    return numbers[encoded.indices.to_numpy()] if len(numbers) else np.empty(0, np.int64)


def key_bounds(files: list[str], part: JoinPart) -> tuple[int, int]:
    """The keys [low, high) of a part's rows.

    Args:
        files: sorted names of the part's files, by whose indices keys are made.
    """
    low = 0 if part.low is None else _key(files, part.low)
    high = len(files) * ROWS_PER_FILE if part.high is None else _key(files, part.high)
    return low, high


def _key(files: list[str], position: Position) -> int:
    """The key of a position; of the beginning of the next file if the file is not in `files`."""
    name, row = position
    number = bisect_left(files, name)
    return number * ROWS_PER_FILE + (row if files[number : number + 1] == [name] else 0)


def _predicted(column: pa.ChunkedArray, names: dict[str, int]) -> np.ndarray:
    """Label lists as bool (documents, names)."""
    lists = column.combine_chunks()
    predicted = np.zeros((len(lists), len(names)), bool)
    flat = pa.chunked_array([pc.list_flatten(lists)])
    predicted[pc.list_parent_indices(lists).to_numpy(), ids_of(flat, names.__getitem__)] = True
    return predicted
