"""Rewrite a commit's files without the rows of some input files. Nothing is labeled again.

Guarantee: the rewritten commit names the new files, the old files that are kept, and the commits it replaces. Until its record
is created, readers see the commits it replaces.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline_ops.output.committed_files import column_of, read_written, read_written_bytes
from pipeline_ops.schema.misfits import MISFITS_FOLDER
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import short_id
from pipeline_ops.storage.store import Store
from pipeline_ops.writing.commit_record import Commit, WrittenFile, new_attempt
from pipeline_ops.writing.hive_partitions import hive_values
from pipeline_ops.writing.postprocessing import count_labels
from pipeline_ops.writing.unit_files import REJECTS_FOLDER, column_statistics, parquet_bytes, written_file


def drop_sources(store: Store, commit: Commit, gone: Iterable[str], output: OutputConfig) -> Commit:
    """Writes a commit's files without the rows of the input files in `gone`; returns the commit that replaces it.

    Files without such rows are kept.

    Raises:
        OSError: a file of the commit cannot be read, or its MD5 or number of rows is not the committed one.
    """
    gone = sorted(gone)
    unit = short_id(["without", commit.name, *gone])
    attempt = new_attempt()
    lost: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    files = []
    for index, file in enumerate(commit.files):
        if not _may_hold(store, file, gone, output):
            files.append(file)
            continue
        table = read_written(store, file)
        sources = column_of(table, output.source_file_column, file.path)
        is_gone = pc.is_in(sources.cast(pa.string()), pa.array(gone, pa.string()))
        rest, dropped = table.filter(pc.invert(is_gone)), table.filter(is_gone)
        if not dropped.num_rows:
            files.append(file)
            continue
        lost["labeled"] += dropped.num_rows
        tokens, truncated, labels_lost = count_labels(partial(column_of, dropped, path=file.path), output)
        lost["tokens"] += tokens
        lost["truncated"] += truncated
        labels.update(labels_lost)
        if rest.num_rows:
            folder = file.path.rpartition("/")[0]
            path = "/".join(filter(None, [folder, f"{unit}-{attempt}-{index}.parquet"]))
            files.append(put_file(store, path, rest.num_rows, parquet_bytes(rest), column_statistics(rest, output)))
    rejects_file, reasons = _rest_of_lines(
        store, commit.rejects_file, gone, f"{REJECTS_FOLDER}/{unit}-{attempt}.jsonl", "reason"
    )
    misfits_file, misfits = _rest_of_lines(
        store, commit.misfits_file, gone, f"{MISFITS_FOLDER}/{unit}-{attempt}.jsonl", "column"
    )
    return replace(
        commit,
        unit=unit,
        attempt=attempt,
        pieces=tuple(piece for piece in commit.pieces if piece.path not in gone),
        files=tuple(files),
        rejects_file=rejects_file,
        labeled=commit.labeled - lost["labeled"],
        rejected=rejects_file.rows if rejects_file else 0,
        tokens=commit.tokens - lost["tokens"],
        truncated=commit.truncated - lost["truncated"],
        labels={label: count - labels[label] for label, count in commit.labels.items() if count > labels[label]},
        replaces=(commit.name,),
        reasons=reasons,
        file_rejects=tuple(one for one in commit.file_rejects if one.path not in gone),
        misfits_file=misfits_file,
        misfits=misfits,
    )


def _rest_of_lines(
    store: Store, file: WrittenFile | None, gone: list[str], path: str, counted: str
) -> tuple[WrittenFile | None, dict[str, int]]:
    """(a file of rejects or misfits without those of the input files in `gone`, None if it is empty; its lines by a field).

    Args:
        path: of the new file, if it has to be written.
        counted: the field.
    """
    lines = read_written_bytes(store, file).splitlines(keepends=True) if file is not None else []
    kept = [line for line in lines if json.loads(line)["source_file"] not in gone]
    if len(kept) < len(lines):
        file = put_file(store, path, len(kept), b"".join(kept)) if kept else None
    return file, dict(Counter(json.loads(line)[counted] for line in kept))


def tombstone(commits: Iterable[Commit]) -> Commit:
    """A commit without rows that replaces the given ones: it deletes their rows."""
    names = tuple(sorted(commit.name for commit in commits))
    return Commit(short_id(["nothing", *names]), new_attempt(), (), (), None, 0, 0, 0, 0, 0, {}, replaces=names)


def put_file(
    store: Store, path: str, rows: int, content: Any, statistics: Mapping[str, tuple[Any, Any, int]] = MappingProxyType({})
) -> WrittenFile:
    store.put(path, content)
    return written_file(path, rows, content, statistics)


def _may_hold(store: Store, file: WrittenFile, gone: list[str], output: OutputConfig) -> bool:
    """Whether a file may have rows of the input files in `gone`, by its path or its footer's statistics."""
    values = hive_values(file.path)
    if output.source_file_column in values:
        return values[output.source_file_column] in gone
    with store.open(store.stat(file.path), sequential=False) as source:
        metadata = pq.ParquetFile(source).metadata
    for group in (metadata.row_group(index) for index in range(metadata.num_row_groups)):
        columns = [group.column(index) for index in range(group.num_columns)]
        statistics = next(column.statistics for column in columns if column.path_in_schema == output.source_file_column)
        if not (statistics and statistics.has_min_max) or any(statistics.min <= path <= statistics.max for path in gone):
            return True
    return False
