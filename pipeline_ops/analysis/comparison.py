"""Two outputs over the same input -> what differs, document by document, in the memory of one part of each (PART_BYTES).

Documents are the same by source_file and source_row. The commits of both say which rows each labeled, so what is joined at a
time is small: see pairing.py. What is counted: see agreeing.py.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline_ops.analysis.agreement import AlignedPredictions, Tally, distances, fallback_ids
from pipeline_ops.analysis.alignment import Matching, Part, match_inputs, pair
from pipeline_ops.models.heads import Head
from pipeline_ops.output.committed_files import hive_values
from pipeline_ops.output.labeled_output import Labeled, read_columns
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import unpack_rejects
from pipeline_ops.storage.store import StoredFile
from pipeline_ops.writing.commit_record import Commit, WrittenFile

PART_BYTES = 128 * 2**20  # of the compared columns of one output that are held at a time, about
SCORE_BYTES = 16  # of one of a document's scores: as read, joined with other files', joined with the other output's, apart
ROW_BYTES = 64  # of a document in that: its key, label and score, and what sorting them takes
MOST_CHANGED = 20


@dataclass(frozen=True)
class Side:
    """One of the two outputs, as one of its models has labeled it."""

    labeled: Labeled
    model: str = ""

    @cached_property
    def columns(self) -> OutputConfig:
        return self.labeled.columns.by_model()[self.model]

    @cached_property
    def head(self) -> Head:
        return self.labeled.head(self.model)

    @property
    def answers(self) -> tuple[str, ...]:
        """What a label can be."""
        head = self.head
        return head.bin_labels if head.bins else (*head.labels, *filter(None, [head.fallback_label]))

    @property
    def text_column(self) -> str | None:
        """The column with the document's text, if the output has it."""
        name = self.labeled.record["config"]["input"]["text_column"]
        kept = self.labeled.columns.input_columns()
        return name if kept is None or name in kept else None


@dataclass(frozen=True)
class Change:
    """A document and its two answers; `distance`: see agreeing.distances."""

    source_file: str  # in A
    source_row: int
    name: str  # of the file: what A and B both call it
    distance: float
    label_a: str
    label_b: str
    score_a: float
    score_b: float
    text: str | None = None


@dataclass
class Comparison:
    """What has been found."""

    matching: Matching
    names: dict[str, int]  # labels, and the ids by which `tally` knows them
    tally: Tally = field(default_factory=Tally)
    only_a: int = 0  # documents that A has labeled and B not
    only_b: int = 0
    rejected_in_b: int = 0  # of those in only_a
    rejected_in_a: int = 0
    changed_a: int = 0  # documents of files that have changed between the runs, in A
    changed_b: int = 0
    most_changed: list[Change] = field(default_factory=list)

    def keep_largest(self, changes: Iterable[Change]) -> None:
        ranked = sorted([*self.most_changed, *changes], key=lambda one: (-one.distance, one.name, one.source_row))
        self.most_changed = ranked[:MOST_CHANGED]


@dataclass(frozen=True)
class _Rows:
    """Labeled rows of a part; file: int64 ids of the part's names."""

    file: np.ndarray
    row: np.ndarray
    answered: AlignedPredictions

    def take(self, where: np.ndarray) -> "_Rows":
        answered = self.answered
        lists = [None if values is None else values[where] for values in (answered.scores, answered.given)]
        return _Rows(
            self.file[where], self.row[where], AlignedPredictions(answered.labels[where], answered.score[where], *lists)
        )


def compare_outputs(a: Side, b: Side, tell: Callable[[int, int], None] = lambda done, of: None) -> Comparison:
    """Compares what both have labeled, as it is now.

    Args:
        tell: called with the parts that are done, and their number.

    Raises:
        UserError: the same output twice, heads of different kinds, nothing labeled, or no input file in common.
        OSError: a labeled file cannot be read.
    """
    _check(a, b)
    found_a, found_b = a.labeled.commits, b.labeled.commits
    matching = match_inputs(found_a, found_b, _input_of(a), _input_of(b))
    known = dict.fromkeys(name for side in (a, b) for name in (*side.answers, *side.head.labels))
    comparison = Comparison(matching, {name: number for number, name in enumerate(known)})
    lists = _Lists.of(a, b)
    row_bytes = ROW_BYTES + SCORE_BYTES * len(a.head.labels) * lists.scores + len(comparison.names) * lists.labels
    pairing = pair(found_a, found_b, matching, PART_BYTES // row_bytes)
    comparison.changed_a, comparison.only_a = _count_unread(a, matching.root_a, pairing.alone[0], matching)
    comparison.changed_b, comparison.only_b = _count_unread(b, matching.root_b, pairing.alone[1], matching)
    for number, part in enumerate(pairing.parts, 1):
        _compare_part(part, a, b, lists, comparison)
        tell(number, len(pairing.parts))
    comparison.most_changed = _with_texts(comparison.most_changed, a, b, matching)
    return comparison


@dataclass(frozen=True)
class _Lists:
    """Which lists are compared: both outputs have them, and mean the same by them."""

    scores: bool
    labels: bool
    order_b: tuple[int, ...]  # where B has the score of each of A's labels

    @staticmethod
    def of(a: Side, b: Side) -> "_Lists":
        of_a, of_b = a.head.labels, b.head.labels
        alike = sorted(of_a) == sorted(of_b) and len(set(of_a)) == len(of_a) and a.head.activation == b.head.activation
        scores = alike and a.head.kind != "value" and a.columns.scores and b.columns.scores
        labels = a.columns.labels is True and b.columns.labels is True
        return _Lists(scores, labels, tuple(of_b.index(label) for label in of_a) if scores else ())


def _check(a: Side, b: Side) -> None:
    if a.labeled.path == b.labeled.path and a.model == b.model:
        raise UserError(
            f"A and B are the same output {a.labeled.path!r}; give two, or two of its models by --model and --model-b"
        )
    if (a.head.kind == "value") != (b.head.kind == "value"):
        value, other = ("A", "B") if a.head.kind == "value" else ("B", "A")
        raise UserError(f"the model of {value} gives a value, that of {other} labels; give two outputs of the same kind")
    for name, side in (("A", a), ("B", b)):
        if not side.labeled.commits:
            raise UserError(f"{name}: nothing is labeled in {side.labeled.path!r} yet; run the job first")


def _input_of(side: Side) -> str:
    return side.labeled.record["config"]["input"]["path"]


def _count_unread(side: Side, root: str, alone: Sequence[Commit], matching: Matching) -> tuple[int, int]:
    """(documents of changed files in an output; documents of other files in those of its commits that share no rows)."""
    changed: dict[str, int] = {}
    for commit in side.labeled.commits:
        are_changed = {piece.path.removeprefix(root) in matching.changed for piece in commit.pieces}
        if are_changed == {True}:
            changed[commit.name] = commit.labeled
        elif True in are_changed:
            numbers = {piece.path: int(piece.path.removeprefix(root) in matching.changed) for piece in commit.pieces}
            column = side.columns.source_file_column
            tables = read_columns(side.labeled.store, commit.files, [column])
            changed[commit.name] = sum(int(_ids(table.column(column), numbers.__getitem__).sum()) for _, table in tables)
    return sum(changed.values()), sum(commit.labeled - changed.get(commit.name, 0) for commit in alone)


def _compare_part(part: Part, a: Side, b: Side, lists: _Lists, comparison: Comparison) -> None:
    matching, names = comparison.matching, comparison.names
    sides = ((a, part.a), (b, part.b))
    files = sorted({name for side in (0, 1) for commit in sides[side][1] for name in matching.names_of(side, commit)})
    numbers = {name: number for number, name in enumerate(files) if name not in matching.changed}
    bounds = [None if place is None else _bound(files, *place) for place in (part.low, part.high)]
    read = []
    for (side, commits), root, order in zip(sides, (matching.root_a, matching.root_b), (None, lists.order_b), strict=True):
        rows = _read(side, commits, root, numbers, names, lists, order)
        inside = _within(rows.file, rows.row, *bounds)
        read.append(rows if inside.all() else rows.take(inside))
    of_a, of_b = read
    stride = max(_most(of_a.row), _most(of_b.row)) + 1
    keys_a, keys_b = of_a.file * stride + of_a.row, of_b.file * stride + of_b.row
    both, at_a, at_b = np.intersect1d(keys_a, keys_b, assume_unique=True, return_indices=True)
    only_a, only_b = np.setdiff1d(keys_a, both, assume_unique=True), np.setdiff1d(keys_b, both, assume_unique=True)
    comparison.only_a += len(only_a)
    comparison.only_b += len(only_b)
    if len(only_a):
        comparison.rejected_in_b += _rejected(only_a, b, part.b, matching.root_b, numbers, stride)
    if len(only_b):
        comparison.rejected_in_a += _rejected(only_b, a, part.a, matching.root_a, numbers, stride)
    of_a, of_b = of_a.take(at_a), of_b.take(at_b)
    comparison.tally.add(of_a.answered, of_b.answered)
    if a.head.kind == "value":
        comparison.tally.values.add(of_a.answered.score, of_b.answered.score)
    activation = a.head.activation if a.head.activation == b.head.activation else None
    apart = distances(of_a.answered, of_b.answered, activation, fallback_ids([a.head, b.head], names))
    full = len(comparison.most_changed) == MOST_CHANGED
    floor = comparison.most_changed[-1].distance if full else 0
    where = np.flatnonzero((apart > 0) & (apart >= floor))
    where = where[np.lexsort((both[where], -apart[where]))][:MOST_CHANGED]
    labels = list(names)
    comparison.keep_largest(
        Change(
            source_file=matching.root_a + files[of_a.file[at]],
            source_row=int(of_a.row[at]),
            name=files[of_a.file[at]],
            distance=float(apart[at]),
            label_a=labels[of_a.answered.labels[at]],
            label_b=labels[of_b.answered.labels[at]],
            score_a=float(of_a.answered.score[at]),
            score_b=float(of_b.answered.score[at]),
        )
        for at in where.tolist()
    )


def _bound(files: list[str], name: str, row: int) -> tuple[int, int]:
    """A place by the number of its file; where the file is not among these, the next one's begin."""
    number = bisect_left(files, name)
    return (number, row) if number < len(files) and files[number] == name else (number, 0)


def _most(values: np.ndarray) -> int:
    return int(values.max()) if len(values) else 0


def _within(file: np.ndarray, row: np.ndarray, low: tuple[int, int] | None, high: tuple[int, int] | None) -> np.ndarray:
    """bool: whether rows lie in [low, high); those of changed files do not."""
    inside = file >= 0
    if low is not None:
        inside &= (file > low[0]) | ((file == low[0]) & (row >= low[1]))
    if high is not None:
        inside &= (file < high[0]) | ((file == high[0]) & (row < high[1]))
    return inside


def _read(
    side: Side,
    commits: Sequence[Commit],
    root: str,
    numbers: dict[str, int],
    names: dict[str, int],
    lists: _Lists,
    order: Sequence[int] | None,
) -> _Rows:
    """The rows of these commits' files; of a changed file the number is -1."""
    columns = side.columns
    wanted = [columns.source_file_column, columns.source_row_column, columns.label_column, columns.score_column]
    wanted += [columns.scores_column] * lists.scores + [columns.labels_column] * lists.labels
    files = [file for commit in commits for file in commit.files]
    parts = []
    for _, table in read_columns(side.labeled.store, files, wanted):
        scores = given = None
        if lists.scores:
            flat = pc.list_flatten(table.column(columns.scores_column).combine_chunks())
            scores = flat.to_numpy(zero_copy_only=False).reshape(table.num_rows, len(side.head.labels))
            scores = scores if order is None else scores[:, list(order)]
        if lists.labels:
            given = _given(table.column(columns.labels_column), names)
        parts.append(
            _Rows(
                _ids(table.column(columns.source_file_column), lambda path: numbers.get(path.removeprefix(root), -1)),
                table.column(columns.source_row_column).cast(pa.int64()).to_numpy(),
                AlignedPredictions(
                    _ids(table.column(columns.label_column), names.__getitem__),
                    table.column(columns.score_column).cast(pa.float64()).to_numpy(),
                    scores,
                    given,
                ),
            )
        )
    return _joined(parts)


def _joined(parts: list[_Rows]) -> _Rows:
    if not parts:
        return _Rows(np.empty(0, np.int64), np.empty(0, np.int64), AlignedPredictions(np.empty(0, np.int64), np.empty(0)))
    answered = [part.answered for part in parts]
    scores = [one.scores for one in answered if one.scores is not None]
    given = [one.given for one in answered if one.given is not None]
    return _Rows(
        np.concatenate([part.file for part in parts]),
        np.concatenate([part.row for part in parts]),
        AlignedPredictions(
            np.concatenate([one.labels for one in answered]),
            np.concatenate([one.score for one in answered]),
            np.concatenate(scores) if scores else None,
            np.concatenate(given) if given else None,
        ),
    )


def _ids(column: pa.ChunkedArray, number_of: Callable[[str], int]) -> np.ndarray:
    """int64: the number of each text, which is asked for once per different text."""
    encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    numbers = np.array([number_of(text) for text in encoded.dictionary.to_pylist()], np.int64)
    return numbers[encoded.indices.to_numpy()] if len(numbers) else np.empty(0, np.int64)


def _given(column: pa.ChunkedArray, names: dict[str, int]) -> np.ndarray:
    """bool (documents, names), of a column of lists of labels."""
    lists = column.combine_chunks()
    given = np.zeros((len(lists), len(names)), bool)
    flat = pa.chunked_array([pc.list_flatten(lists)])
    given[pc.list_parent_indices(lists).to_numpy(), _ids(flat, names.__getitem__)] = True
    return given


def _rejected(keys: np.ndarray, side: Side, commits: Iterable[Commit], root: str, numbers: dict[str, int], stride: int) -> int:
    """How many of these documents an output has as rejects."""
    rejects = [commit.rejects_file for commit in commits if commit.rejects_file is not None]
    found = []
    for file in rejects:
        stored = StoredFile(side.labeled.store.join(file.path), file.bytes, file.md5)
        for reject in unpack_rejects(side.labeled.store.read_files([stored])[0]):
            number = numbers.get(reject.source_file.removeprefix(root), -1)
            if number >= 0 and reject.source_row < stride:
                found.append(number * stride + reject.source_row)
    return int(np.isin(keys, np.array(found, np.int64)).sum())


def _with_texts(changes: list[Change], a: Side, b: Side, matching: Matching) -> list[Change]:
    """The changes with their documents' texts, from A or from B, whichever has them."""
    side, root = (a, matching.root_a) if a.text_column else (b, matching.root_b)
    if side.text_column is None:
        return changes
    texts: dict[tuple[str, int], str] = {}
    wanted = {(root + change.name, change.source_row): change.label_a if side is a else change.label_b for change in changes}
    files: dict[str, WrittenFile] = {}
    for (path, row), label in wanted.items():
        for commit in side.labeled.commits:
            if any(piece.path == path and piece.start_row <= row < piece.stop_row for piece in commit.pieces):
                files |= {file.path: file for file in commit.files if _may_hold(file, side.columns.label_column, label)}
    columns = side.columns
    names = [columns.source_file_column, columns.source_row_column, side.text_column]
    paths = pa.array(sorted({path for path, _ in wanted}), pa.string())
    for _, table in read_columns(side.labeled.store, list(files.values()), names):
        near = table.filter(pc.is_in(table.column(0).cast(pa.string()), paths))
        rows = near.column(1).cast(pa.int64())
        near = near.filter(pc.is_in(rows, pa.array(sorted({row for _, row in wanted}), pa.int64())))
        for path, row, text in zip(*(column.to_pylist() for column in near.columns), strict=True):
            if (path, int(row)) in wanted and text is not None:
                texts[path, int(row)] = str(text)
    return [replace(change, text=texts.get((root + change.name, change.source_row))) for change in changes]


def _may_hold(file: WrittenFile, label_column: str, label: str) -> bool:
    """Whether a file may have documents with that label: folders tell."""
    return hive_values(file.path).get(label_column, label) == label
