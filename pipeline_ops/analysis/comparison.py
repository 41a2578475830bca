"""Compare two outputs over the same input document by document, in bounded memory (PART_BYTES per output).

Documents are matched by source_file and source_row. Commits record which input rows they cover, so overlapping commits can be
joined part by part (alignment.py); the counts are those of agreement.py.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline_ops.analysis.agreement import (
    AgreementCounts,
    AlignedPredictions,
    PairedAccuracy,
    distances,
    fallback_ids,
)
from pipeline_ops.analysis.aligned_rows import (
    OTHER_LABELS,
    ROWS_PER_FILE,
    ComparedLists,
    Side,
    TrueLabels,
    TruthColumn,
    ids_of,
    key_bounds,
    read_rows,
)
from pipeline_ops.analysis.alignment import FileMatching, JoinPart, align, match_inputs
from pipeline_ops.output.labeled_output import read_columns
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.units import unpack_rejects
from pipeline_ops.storage.store import StoredFile
from pipeline_ops.writing.commit_record import Commit, WrittenFile
from pipeline_ops.writing.hive_partitions import hive_values

PART_BYTES = 128 * 2**20  # of compared columns per output in memory, approximately
SCORE_BYTES = 16  # per score: four float32 copies, as read, concatenated, joined, subtracted
ROW_BYTES = 64  # per document: key, label and score, and their sort
MOST_CHANGED = 20  # documents with the largest distances, and of those that became wrong the ones with the highest scores


@dataclass(frozen=True)
class Change:
    """A document with different predictions in A and B; `distance`: see agreement.distances."""

    source_file: str  # its path in A
    source_row: int
    name: str  # of the file, as in FileMatching
    distance: float
    label_a: str
    label_b: str
    score_a: float
    score_b: float
    truth: str | None = None  # where a column with it is compared; the labels of a set are joined by commas
    text: str | None = None


@dataclass
class Comparison:
    """The result, accumulated part by part."""

    matching: FileMatching
    names: dict[str, int]  # {label: its id in `counts`}
    counts: AgreementCounts = field(default_factory=AgreementCounts)
    only_a: int = 0  # documents that only A has labeled
    only_b: int = 0
    rejected_in_b: int = 0  # those of only_a that B rejected
    rejected_in_a: int = 0
    changed_a: int = 0  # labeled documents of A in files that changed between the runs
    changed_b: int = 0
    most_changed: list[Change] = field(default_factory=list)
    truth: PairedAccuracy | None = None
    true_labels: dict[str, int] = field(default_factory=dict)  # `names`, then true labels that neither output can have
    became_wrong: list[Change] = field(default_factory=list)  # right in A, wrong in B: those of which B is surest

    def keep_largest(self, changes: Iterable[Change]) -> None:
        ranked = sorted([*self.most_changed, *changes], key=lambda one: (-one.distance, one.name, one.source_row))
        self.most_changed = ranked[:MOST_CHANGED]

    def keep_wrong(self, changes: Iterable[Change]) -> None:
        ranked = sorted([*self.became_wrong, *changes], key=lambda one: (-one.score_b, one.name, one.source_row))
        self.became_wrong = ranked[:MOST_CHANGED]


def compare_outputs(
    a: Side,
    b: Side,
    truth: TruthColumn | TrueLabels | None = None,
    on_part: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Join the committed rows of two outputs and compare them.

    Args:
        truth: compare both with it as well; where both outputs have label sets, a document is right if its set is.
        on_part: called with (parts done, parts in total).

    Raises:
        UserError: the same output twice, heads of different kinds, an empty output, no input file in common, or a truth
            that is no label.
        OSError: a labeled file cannot be read.
    """
    _check(a, b)
    commits_a, commits_b = a.labeled.commits, b.labeled.commits
    matching = match_inputs(commits_a, commits_b, _input_of(a), _input_of(b))
    labels = dict.fromkeys(name for side in (a, b) for name in (*side.possible_labels, *side.head.labels))
    comparison = Comparison(matching, {name: number for number, name in enumerate(labels)})
    lists = ComparedLists.of(a, b)
    if truth is not None:
        comparison.truth, comparison.true_labels = PairedAccuracy(), dict(comparison.names)
        if lists.labels:
            comparison.true_labels.setdefault(OTHER_LABELS, len(comparison.names))
    sets = lists.labels * (1 if truth is None else 2)
    row_bytes = ROW_BYTES + SCORE_BYTES * len(a.head.labels) * lists.scores + len(comparison.names) * sets
    alignment = align(commits_a, commits_b, matching, PART_BYTES // row_bytes)
    comparison.changed_a, comparison.only_a = _count_unread(a, matching.root_a, alignment.unmatched[0], matching)
    comparison.changed_b, comparison.only_b = _count_unread(b, matching.root_b, alignment.unmatched[1], matching)
    for number, part in enumerate(alignment.parts, 1):
        _compare_part(part, a, b, lists, truth, comparison)
        on_part(number, len(alignment.parts))
    comparison.most_changed = _with_texts(comparison.most_changed, a, b, matching)
    comparison.became_wrong = _with_texts(comparison.became_wrong, a, b, matching)
    return comparison


def _check(a: Side, b: Side) -> None:
    if a.labeled.path == b.labeled.path and a.model == b.model:
        raise UserError(
            f"A and B are the same output {a.labeled.path!r}; give two, or two of its models by --model and --model-b"
        )
    if (a.head.kind == "value") != (b.head.kind == "value"):
        value, other = ("A", "B") if a.head.kind == "value" else ("B", "A")
        raise UserError(f"the model of {value} predicts a value, that of {other} labels; give two outputs of the same kind")
    for name, side in (("A", a), ("B", b)):
        if not side.labeled.commits:
            raise UserError(f"{name}: {side.labeled.path!r} has no commits; run the job first")


def _input_of(side: Side) -> str:
    return side.labeled.record["config"]["input"]["path"]


def _count_unread(side: Side, root: str, unmatched: Sequence[Commit], matching: FileMatching) -> tuple[int, int]:
    """(labeled documents in changed files, labeled documents of unmatched commits in other files) of one output."""
    changed: dict[str, int] = {}
    for commit in side.labeled.commits:
        are_changed = {piece.path.removeprefix(root) in matching.changed for piece in commit.pieces}
        if are_changed == {True}:
            changed[commit.name] = commit.labeled
        elif True in are_changed:
            numbers = {piece.path: int(piece.path.removeprefix(root) in matching.changed) for piece in commit.pieces}
            column = side.columns.source_file_column
            tables = read_columns(side.labeled.store, commit.files, [column], side.labeled.partition_types)
            changed[commit.name] = sum(int(ids_of(table.column(column), numbers.__getitem__).sum()) for _, table in tables)
    return sum(changed.values()), sum(commit.labeled - changed.get(commit.name, 0) for commit in unmatched)


def _compare_part(
    part: JoinPart, a: Side, b: Side, lists: ComparedLists, truth: TruthColumn | TrueLabels | None, comparison: Comparison
) -> None:
    matching, names = comparison.matching, comparison.names
    sides = ((a, part.a), (b, part.b))
    files = sorted({name for side in (0, 1) for commit in sides[side][1] for name in matching.names_of(side, commit)})
    numbers = {name: number for number, name in enumerate(files) if name not in matching.changed}
    low, high = key_bounds(files, part)
    read = []
    for (side, commits), root, order in zip(sides, (matching.root_a, matching.root_b), (None, lists.order_b), strict=True):
        rows = read_rows(side, commits, root, numbers, names, comparison.true_labels, lists, order, truth)
        inside = (rows["key"] >= low) & (rows["key"] < high)
        read.append(rows if inside.all() else {name: values[inside] for name, values in rows.items()})
    keys_a, keys_b = (rows.pop("key") for rows in read)
    both, index_a, index_b = np.intersect1d(keys_a, keys_b, assume_unique=True, return_indices=True)
    only_a, only_b = np.setdiff1d(keys_a, both, assume_unique=True), np.setdiff1d(keys_b, both, assume_unique=True)
    comparison.only_a += len(only_a)
    comparison.only_b += len(only_b)
    if len(only_a):
        comparison.rejected_in_b += _count_rejected(only_a, b, part.b, matching.root_b, numbers)
    if len(only_b):
        comparison.rejected_in_a += _count_rejected(only_b, a, part.a, matching.root_a, numbers)
    truths = {
        name: rows.pop(name)[index]
        for rows, index in zip(read, (index_a, index_b), strict=True)
        for name in ("truth", "has_truth")
        if name in rows
    }
    in_a, in_b = (
        AlignedPredictions(**{name: values[index] for name, values in rows.items()})
        for rows, index in zip(read, (index_a, index_b), strict=True)
    )
    comparison.counts.add(in_a, in_b)
    if a.head.kind == "value":
        comparison.counts.values.add(in_a.score, in_b.score)
    activation = a.head.activation if a.head.activation == b.head.activation else None
    distance = distances(in_a, in_b, activation, fallback_ids([a.head, b.head], names))
    is_full = len(comparison.most_changed) == MOST_CHANGED
    floor = comparison.most_changed[-1].distance if is_full else 0
    where = np.flatnonzero((distance > 0) & (distance >= floor))
    where = where[np.lexsort((both[where], -distance[where]))][:MOST_CHANGED]
    labels = list(names)

    def change(index: int) -> Change:
        return Change(
            source_file=matching.root_a + files[both[index] // ROWS_PER_FILE],
            source_row=int(both[index] % ROWS_PER_FILE),
            name=files[both[index] // ROWS_PER_FILE],
            distance=float(distance[index]),
            label_a=labels[in_a.labels[index]],
            label_b=labels[in_b.labels[index]],
            score_a=float(in_a.score[index]),
            score_b=float(in_b.score[index]),
        )

    comparison.keep_largest(map(change, where.tolist()))
    if truths and comparison.truth is not None:
        true, has_truth = truths["truth"], truths["has_truth"]
        right_a, right_b = (_are_right(predictions, true) & has_truth for predictions in (in_a, in_b))
        comparison.truth.add(true, has_truth, right_a, right_b)
        true_labels = list(comparison.true_labels)
        wrong = np.flatnonzero(right_a & ~right_b)
        wrong = wrong[np.lexsort((both[wrong], -in_b.score[wrong]))][:MOST_CHANGED]
        comparison.keep_wrong(replace(change(index), truth=_joined(true[index], true_labels)) for index in wrong.tolist())


def _are_right(predictions: AlignedPredictions, truths: np.ndarray) -> np.ndarray:
    """bool (documents,): whether the label, or the whole set of labels, is that of the truth."""
    if truths.ndim == 1:
        return predictions.labels == truths
    assert predictions.predicted is not None
    return (predictions.predicted == truths[:, :-1]).all(axis=1) & ~truths[:, -1]


def _joined(truth: np.ndarray, names: Sequence[str]) -> str:
    """A true label by its id, or a set of true labels."""
    if truth.ndim == 0:
        return names[int(truth)]
    return ", ".join(names[place] for place in np.flatnonzero(truth).tolist()) or "none"


def _count_rejected(keys: np.ndarray, side: Side, commits: Iterable[Commit], root: str, numbers: dict[str, int]) -> int:
    """The number of these documents that are rejects of an output."""
    rejects = [commit.rejects_file for commit in commits if commit.rejects_file is not None]
    found = []
    for file in rejects:
        stored = StoredFile(side.labeled.store.join(file.path), file.bytes, file.md5)
        for reject in unpack_rejects(side.labeled.store.read_files([stored])[0]):
            number = numbers.get(reject.source_file.removeprefix(root), -1)
            if number >= 0:
                found.append(number * ROWS_PER_FILE + reject.source_row)
    return int(np.isin(keys, np.array(found, np.int64)).sum())


def _with_texts(changes: list[Change], a: Side, b: Side, matching: FileMatching) -> list[Change]:
    """Add the documents' texts, from A if it has a text column, else from B."""
    side, root = (a, matching.root_a) if a.text_column else (b, matching.root_b)
    if side.text_column is None:
        return changes
    texts: dict[tuple[str, int], str] = {}
    wanted = {(root + change.name, change.source_row): change.label_a if side is a else change.label_b for change in changes}
    files: dict[str, WrittenFile] = {}
    for (path, row), label in wanted.items():
        for commit in side.labeled.commits:
            if any(piece.path == path and piece.start_row <= row < piece.stop_row for piece in commit.pieces):
                files |= {file.path: file for file in commit.files if _may_hold(file, side.columns.label_name, label)}
    columns = side.columns
    names = [columns.source_file_column, columns.source_row_column, side.text_column]
    paths = pa.array(sorted({path for path, _ in wanted}), pa.string())
    for _, table in read_columns(side.labeled.store, list(files.values()), names, side.labeled.partition_types):
        near = table.filter(pc.is_in(table.column(0).cast(pa.string()), paths))
        rows = near.column(1).cast(pa.int64())
        near = near.filter(pc.is_in(rows, pa.array(sorted({row for _, row in wanted}), pa.int64())))
        for path, row, text in zip(*(column.to_pylist() for column in near.columns), strict=True):
            if (path, int(row)) in wanted and text is not None:
                texts[path, int(row)] = str(text)
    return [replace(change, text=texts.get((root + change.name, change.source_row))) for change in changes]


def _may_hold(file: WrittenFile, column: str, label: str) -> bool:
    """False if the file's partition has another label."""
    return hive_values(file.path).get(column, label) == label
