"""Listed inputs and commits -> the work that is left, as tasks of spans. Runs on the driver; opens no file but the footers of
large Parquet files.

Grouping and cutting are deterministic for given inputs, commits and unit_bytes. Files that are complete are left out before
anything of them is read.
"""

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Protocol

from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.output.commit_log import current_commits, gaps
from pipeline_ops.reading.spans import Span
from pipeline_ops.row_formats.parquet_files import intersect_ranges, read_footers, selected_bytes, split_row_groups
from pipeline_ops.row_formats.row_files import ROW_FORMATS
from pipeline_ops.schema.errors import is_store_fault
from pipeline_ops.schema.failures import Failure
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import Piece, Range
from pipeline_ops.storage.store import Store
from pipeline_ops.writing.commit_record import Commit

EXPANSION = 4  # decompressed bytes per compressed byte, for sizing only
UNITS = 64  # where the input has enough for them: several per classifier, so that none ends long before the others
SMALLEST_UNIT = 256 * 2**10  # hundreds of documents to sort by length: fewer need more padding, or more passes
LARGEST_UNIT = 32 * 2**20
MAX_GROUPED_FILES = 1024  # keeps the commit record of a group of small files below a few hundred kilobytes

Cuts = dict[str, tuple[list[list[tuple[int, int]]], int, int]]  # by path, see _cuts


class Outdated(Protocol):
    """Which rows of an output are to leave it; see Plan for the attributes."""

    @property
    def changed(self) -> tuple[str, ...]: ...

    @property
    def removed(self) -> tuple[str, ...]: ...

    @property
    def stale(self) -> dict[str, tuple[str, ...]]: ...


@dataclass(frozen=True)
class Plan:
    """The work of a run."""

    tasks: tuple[tuple[Span, ...], ...]  # each is read by one task, from front to back
    task_bytes: tuple[int, ...]  # that each reads, decompressed, estimated
    num_units: int  # estimate: only Parquet is cut before it is read
    files: int
    bytes: int
    files_done: int
    bytes_done: int
    units_done: int
    unit_bytes: int
    changed: tuple[str, ...] = ()  # inputs that have changed since they were labeled
    removed: tuple[str, ...] = ()  # inputs of commits that no longer exist
    stale: dict[str, tuple[str, ...]] = field(default_factory=dict)  # unit -> its inputs whose rows are dropped
    files_quarantined: int = 0  # files with failed units, which wait for a retry
    documents_done: int = 0  # of commits, in files that are still there as they were labeled
    share_done: float = 0.0  # of the input's bytes, about: rows that no task reads, from 0 to 1


def make_plan(
    files: list[InputFile],
    commits: dict[str, Commit],
    *,
    text_columns: tuple[str, ...],
    output: OutputConfig,
    store: Store,
    unit_bytes: int | None = None,
    failures: Sequence[Failure] = (),
) -> Plan:
    """Compares the listing with the commits.

    Args:
        files: in path order.
        commits: by unit id.
        unit_bytes: input bytes per unit, about; of Parquet files the selected columns' uncompressed bytes. None: by what is
            left to label, see automatic_unit_bytes.
        failures: of earlier runs; their pieces are not read.
    """
    commits = current_commits(commits)
    listed = {file.path: file for file in files}
    changed: dict[str, set[str]] = defaultdict(set)  # path -> commits with rows of an earlier version
    removed: set[str] = set()
    stale: dict[str, tuple[str, ...]] = {}
    done: dict[str, list[Piece]] = defaultdict(list)
    documents_done = 0.0
    for commit in commits.values():
        gone, valid = set(), []
        for piece in commit.pieces:
            if piece.path not in listed:
                removed.add(piece.path)
                if output.drop_removed:
                    gone.add(piece.path)
            elif listed[piece.path].stored.identity != piece.identity:
                gone.add(piece.path)
                changed[piece.path].add(commit.name)
            else:
                done[piece.path].append(piece)
                valid.append(piece)
        documents_done += commit.documents * (_rows(valid) / max(_rows(commit.pieces), 1))
        if gone:
            stale[commit.unit] = tuple(sorted(gone))
    quarantine = set()
    for failure in failures:
        for piece in failure.pieces:
            done[piece.path].append(piece)
            quarantine.add(piece.path)

    spans, files_done, bytes_done = [], 0, 0
    for file in files:
        pieces = sorted(done.get(file.path, []), key=lambda piece: (piece.start_row, piece.stop_row))
        open_ranges = gaps(pieces, file.rows)
        if open_ranges:
            spans.append(Span(file, tuple(open_ranges), tuple(sorted(changed.get(file.path, ())))))
        elif file.path not in quarantine:
            files_done += 1
            bytes_done += file.stored.size
    # the rows of an earlier version stay until there are others
    to_go = {span.file.path for span in spans} | removed
    stale = {unit: gone for unit, paths in stale.items() if (gone := tuple(path for path in paths if path in to_go))}
    columns = output.input_columns()
    selected = None if columns is None else (*columns, *text_columns)
    if unit_bytes is None:
        unit_bytes = automatic_unit_bytes(sum(_estimated_bytes(span) for span in spans))
    large = [span.file for span in spans if span.file.format == "parquet" and _estimated_bytes(span) > unit_bytes]
    cuts = _cuts(large, selected, store, unit_bytes)
    tasks = list(_group(spans, cuts, unit_bytes))
    num_bytes = sum(file.stored.size for file in files)
    bytes_left = sum(span.file.stored.size * _share_left(span, cuts) for span in spans)
    return Plan(
        tasks=tuple(task for task, _, _ in tasks),
        task_bytes=tuple(num_bytes for _, _, num_bytes in tasks),
        num_units=sum(units for _, units, _ in tasks),
        files=len(files),
        bytes=num_bytes,
        files_done=files_done,
        bytes_done=bytes_done,
        units_done=sum(_paths(commit) > set(stale.get(commit.unit, ())) for commit in commits.values()),
        unit_bytes=unit_bytes,
        changed=tuple(sorted(changed)),
        removed=tuple(sorted(removed)),
        stale=stale,
        files_quarantined=len(quarantine),
        documents_done=round(documents_done),
        share_done=1 - bytes_left / num_bytes if num_bytes else 0.0,
    )


def automatic_unit_bytes(num_bytes: int) -> int:
    """Bytes per unit for `num_bytes` of input: UNITS units, none smaller than SMALLEST_UNIT or larger than LARGEST_UNIT.

    A unit is labeled by one classifier: a CPU replica works on 32 MiB for a quarter of an hour, while others have none left.
    """
    return min(max(num_bytes // UNITS, SMALLEST_UNIT), LARGEST_UNIT)


def reading_order(plan: Plan, readers: int) -> list[tuple[Span, ...]]:
    """The tasks in the order in which to read them, with Span.behind: large ones first, so that a run ends with small ones.

    Args:
        readers: tasks that are read at the same time. Those behind a task may come to their end with it, so they do not count
            as work that is left then.
    """
    order = sorted(range(len(plan.tasks)), key=lambda number: -plan.task_bytes[number])
    sizes = [plan.task_bytes[number] for number in order]
    total = [*accumulate(reversed(sizes), initial=0)][::-1]  # of the tasks from each on
    ordered = []
    for place, number in enumerate(order):
        behind = total[min(place + readers, len(sizes))]
        spans: list[Span] = []
        for span in reversed(plan.tasks[number]):
            spans.append(replace(span, behind=behind))
            behind += _estimated_bytes(span)
        ordered.append(tuple(reversed(spans)))
    return ordered


def _paths(commit: Commit) -> set[str]:
    return {piece.path for piece in commit.pieces}


def is_all_stale(commit: Commit, plan: Outdated) -> bool:
    """True if no row of the commit is kept."""
    return _paths(commit) <= set(plan.stale.get(commit.unit, ()))


def _decompressed_bytes(file: InputFile) -> int:
    """Of the rows that are to be labeled; estimated, but for a trial's last file."""
    return file.stop_byte or file.stored.size * (EXPANSION if is_compressed(file) else 1)


def is_compressed(file: InputFile) -> bool:
    """Whether a file is compressed, as a whole or, usually, inside."""
    inside = file.format == "parquet" or (file.format in ROW_FORMATS and ROW_FORMATS[file.format].is_dense)
    return inside or file.compression is not None


def _estimated_bytes(span: Span) -> int:
    return max(_decompressed_bytes(span.file) - span.ranges[0].start_byte, 1)


def _rows(pieces: Iterable[Piece]) -> int:
    return sum(piece.stop_row - piece.start_row for piece in pieces)


def _share_left(span: Span, cuts: Cuts) -> float:
    """The share of a file's rows that its task reads, from 0 to 1: by rows where its footer has been read, else by bytes."""
    if span.file.path in cuts:
        num_rows = span.file.stop_row or cuts[span.file.path][1]
        left = sum((num_rows if part.stop_row is None else part.stop_row) - part.start_row for part in span.ranges)
        return left / max(num_rows, 1)
    if span.file.format == "parquet":
        return 1.0
    size = max(_decompressed_bytes(span.file), 1)
    left = sum((size if part.stop_byte is None else part.stop_byte) - part.start_byte for part in span.ranges)
    return min(max(left / size, 0.0), 1.0)


def _group(spans: list[Span], cuts: Cuts, unit_bytes: int) -> Iterator[tuple[tuple[Span, ...], int, int]]:
    """(spans of one task, units it will give, bytes it reads): small files together by format, large ones alone or split."""
    group: list[Span] = []
    size = 0
    for span in spans:
        small = _estimated_bytes(span) <= unit_bytes and len(span.ranges) == 1 and span.ranges[0].stop_row is None
        if group and (
            not small
            or size + _estimated_bytes(span) > unit_bytes
            or span.file.format != group[0].file.format
            or len(group) == MAX_GROUPED_FILES
        ):
            yield tuple(group), 1, size
            group, size = [], 0
        if small:
            group.append(span)
            size += _estimated_bytes(span)
        elif span.file.path in cuts:
            yield from _split_parquet(span, *cuts[span.file.path])
        else:
            left = round(_decompressed_bytes(span.file) * _share_left(span, cuts))
            yield (span,), -(-_estimated_bytes(span) // unit_bytes), left
    if group:
        yield tuple(group), 1, size


def _cuts(files: list[InputFile], columns: tuple[str, ...] | None, store: Store, unit_bytes: int) -> Cuts:
    """(row ranges, rows, bytes of the columns) of Parquet files, whose footers are fetched side by side; see split_row_groups.

    None for a file that cannot be read: its reader will say why.
    """
    found = {}
    for file, metadata in zip(files, read_footers([file.stored for file in files], store), strict=True):
        if isinstance(metadata, Exception):
            if is_store_fault(metadata):
                raise metadata
            continue
        with contextlib.suppress(Exception):  # of a broken footer
            found[file.path] = (
                split_row_groups(metadata, columns, unit_bytes),
                metadata.num_rows,
                selected_bytes(metadata, columns),
            )
    return found


def _split_parquet(
    span: Span, cuts: list[list[tuple[int, int]]], num_rows: int, num_bytes: int
) -> Iterator[tuple[tuple[Span, ...], int, int]]:
    """As _group: a task per unit, or, of a row group that is cut into several, one task for all of them."""
    for ranges in cuts:
        wanted = tuple(_open_at_end(part, num_rows) for part in intersect_ranges(ranges, span.ranges, num_rows))
        if wanted:
            rows = sum((num_rows if part.stop_row is None else part.stop_row) - part.start_row for part in wanted)
            yield (replace(span, ranges=wanted),), len(wanted), num_bytes * rows // max(num_rows, 1)


def _open_at_end(part: Range, num_rows: int) -> Range:
    """The file's last rows as all that are left: if they cannot be read, nothing behind them is left to plan."""
    return replace(part, stop_row=None) if part.stop_row == num_rows else part
