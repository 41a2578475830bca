"""A labeled unit -> its Parquet files, rejects and misfits files on storage, and the Commit that names them.

Guarantee: at least once. File names contain unit and attempt, so a repeated attempt never touches an earlier one's files; the
commit alone decides which attempt counts.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline_ops.schema.misfits import MISFITS_COLUMN, MISFITS_FOLDER, Misfit, count_misfits, misfits_of, pack_misfits
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import Reject, Unit, pack_rejects
from pipeline_ops.storage.store import Store
from pipeline_ops.writing.commit_record import ClassifySeconds, Commit, FileCounts, WrittenFile, new_attempt, schema_id
from pipeline_ops.writing.hive_partitions import hive_folder, split_by_partition
from pipeline_ops.writing.postprocessing import count_labels

REJECTS_FOLDER = "_rejects"
ROW_GROUP_ROWS = 128 * 1024
METADATA_KEY = b"label_corpus"


def write_unit(
    store: Store,
    unit: Unit,
    labeled: pa.Table,
    rejects: list[Reject],
    output: OutputConfig,
    *,
    metadata: dict[str, Any],
    padded_tokens: int,
    classify_seconds: ClassifySeconds = ClassifySeconds(),
    flops: float | None = None,
) -> Commit:
    """Put a unit's files, one request each, and return the commit that is to be put for them.

    Args:
        labeled: the labeled documents, with the columns to keep; what its MISFITS_COLUMN holds becomes the misfits file.
        metadata: JSON in each file's schema metadata, under `label_corpus`.
        padded_tokens: tokens that the models read, padding included.
        flops: of the models, on tokens without padding; None: not known.

    Raises:
        StoreError: a file cannot be put.
    """
    attempt = new_attempt()
    name = f"{unit.id}-{attempt}"
    labeled, misfits = take_misfits(labeled, output)
    labeled = labeled.replace_schema_metadata({METADATA_KEY: json.dumps(metadata)})
    columns = output.partition_columns()
    schema = schema_id(labeled.schema) if not columns else schema_id(labeled.drop_columns(list(columns)).schema)
    contents: dict[str, Any] = {}
    files = []
    for values, part in split_by_partition(labeled, columns):
        path = "/".join(filter(None, [hive_folder(columns, values), f"{name}.parquet"]))
        assert path not in contents, "the folders of different values differ"
        contents[path] = parquet_bytes(part)
        files.append(written_file(path, part.num_rows, contents[path], column_statistics(part, output)))
        del part  # before the next one is copied
    rejects_file = None
    if rejects:
        path = f"{REJECTS_FOLDER}/{name}.jsonl"
        contents[path] = pack_rejects(rejects)
        rejects_file = written_file(path, len(rejects), contents[path])
    misfits_file = None
    if misfits:
        path = f"{MISFITS_FOLDER}/{name}.jsonl"
        contents[path] = pack_misfits(misfits)
        misfits_file = written_file(path, len(misfits), contents[path])
    store.put_many(contents)
    tokens, truncated, labels = count_labels(labeled.column, output)
    return Commit(
        unit=unit.id,
        attempt=attempt,
        pieces=unit.pieces,
        files=tuple(files),
        rejects_file=rejects_file,
        labeled=labeled.num_rows,
        rejected=len(rejects),
        tokens=tokens,
        padded_tokens=padded_tokens,
        truncated=truncated,
        labels=labels,
        replaces=unit.replaces,
        classify_seconds=classify_seconds,
        flops=flops,
        reasons=dict(Counter(reject.reason for reject in rejects)),
        schema=schema,
        file_rejects=file_rejects(unit, labeled, rejects, output.source_file_column),
        misfits_file=misfits_file,
        misfits=count_misfits(misfits),
    )


def file_rejects(unit: Unit, labeled: pa.Table, rejects: list[Reject], source_file_column: str) -> tuple[FileCounts, ...]:
    """The counts of the files with rejects, for Commit.file_rejects; () for a unit of one file."""
    if not rejects or len({piece.path for piece in unit.pieces}) == 1:
        return ()
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for reject in rejects:
        reasons[reject.source_file][reject.reason] += 1
    counts = labeled.column(source_file_column).value_counts().to_pylist()
    documents = {count["values"]: count["counts"] for count in counts}
    return tuple(
        FileCounts(path, documents.get(path, 0) + found.total(), dict(found)) for path, found in sorted(reasons.items())
    )


def take_misfits(labeled: pa.Table, output: OutputConfig) -> tuple[pa.Table, list[Misfit]]:
    """(the documents without MISFITS_COLUMN, if they have one; the misfits in it)."""
    if MISFITS_COLUMN not in labeled.column_names:
        return labeled, []
    sources, numbers = labeled.column(output.source_file_column), labeled.column(output.source_row_column)
    misfits = [
        Misfit(sources[row].as_py(), numbers[row].as_py(), name, value)
        for row, values in misfits_of(labeled.column(MISFITS_COLUMN)).items()
        for name, value in values.items()
    ]
    return labeled.drop_columns([MISFITS_COLUMN]), misfits


def measured_columns(output: OutputConfig) -> set[str]:
    """The columns that column_statistics looks for."""
    of_models = {name for one in output.by_model().values() for name in (one.score_column, one.num_tokens_column)}
    return {output.source_file_column, output.source_row_column, *of_models}


def column_statistics(labeled: pa.Table, output: OutputConfig) -> dict[str, tuple[Any, Any, int]]:
    """WrittenFile.statistics of the sources, the scores and the numbers of tokens; of those columns that the table has.

    A column with a value that no order has a place for (NaN), or with nulls alone, has none.
    """
    names, found = measured_columns(output), {}
    for name in labeled.column_names:
        if name in names:
            column = labeled.column(name)
            low, high = pc.min_max(column).as_py().values()
            if low is not None and not (pa.types.is_floating(column.type) and pc.any(pc.is_nan(column)).as_py()):
                found[name] = (low, high, column.null_count)
    return found


def written_file(
    path: str, rows: int, content: Any, statistics: Mapping[str, tuple[Any, Any, int]] = MappingProxyType({})
) -> WrittenFile:
    """The record of a file of that content, which is about to be put."""
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return WrittenFile(path, rows, len(content), md5, dict(statistics))


def parquet_bytes(table: pa.Table) -> pa.Buffer:
    """The table as a Parquet file; with page checksums any reader detects a flipped byte."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=ROW_GROUP_ROWS, write_page_checksum=True)
    return sink.getvalue()
