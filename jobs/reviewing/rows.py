"""The labeled rows of an output, each once, as a sample is drawn by them; beside another output, whether the labels differ."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.results.show import lists_with, true_rows
from jobs.reviewing.uncertainty import Certainty
from pipeline_ops.analysis.aligned_rows import ROWS_PER_FILE, Side, ids_of, key_bounds
from pipeline_ops.analysis.alignment import FileMatching, JoinPart, align, match_inputs
from pipeline_ops.output.labeled_output import read_batches
from pipeline_ops.schema.errors import UserError
from pipeline_ops.writing.commit_record import Commit, WrittenFile
from pipeline_ops.writing.hive_partitions import hive_values

PART_DOCUMENTS = 2**21  # of the other output in memory: 16 bytes each, and as much again while they are sorted

# `key`: pseudo-random, of the seed and the document alone; `label`: a hash of the label column; `file`: index in
# LabeledRows.files; `row`: in the file; `differs`: the other output has another label
ROW = np.dtype(
    [
        ("certainty", np.float64),
        ("key", np.uint64),
        ("label", np.int64),
        ("file", np.int64),
        ("row", np.int64),
        ("differs", np.bool_),
    ]
)


@dataclass(frozen=True)
class _OtherLabels:
    """Labels of the other output in a part: by ascending `keys`, `codes` of their labels; rows in [low, high) are joined."""

    numbers: dict[str, int]  # {path in the first output: index in the part}
    changed: np.ndarray  # bool by index: the file is not the same in both
    low: int
    high: int
    keys: np.ndarray
    codes: np.ndarray


class LabeledRows:
    """The rows of an output, or those with a label."""

    def __init__(self, side: Side, seed: int, label: str | None, certainty: Certainty | None, other: Side | None = None):
        """
        Args:
            label: only documents with it, as `show --label`.
            certainty: fills `certainty`; None: it is 0.
            other: fills `differs`; None: it is false.

        Raises:
            UserError: the two outputs are the same, or have no input file or no label in common.
        """
        self.side, self.wanted, self.certainty, self.other = side, label, certainty, other
        # with the same seed, a model that has learned from a review would be measured on what it has learned
        self.seed = " ".join([str(seed), *side.reviewed_samples])
        self.names: dict[int, str] = {}  # of the labels by their hashes
        self.matching: FileMatching | None = None
        if other is not None:
            self.matching = _matched(side, other)
        self.sets = side.columns.labels is True
        self.compares_sets = self.sets and other is not None and other.columns.labels is True
        self.files = [file for file in side.labeled.files if self._may_hold(file)]
        self.compared = 0  # rows that the other output has labeled, too
        self._numbers = {file.path: number for number, file in enumerate(self.files)}

    def batches(self, on_file: Callable[[WrittenFile], None] = lambda file: None) -> Iterator[np.ndarray]:
        """All rows, each once, as arrays of dtype ROW.

        Memory: a batch; beside another output the labels of PART_DOCUMENTS of its documents, about.

        Args:
            on_file: called with each file that has been read; a large group of merged files may be read several times.
        """
        if self.other is None or self.matching is None:
            yield from self._read(self.files, None, on_file)
            return
        commits, others = self.side.labeled.commits, self.other.labeled.commits
        alignment = align(commits, others, self.matching, PART_DOCUMENTS)
        yield from self._read(self._files_of(alignment.unmatched[0]), None, on_file)
        for part in alignment.parts:
            yield from self._read(self._files_of(part.a), self._other_labels(part, self.other, self.matching), on_file)

    def _may_hold(self, file: WrittenFile) -> bool:
        column = self.side.columns.label_name
        return self.wanted is None or self.sets or hive_values(file.path).get(column, self.wanted) == self.wanted

    def _files_of(self, commits: Iterable[Commit]) -> list[WrittenFile]:
        return [file for commit in commits for file in commit.files if file.path in self._numbers]

    def _read(
        self, files: Sequence[WrittenFile], others: _OtherLabels | None, on_file: Callable[[WrittenFile], None]
    ) -> Iterator[np.ndarray]:
        columns, measured = self.side.columns, self.certainty.columns if self.certainty else ()
        names = [columns.source_file_column, columns.source_row_column, columns.label_name, *measured]
        names += [columns.labels_column] if self.sets and (self.wanted is not None or self.compares_sets) else []
        for file, tables in read_batches(
            self.side.labeled.store, files, list(dict.fromkeys(names)), self.side.labeled.partition_types
        ):
            start = 0
            for table in tables:
                if table.num_rows:
                    yield self._rows(table, self._numbers[file.path], start, others)
                start += table.num_rows
            on_file(file)

    def _rows(self, table: pa.Table, file: int, start: int, others: _OtherLabels | None) -> np.ndarray:
        columns = self.side.columns
        paths = table.column(columns.source_file_column)
        source_rows = table.column(columns.source_row_column).cast(pa.int64()).to_numpy()
        rows = np.zeros(table.num_rows, ROW)
        rows["key"] = _mixed(ids_of(paths, lambda path: _hash(f"{self.seed} {path}")), source_rows)
        rows["label"] = ids_of(table.column(columns.label_name), self._code)
        rows["file"], rows["row"] = file, start + np.arange(table.num_rows)
        if self.certainty is not None:
            rows["certainty"] = self.certainty.of(table)
        keep = np.ones(table.num_rows, bool)
        if self.wanted is not None:
            keep = true_rows(pc.equal(table.column(columns.label_name).cast(pa.string()), self.wanted))
            if self.sets:
                keep = keep | lists_with(table.column(columns.labels_column), self.wanted)
        if others is not None:
            numbers = ids_of(paths, others.numbers.__getitem__)
            keys = numbers * ROWS_PER_FILE + source_rows
            keep &= (keys >= others.low) & (keys < others.high)
            found, theirs = _looked_up(keys, others)
            found &= ~others.changed[numbers]
            own = _set_codes(table.column(columns.labels_column)) if self.compares_sets else rows["label"]
            rows["differs"] = found & (theirs != own)
            self.compared += int((found & keep).sum())
        return rows[keep]

    def _code(self, label: str) -> int:
        code = _hash(label)
        self.names[code] = label
        return code

    def _other_labels(self, part: JoinPart, other: Side, matching: FileMatching) -> _OtherLabels:
        pairs = [(side, commit) for side, commits in enumerate((part.a, part.b)) for commit in commits]
        files = sorted({name for side, commit in pairs for name in matching.names_of(side, commit)})
        numbers = {name: number for number, name in enumerate(files)}
        low, high = key_bounds(files, part)
        columns = other.columns
        wanted = [columns.source_file_column, columns.source_row_column, columns.label_name]
        wanted += [columns.labels_column] if self.compares_sets else []
        keys, codes = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for _, tables in read_batches(
            other.labeled.store, [file for commit in part.b for file in commit.files], wanted, other.labeled.partition_types
        ):
            for table in tables:
                paths = table.column(columns.source_file_column)
                found = ids_of(paths, lambda path: numbers[path.removeprefix(matching.root_b)]) * ROWS_PER_FILE
                found += table.column(columns.source_row_column).cast(pa.int64()).to_numpy()
                inside = (found >= low) & (found < high)
                keys.append(found[inside])
                labels = table.column(columns.labels_column if self.compares_sets else columns.label_name)
                codes.append((_set_codes(labels) if self.compares_sets else ids_of(labels, _hash))[inside])
        all_keys, all_codes = np.concatenate(keys), np.concatenate(codes)
        order = np.argsort(all_keys)
        return _OtherLabels(
            {matching.root_a + name: number for name, number in numbers.items()},
            np.array([name in matching.changed for name in files], bool),
            low,
            high,
            all_keys[order],
            all_codes[order],
        )


def _matched(side: Side, other: Side) -> FileMatching:
    if side.labeled.path == other.labeled.path and side.model == other.model:
        raise UserError(
            f"--disagreements: {other.labeled.path!r} is the output itself; give another one, or another model by --model-b"
        )
    if not other.labeled.commits:
        raise UserError(f"--disagreements: {other.labeled.path!r} has no commits; run its job first")
    if not {*side.possible_labels} & {*other.possible_labels}:
        raise UserError(
            f"--disagreements: {other.labeled.path!r} has no label in common with {side.labeled.path!r}, so that all labels"
            " would differ; give an output of the same labels"
        )
    inputs = (one.labeled.record["config"]["input"]["path"] for one in (side, other))
    return match_inputs(side.labeled.commits, other.labeled.commits, *inputs)


def _looked_up(keys: np.ndarray, others: _OtherLabels) -> tuple[np.ndarray, np.ndarray]:
    """(bool: whether the other output has the document, int64: the code of its label there) of each key."""
    if not len(others.keys):
        return np.zeros(len(keys), bool), np.zeros(len(keys), np.int64)
    places = np.minimum(np.searchsorted(others.keys, keys), len(others.keys) - 1)
    return others.keys[places] == keys, others.codes[places]


def _set_codes(column: pa.ChunkedArray) -> np.ndarray:
    """int64 (rows,): a hash of each row's set of labels, the sum of its labels' hashes."""
    lists = column.combine_chunks()
    codes = np.zeros(len(lists), np.int64)
    np.add.at(codes, pc.list_parent_indices(lists).to_numpy(), ids_of(pa.chunked_array([pc.list_flatten(lists)]), _hash))
    return codes


def _hash(text: str) -> int:
    """A 64-bit hash, signed."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little", signed=True)


def _mixed(files: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """uint64 (rows,): a pseudo-random number of each document: output function of SplitMix64 (Steele et al. 2014).

    Args:
        files: int64 (rows,), hashes of the documents' files, which stand for the generator's state.
        rows: int64 (rows,), how many steps of it.
    """
    with np.errstate(over="ignore"):
        state = files.view(np.uint64) + (rows.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
