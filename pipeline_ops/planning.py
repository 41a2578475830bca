"""Listed inputs and commits -> what is left to read, as tasks of spans. Runs on the driver; opens no file but large Parquet
files' footers.

Grouping and cutting are deterministic for given inputs, commits and unit_bytes. Files that are complete are left out before
anything of them is read.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_ops.commits import current_commits, gaps, pieces_by_file
from pipeline_ops.inputs import InputFile
from pipeline_ops.reading import Span
from pipeline_ops.row_groups import cut_row_groups, within
from pipeline_ops.schema import OutputConfig, Piece
from pipeline_ops.storage import StorageConfig, read_tails
from pipeline_ops.writing import Commit

FOOTER_BYTES = 256 * 1024
EXPANSION = 4  # decompressed bytes per compressed byte, for sizing only
MAX_GROUPED_FILES = 1024  # keeps the commit record of a group of small files below a few hundred kilobytes


@dataclass(frozen=True)
class Plan:
    """What a run would do."""

    tasks: tuple[tuple[Span, ...], ...]  # each is read by one task, from front to back
    num_units: int  # estimate: line formats are cut while they are read
    files: int
    bytes: int
    files_done: int
    bytes_done: int
    units_done: int
    replaced: dict[str, tuple[str, ...]] = field(default_factory=dict)  # input path -> commits whose rows of it are outdated
    removed: tuple[str, ...] = ()  # inputs that commits name and that are no longer there


def make_plan(
    files: list[InputFile],
    commits: dict[str, Commit],
    *,
    text_column: str,
    output: OutputConfig,
    storage: StorageConfig,
    unit_bytes: int,
) -> Plan:
    """Compares the listing with the commits.

    Args:
        files: in path order.
        commits: by unit id.
        unit_bytes: input bytes per unit, about; of Parquet files the selected columns' uncompressed bytes.
    """
    commits = current_commits(commits)
    listed = {file.path: file for file in files}
    outdated: dict[str, set[str]] = defaultdict(set)
    removed = set()
    fresh = []
    for commit in commits.values():
        changed = [piece for piece in commit.pieces if _has_changed(piece, listed)]
        removed.update(piece.path for piece in commit.pieces if piece.path not in listed)
        if changed:  # the unit's other files share its output files, so they are labelled again too
            for piece in commit.pieces:
                outdated[piece.path].add(commit.name)
        else:
            fresh.append(commit)
    done = pieces_by_file(fresh)

    spans, complete = [], []
    for file in files:
        open_ranges = gaps(done.get(file.path, []))
        if open_ranges:
            spans.append(Span(file, tuple(open_ranges)))
        else:
            complete.append(file)
    columns = output.input_columns()
    selected = None if columns is None else (*columns, text_column)
    tasks = list(_group(spans, selected, storage, unit_bytes))
    return Plan(
        tasks=tuple(task for task, _ in tasks),
        num_units=sum(units for _, units in tasks),
        files=len(files),
        bytes=sum(file.stored.size for file in files),
        files_done=len(complete),
        bytes_done=sum(file.stored.size for file in complete),
        units_done=len(fresh),
        replaced={path: tuple(sorted(units)) for path, units in outdated.items()},
        removed=tuple(sorted(removed)),
    )


def _has_changed(piece: Piece, listed: dict[str, InputFile]) -> bool:
    return piece.path in listed and listed[piece.path].stored.identity != piece.identity


def _estimated_bytes(span: Span) -> int:
    size = span.file.stored.size * (EXPANSION if span.file.compression else 1)
    return max(size - span.ranges[0].start_byte, 1)


def _group(
    spans: list[Span], columns: tuple[str, ...] | None, storage: StorageConfig, unit_bytes: int
) -> Iterator[tuple[tuple[Span, ...], int]]:
    """(spans of one task, units it will give): small files of one format together, large ones alone or split."""
    footers = _footers([s.file for s in spans if s.file.format == "parquet" and s.file.stored.size > unit_bytes], storage)
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
            yield tuple(group), 1
            group, size = [], 0
        if small:
            group.append(span)
            size += _estimated_bytes(span)
        elif span.file.path in footers:
            yield from _split_parquet(span, footers[span.file.path], columns, unit_bytes)
        else:
            yield (span,), -(-_estimated_bytes(span) // unit_bytes)
    if group:
        yield tuple(group), 1


def _footers(files: list[InputFile], storage: StorageConfig) -> dict[str, pq.FileMetaData]:
    """The files' Parquet metadata, fetched side by side."""
    found = {}
    for start in range(0, len(files), 256):
        batch = files[start : start + 256]
        tails = read_tails([file.stored for file in batch], FOOTER_BYTES, storage)
        for file, tail in zip(batch, tails, strict=True):
            needed = int.from_bytes(tail[-8:-4], "little") + 8
            if needed > len(tail) and tail[-4:] == b"PAR1":
                tail = read_tails([file.stored], needed, storage)[0]
            try:
                found[file.path] = pq.read_metadata(pa.BufferReader(tail))
            except (OSError, pa.ArrowInvalid) as error:
                error.add_note(f"while reading the footer of {file.path}")
                raise
    return found


def _split_parquet(
    span: Span, metadata: pq.FileMetaData, columns: tuple[str, ...] | None, unit_bytes: int
) -> Iterator[tuple[tuple[Span, ...], int]]:
    """A task per unit, or, of a row group that is cut into several, one task for all of them."""
    for ranges in cut_row_groups(metadata, columns, unit_bytes):
        wanted = tuple(within(ranges, span.ranges, metadata.num_rows))
        if wanted:
            yield (Span(span.file, wanted),), len(wanted)
