"""A labeled unit -> Parquet files and a rejects file -> the facts that its commit records.

Guarantee: at least once. File names carry unit and attempt, so a repeated attempt never touches an earlier one's files; which
attempt counts is decided by the commit alone.
"""

import hashlib
import json
import urllib.parse
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import Reject, Unit, pack_rejects
from pipeline_ops.storage.store import Store
from pipeline_ops.writing.commit_record import ClassifySeconds, Commit, WrittenFile, new_attempt, schema_id
from pipeline_ops.writing.postprocessing import count_labels, split_by_partition

REJECTS_FOLDER = "_rejects"
ROW_GROUP_ROWS = 128 * 1024
METADATA_KEY = b"label_corpus"
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


def hive_folder(columns: tuple[str, ...], values: tuple[object, ...]) -> str:
    """`label=POSITIVE/…`; values are percent-encoded, as Arrow, Spark and DuckDB decode them."""
    parts = []
    for column, value in zip(columns, values, strict=True):
        text = NULL_PARTITION if value is None else urllib.parse.quote(str(value), safe="")
        parts.append(f"{urllib.parse.quote(column, safe='')}={text}")
    return "/".join(parts)


def write_unit(
    store: Store,
    unit: Unit,
    labeled: pa.Table,
    rejects: list[Reject],
    output: OutputConfig,
    *,
    metadata: dict[str, Any],
    padded_tokens: int,
    classify_seconds: ClassifySeconds | None = None,
    flops: float | None = None,
) -> Commit:
    """Writes a unit's files, one PUT each, and returns what its commit has to say.

    Args:
        labeled: the documents with their labels and the columns to keep.
        metadata: recorded in each file's schema metadata under `label_corpus`, as JSON.
        padded_tokens: tokens that went through the model, padding included.
        flops: of the model, without padding.
    """
    attempt = new_attempt()
    name = f"{unit.id}-{attempt}"
    labeled = labeled.replace_schema_metadata({METADATA_KEY: json.dumps(metadata)})
    columns = output.partition_columns()
    schema = schema_id(labeled.schema) if not columns else schema_id(labeled.drop_columns(list(columns)).schema)
    contents: dict[str, Any] = {}
    files = []
    for values, part in split_by_partition(labeled, columns):
        path = "/".join(filter(None, [hive_folder(columns, values), f"{name}.parquet"]))
        contents[path] = parquet_bytes(part)
        files.append(written_file(path, part.num_rows, contents[path]))
    rejects_file = None
    if rejects:
        path = f"{REJECTS_FOLDER}/{name}.jsonl"
        contents[path] = pack_rejects(rejects)
        rejects_file = written_file(path, len(rejects), contents[path])
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
    )


def written_file(path: str, rows: int, content: Any) -> WrittenFile:
    """The facts of a file with that content, which is about to be put."""
    return WrittenFile(path, rows, len(content), hashlib.md5(content, usedforsecurity=False).hexdigest())


def parquet_bytes(table: pa.Table) -> pa.Buffer:
    """The table as a Parquet file. Page checksums let any reader find a flipped byte."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=ROW_GROUP_ROWS, write_page_checksum=True)
    return sink.getvalue()
