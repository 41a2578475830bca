"""Merge small committed files: plan, merge, and the commit that replaces the merged ones. Nothing is labeled again."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_ops.output.committed_files import read_written, read_written_bytes
from pipeline_ops.output.rewriting import put_file
from pipeline_ops.schema.misfits import MISFITS_FOLDER
from pipeline_ops.schema.units import Piece, short_id
from pipeline_ops.storage.store import Store
from pipeline_ops.writing.commit_record import ClassifySeconds, Commit, FileCounts, WrittenFile, new_attempt
from pipeline_ops.writing.unit_files import REJECTS_FOLDER, ROW_GROUP_ROWS

ROW_GROUP_BYTES = 64 * 2**20  # in memory; small files are merged into row groups of about this size
MAX_PIECES = 8192  # of a compacted commit: keeps its record below a few megabytes
FOOTERS_AT_ONCE = 16
MAX_TARGETS = 64  # a compacted commit replaces at most this many times the target size


@dataclass(frozen=True)
class Merge:
    """Files of one partition and schema to merge, in order; `path` is the relative path of the new file."""

    path: str
    files: tuple[WrittenFile, ...]


@dataclass(frozen=True)
class Compaction:
    """Commits to replace by one, and the merges that it needs."""

    unit: str
    attempt: str
    commits: tuple[Commit, ...]
    merges: tuple[Merge, ...]
    kept: tuple[WrittenFile, ...]  # files that are not merged


def plan_compactions(commits: Iterable[Commit], target_bytes: int, schemas: Mapping[str, bytes]) -> list[Compaction]:
    """Groups commits so that the files of a partition come near `target_bytes`; groups without a merge are left out.

    Files of one schema are merged, whatever lies between them; those of more than half the target are not. Rows are in the
    order of the commits' first rows: the input's, unless a commit lies between the rows of another one. Each merge leaves fewer
    files, so planning again, until nothing is planned, comes to an end.

    Args:
        schemas: {path: schema of a file}; see schemas_of_small_files.
    """
    ordered = sorted((commit for commit in commits if commit.pieces), key=lambda c: (c.pieces[0].path, c.pieces[0].start_row))
    return [found for group in _groups(ordered, target_bytes) if (found := _compaction(group, target_bytes, schemas)).merges]


def schemas_of_small_files(store: Store, commits: Iterable[Commit], target_bytes: int) -> dict[str, bytes]:
    """{path: serialized schema, with metadata}, by their footers, of the files that may be merged: where a folder has several.

    Raises:
        OSError: a footer cannot be read.
    """
    folders: dict[str, list[WrittenFile]] = defaultdict(list)
    for commit in commits:
        for file in commit.files:
            if file.bytes <= target_bytes / 2:
                folders[_folder(file)].append(file)
    files = [file for small in folders.values() if len(small) > 1 for file in small]

    def read_schema(file: WrittenFile) -> bytes:
        try:
            with store.open(store.stat(file.path), sequential=False) as source:
                return pq.read_schema(source).serialize().to_pybytes()  # schemas are equal (==) whatever their metadata
        except (OSError, pa.ArrowException) as error:
            raise OSError(f"{file.path}: {error}") from error

    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        return dict(zip((file.path for file in files), pool.map(read_schema, files), strict=True))


def _folder(file: WrittenFile) -> str:
    return file.path.rpartition("/")[0]


def _groups(commits: list[Commit], target_bytes: int) -> Iterator[list[Commit]]:
    group: list[Commit] = []
    pieces = size = 0
    for commit in commits:
        commit_bytes = sum(file.bytes for file in commit.files)
        if group and (pieces + len(commit.pieces) > MAX_PIECES or size + commit_bytes > MAX_TARGETS * target_bytes):
            yield group
            group, pieces, size = [], 0, 0
        group.append(commit)
        pieces += len(commit.pieces)
        size += commit_bytes
    if group:
        yield group


def _compaction(commits: list[Commit], target_bytes: int, schemas: Mapping[str, bytes]) -> Compaction:
    unit, attempt = short_id(["compacted", *(commit.name for commit in commits)]), new_attempt()
    alike: dict[tuple[str, bytes | None], list[WrittenFile]] = defaultdict(list)
    kept: list[WrittenFile] = []
    merges: list[Merge] = []
    for commit in commits:
        for file in commit.files:
            if file.bytes > target_bytes / 2:
                kept.append(file)
            else:
                alike[_folder(file), schemas.get(file.path)].append(file)

    def close(folder: str, together: list[WrittenFile]) -> None:
        if len(together) > 1:
            path = "/".join(filter(None, [folder, f"{unit}-{attempt}-{len(merges)}.parquet"]))
            merges.append(Merge(path, tuple(together)))
        else:
            kept.extend(together)

    for (folder, _), files in alike.items():
        together: list[WrittenFile] = []
        size = 0
        for file in files:
            if size + file.bytes > target_bytes:
                close(folder, together)
                together, size = [], 0
            together.append(file)
            size += file.bytes
        close(folder, together)
    return Compaction(unit, attempt, tuple(commits), tuple(merges), tuple(kept))


def merge_files(store: Store, merge: Merge) -> WrittenFile:
    """Writes the rows of the files, which have one schema, into one file.

    Memory: the new file's bytes and one row group.

    Raises:
        OSError: a file cannot be read, its MD5 or number of rows is not the committed one, or schemas differ.
    """
    tables = (read_written(store, file) for file in merge.files)
    first = next(tables)
    sink = pa.BufferOutputStream()
    rows = 0
    with pq.ParquetWriter(sink, first.schema, compression="zstd", write_page_checksum=True) as writer:
        for table in row_groups(chain([first], tables)):
            if not table.schema.equals(first.schema, check_metadata=True):
                raise OSError(f"{merge.files[0].path}: its columns are not those of all files that it is merged with")
            writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
            rows += table.num_rows
    return put_file(store, merge.path, rows, sink.getvalue(), _common_statistics(merge.files))


def _common_statistics(files: Sequence[WrittenFile]) -> dict[str, tuple[Any, Any, int]]:
    """The statistics of the rows of all files together, of the columns of which each file has some."""
    found = {}
    for column in files[0].statistics:
        several = [file.statistics[column] for file in files if column in file.statistics]
        if len(several) == len(files):
            lows, highs, nulls = zip(*several, strict=True)
            found[column] = (min(lows), max(highs), sum(nulls))
    return found


def row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Concatenates small tables up to the size of a row group: many small row groups are slow to read."""
    held: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        held.append(table)
        rows, size = rows + table.num_rows, size + table.nbytes
        if rows >= ROW_GROUP_ROWS or size >= ROW_GROUP_BYTES:
            yield pa.concat_tables(held)
            held, rows, size = [], 0, 0
    if held:
        yield pa.concat_tables(held)


def compacted(store: Store, compaction: Compaction, merged: list[WrittenFile]) -> Commit:
    """Writes the rejects of the commits into one file, and the misfits; returns the commit that replaces them.

    Args:
        merged: the files that merge_files wrote, one per merge of the compaction.
    """
    commits = compaction.commits
    name = f"{compaction.unit}-{compaction.attempt}.jsonl"
    schemas = {commit.schema for commit in commits if commit.files}
    by_file = FileCounts.sum_of(one for commit in commits for one in commit.by_file())
    known_flops = [commit.flops for commit in commits if commit.flops is not None]
    return Commit(
        unit=compaction.unit,
        attempt=compaction.attempt,
        pieces=tuple(joined_pieces(piece for commit in commits for piece in commit.pieces)),
        files=(*compaction.kept, *merged),
        rejects_file=_joined_lines(store, [commit.rejects_file for commit in commits], f"{REJECTS_FOLDER}/{name}"),
        labeled=sum(commit.labeled for commit in commits),
        rejected=sum(commit.rejected for commit in commits),
        tokens=sum(commit.tokens for commit in commits),
        padded_tokens=sum(commit.padded_tokens for commit in commits),
        truncated=sum(commit.truncated for commit in commits),
        labels=_sum_of(commit.labels for commit in commits),
        replaces=tuple(commit.name for commit in commits),
        classify_seconds=ClassifySeconds.sum_of(commit.classify_seconds for commit in commits),
        flops=sum(known_flops) if len(known_flops) == len(commits) else None,
        reasons=_sum_of(commit.reasons for commit in commits),
        schema=schemas.pop() if len(schemas) == 1 else None,
        stage_seconds=_sum_of(commit.stage_seconds for commit in commits),
        file_rejects=tuple(replace(one, documents=round(one.documents)) for one in by_file.values() if one.reasons),
        misfits_file=_joined_lines(store, [commit.misfits_file for commit in commits], f"{MISFITS_FOLDER}/{name}"),
        misfits=_sum_of(commit.misfits for commit in commits),
    )


def _joined_lines(store: Store, several: Iterable[WrittenFile | None], path: str) -> WrittenFile | None:
    """One file with the lines of all; a single one stays as it is."""
    files = [file for file in several if file is not None]
    if len(files) < 2:
        return files[0] if files else None
    return put_file(store, path, sum(file.rows for file in files), b"".join(read_written_bytes(store, file) for file in files))


def _sum_of(several: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The sums by key."""
    total: Counter[str] = Counter()
    for counts in several:
        total.update(counts)
    return dict(total)


def joined_pieces(pieces: Iterable[Piece]) -> list[Piece]:
    """The pieces in row order, with adjacent ones joined."""
    joined: list[Piece] = []
    for piece in sorted(pieces, key=lambda piece: (piece.path, piece.start_row, piece.stop_row)):
        before = joined[-1] if joined else None
        if before and (before.path, before.identity, before.stop_row) == (piece.path, piece.identity, piece.start_row):
            joined[-1] = replace(before, stop_row=piece.stop_row, stop_byte=piece.stop_byte, last=piece.last or before.last)
        else:
            joined.append(piece)
    return joined
