"""`label-corpus show`: documents of an output by label, score or source, from the committed rows, in bounded memory.

First the places of the documents are found from the few columns that the choice depends on, in the files that can hold them;
then the documents are read from there.
"""

import difflib
import shlex
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from heapq import nsmallest
from itertools import chain, count, islice
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.results.open_output import model_of
from pipeline_ops.analysis.summary_statistics import labels_of
from pipeline_ops.output.labeled_output import BATCH_ROWS, Labeled, read_batches, schema_of
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.units import unpack_rejects
from pipeline_ops.storage.paths import full_path
from pipeline_ops.storage.store import StoredFile
from pipeline_ops.writing.commit_record import Commit, WrittenFile
from pipeline_ops.writing.hive_partitions import hive_values

READ_TOGETHER = 256  # documents, at most, that are held while their files are read

Order = Literal["input", "lowest", "highest"]


@dataclass(frozen=True)
class Choice:
    """Which documents are shown, how many, and in which order: the input's, or by score."""

    limit: int
    label: str | None = None
    model: str | None = None
    min_score: float | None = None
    max_score: float | None = None
    source: str | None = None  # path of an input file, or its end: name.jsonl, folder/name.jsonl
    order: Order = "input"

    @property
    def uses_scores(self) -> bool:
        return self.order != "input" or self.min_score is not None or self.max_score is not None


_KEYS = [("score", np.float64), ("source", np.int64), ("source_row", np.int64), ("file", np.int64), ("row", np.int64)]


class Place(NamedTuple):
    """Where a document is: the row of a committed file."""

    file: WrittenFile
    row: int


def find_documents(labeled: Labeled, choice: Choice, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The chosen documents as {column: value}.

    Args:
        columns: only these, in this order; None: all.

    Raises:
        UserError: there is no such column, model, label or source.
        OSError: a labeled file cannot be read.
    """
    names = schema_of(labeled, columns).names
    search = _Search(labeled, choice)
    return read_places(labeled, search.places(), names)


def find_rejects(labeled: Labeled, choice: Choice) -> Iterator[dict[str, Any]]:
    """The first rejects in the order of the input, of `choice.source` if it is given: source_file, source_row, reason, detail.

    Raises:
        UserError: there is no such source.
        OSError: a file of rejects cannot be read.
    """
    sources = None if choice.source is None else _sources(labeled, choice.source)
    return _rejects(labeled, sources, choice.limit)


def none_found_line(labeled: Labeled, choice: Choice, *, rejects: bool) -> str:
    """Says that the output has no such document, or reject, and what was asked for, as it is typed."""
    options = {
        "--label": choice.label,
        "--min-score": choice.min_score,
        "--max-score": choice.max_score,
        "--source": choice.source,
        "--model": choice.model,
    }
    asked = [f"{option} {shlex.quote(str(value))}" for option, value in options.items() if value is not None]
    matches = f" matches {' '.join(asked)}" if asked else ""
    return f"no {'rejected' if rejects else 'labeled'} document{matches} in {labeled.path}"


def _rejects(labeled: Labeled, sources: set[str] | None, limit: int) -> Iterator[dict[str, Any]]:
    commits = [commit for commit in labeled.commits if commit.rejects_file is not None and _is_of(commit, sources)]
    for group in _growing(_in_order(commits)):
        files = [commit.rejects_file for together in group for commit in together if commit.rejects_file is not None]
        stored = [StoredFile(labeled.store.join(file.path), file.bytes, file.md5) for file in files]
        rejects = chain.from_iterable(map(unpack_rejects, labeled.store.read_files(stored)))
        chosen = (reject for reject in rejects if sources is None or reject.source_file in sources)
        first = nsmallest(limit, chosen, key=lambda reject: (reject.source_file, reject.source_row))
        yield from map(asdict, first)
        limit -= len(first)
        if not limit:
            return


class _Search:
    """Finds the places of the chosen documents."""

    def __init__(self, labeled: Labeled, choice: Choice):
        self.labeled, self.choice = labeled, choice
        self.names = labeled.columns  # of the source columns
        self.model, self.added = "", self.names
        if choice.label is not None or choice.model is not None or choice.uses_scores:
            self.model, self.added = model_of(labeled, choice.model)
        self.sources = None if choice.source is None else _sources(labeled, choice.source)
        self.has_labels = choice.label is not None and self.added.labels is True
        if choice.label is not None:
            check_label(labeled, self.model, choice.label)

    def places(self) -> Iterator[Place]:
        """At most choice.limit places, in order."""
        commits = [commit for commit in self.labeled.commits if self._may_have(commit)]
        if self.choice.order == "input":
            return self._in_input_order(commits)
        return iter(self._first(commits, self.choice.limit))

    def _may_have(self, commit: Commit) -> bool:
        label = self.choice.label
        if label is not None and not self.has_labels and not commit.labels.get(_counted_as(label, self.model)):
            return False
        return bool(commit.files) and _is_of(commit, self.sources)

    def _files(self, commit: Commit) -> list[WrittenFile]:
        """The commit's files whose partition can have the label."""
        label, column = self.choice.label, self.added.label_name
        if label is None or self.has_labels or column not in self.names.partition_columns():
            return list(commit.files)
        return [file for file in commit.files if hive_values(file.path).get(column) == label]

    def _columns(self) -> list[str]:
        wanted = [self.names.source_file_column, self.names.source_row_column]
        if self.choice.label is not None:
            wanted.append(self.added.label_name)
        if self.has_labels:
            wanted.append(self.added.labels_column)
        if self.choice.uses_scores:
            wanted.append(self.added.score_column)
        return list(dict.fromkeys(wanted))

    def _matches(self, batches: Iterator[pa.Table]) -> Iterator[tuple[np.ndarray, pa.Table]]:
        """(numbers in the file of the rows that match, these rows) of each batch of a file."""
        start = 0
        for table in batches:
            rows = np.flatnonzero(self._mask(table))
            if len(rows):
                yield start + rows, table.take(pa.array(rows))
            start += table.num_rows

    def _mask(self, table: pa.Table) -> np.ndarray:
        """bool (rows,): whether the row is chosen."""
        choice, mask = self.choice, np.ones(table.num_rows, bool)
        if self.sources is not None:
            files = table.column(self.names.source_file_column)
            mask &= true_rows(pc.is_in(files.cast(pa.string()), pa.array(sorted(self.sources), pa.string())))
        if choice.label is not None:
            is_best = true_rows(pc.equal(table.column(self.added.label_name).cast(pa.string()), choice.label))
            mask &= (is_best | lists_with(table.column(self.added.labels_column), choice.label)) if self.has_labels else is_best
        for bound, compare in ((choice.min_score, pc.greater_equal), (choice.max_score, pc.less_equal)):
            if bound is not None:
                mask &= true_rows(compare(table.column(self.added.score_column).cast(pa.float64()), bound))
        return mask

    def _in_input_order(self, commits: list[Commit]) -> Iterator[Place]:
        left = self.choice.limit
        for group in _growing(_in_order(commits)):
            places = self._first([commit for together in group for commit in together], left)
            yield from places
            left -= len(places)
            if not left:
                return

    def _first(self, commits: list[Commit], limit: int) -> list[Place]:
        """The first `limit` places in the chosen order; documents of equal scores are in the order of the input.

        Memory: a batch, and 40 bytes for each of twice `limit` places. A merged file can have its rows in another order, so
        that all of its rows are looked at.
        """
        files = [file for commit in commits for file in self._files(commit)]
        sources = pa.array(sorted({piece.path for commit in commits for piece in commit.pieces}), pa.string())
        sign = {"input": 0, "lowest": 1, "highest": -1}[self.choice.order]
        first, further = np.empty(0, _KEYS), list[np.ndarray]()
        read = read_batches(self.labeled.store, files, self._columns(), self.labeled.partition_types)
        for number, (_, batches) in enumerate(read):
            for rows, table in self._matches(batches):
                some = np.zeros(len(rows), _KEYS)
                if sign:
                    some["score"] = sign * table.column(self.added.score_column).cast(pa.float64()).to_numpy()
                names = table.column(self.names.source_file_column).cast(pa.string())
                some["source"] = pc.index_in(names, sources).to_numpy()
                some["source_row"] = table.column(self.names.source_row_column).cast(pa.int64()).to_numpy()
                some["file"], some["row"] = number, rows
                further.append(some)
                if sum(map(len, further)) > max(limit, BATCH_ROWS):  # not each time: sorting takes longer than reading
                    first, further = _smallest([first, *further], limit), []
        first = _smallest([first, *further], limit)
        return [Place(files[one["file"]], int(one["row"])) for one in first]


def _smallest(parts: list[np.ndarray], limit: int) -> np.ndarray:
    rows = np.concatenate(parts)
    return rows[np.lexsort((rows["source_row"], rows["source"], rows["score"]))[:limit]]


def read_places(labeled: Labeled, places: Iterator[Place], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The documents at the places, in their order, as {column: value}.

    Raises:
        OSError: a labeled file cannot be read.
    """
    while chunk := list(islice(places, READ_TOGETHER)):
        wanted: dict[WrittenFile, set[int]] = defaultdict(set)
        for place in chunk:
            wanted[place.file].add(place.row)
        found: dict[Place, dict[str, Any]] = {}
        for file, batches in read_batches(labeled.store, list(wanted), columns, labeled.partition_types):
            rows, start = np.array(sorted(wanted[file])), 0
            for table in batches:
                here = rows[(rows >= start) & (rows < start + table.num_rows)]
                documents = table.take(pa.array(here - start)).to_pylist()
                found |= {Place(file, int(row)): document for row, document in zip(here, documents, strict=True)}
                start += table.num_rows
                if start > rows[-1]:
                    break
        yield from (found[place] for place in chunk)


def _in_order(commits: Sequence[Commit]) -> list[list[Commit]]:
    """The commits in groups, such that in the input all rows of a group come before those of the next one.

    Most groups are one commit. A commit of merged files covers many input files; where one of these has changed, another
    commit covers it that lies between the merged rows.

    Args:
        commits: in the order of their first rows.
    """
    groups: list[list[Commit]] = []
    end = ("", 0)
    for commit in commits:
        if groups and (commit.pieces[0].path, commit.pieces[0].start_row) < end:
            groups[-1].append(commit)
        else:
            groups.append([commit])
        end = max(end, *((piece.path, piece.start_row) for piece in commit.pieces))
    return groups


def _growing(groups: Sequence[list[Commit]]) -> Iterator[Sequence[list[Commit]]]:
    """1, 2, 4, ... of the groups: the first documents come soon, and rare ones with few round trips."""
    start = 0
    for power in count():
        if start >= len(groups):
            return
        yield groups[start : start + 2**power]
        start += 2**power


def true_rows(mask: pa.ChunkedArray) -> np.ndarray:
    """bool (rows,): the mask, false where it is null."""
    return pc.fill_null(mask, False).to_numpy()


def lists_with(column: pa.ChunkedArray, label: str) -> np.ndarray:
    """bool (rows,): whether the row's list of labels has this one."""
    mask = np.zeros(len(column), bool)
    lists = column.combine_chunks()
    parents = pc.list_parent_indices(lists).to_numpy()
    mask[parents[true_rows(pa.chunked_array([pc.equal(pc.list_flatten(lists), label)]))]] = True
    return mask


def _is_of(commit: Commit, sources: set[str] | None) -> bool:
    return sources is None or any(piece.path in sources for piece in commit.pieces)


def _sources(labeled: Labeled, source: str) -> set[str]:
    """The input files of that path, or whose path ends with it."""
    known = {piece.path for commit in labeled.commits for piece in commit.pieces}
    found = {path for path in known if path == full_path(source) or path.endswith("/" + source.removeprefix("./"))}
    if not found:
        names = {path.rsplit("/", 1)[-1] for path in known}
        raise UserError(f"--source: no labels are of a file {source!r}; {_meant(source.rsplit('/', 1)[-1], names)}")
    return found


def check_label(labeled: Labeled, model: str, label: str) -> None:
    """Raises UserError if the model has no such label, with the nearest one."""
    head = labeled.head(model)
    known = {*labels_of(labeled.commits, model), *head.labels, *head.bin_labels, *filter(None, [head.fallback_label])}
    if label not in known:
        raise UserError(f"--label: the model has no label {label!r}; {_meant(label, known)}")


def _meant(name: str, known: set[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    listed = ", ".join(sorted(known)[:8]) + (", …" if len(known) > 8 else "")
    return f"did you mean {near[0]!r}?" if near else f"there are {listed}"


def _counted_as(label: str, model: str) -> str:
    """The label's key in Commit.labels."""
    return f"{model}={label}" if model else label
