"""A labelled unit -> Parquet files and a rejects file -> the facts that its commit records.

Guarantee: at least once. File names carry unit and attempt, so a repeated attempt never touches an earlier one's files; which
attempt counts is decided by the commit alone.
"""

import hashlib
import json
import urllib.parse
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_ops.writing.postprocessing import count_labels, partitions
from pipeline_ops.schema.units import OutputConfig, Piece, Reject, Unit, pack_rejects
from pipeline_ops.storage.files import StorageConfig, join, put_many

REJECTS_FOLDER = "_rejects"
ROW_GROUP_ROWS = 128 * 1024
METADATA_KEY = b"label_corpus"
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file of the output; `path` is relative to the output folder."""

    path: str
    rows: int
    bytes: int
    md5: str  # of its bytes; on most object stores its etag


@dataclass(frozen=True, slots=True)
class ClassifySeconds:
    """Where a classifier's time for a unit went, in seconds of the clock. Together: from when it had nothing to do to its row.

    waiting: for the unit, since the unit before it was done, or since the model was loaded; copying: tensors on the host, to
    the device and back, as far as the device did not compute meanwhile; computing: the model, on a GPU by its own clock;
    writing: the row for the next stage, and everything else.
    """

    waiting: float = 0.0
    copying: float = 0.0
    computing: float = 0.0
    writing: float = 0.0

    @property
    def whole(self) -> float:
        return self.waiting + self.copying + self.computing + self.writing

    def to_dict(self) -> dict[str, float]:
        return _fields(self)

    @staticmethod
    def total(several: Iterable["ClassifySeconds | None"]) -> "ClassifySeconds":
        """The sum; of those that are not known, nothing."""
        known = [seconds.to_dict().values() for seconds in several if seconds is not None]
        return ClassifySeconds(*(sum(column) for column in zip(*known, strict=True)))


@dataclass(frozen=True, slots=True)
class Commit:
    """What one attempt at a unit wrote. On storage, as `_commits/<unit>.json`, it makes those files part of the output."""

    unit: str
    attempt: str
    pieces: tuple[Piece, ...]
    files: tuple[WrittenFile, ...]
    rejects_file: WrittenFile | None
    labeled: int
    rejected: int
    tokens: int
    padded_tokens: int
    truncated: int
    labels: dict[str, int]
    run: str = ""
    replaces: tuple[str, ...] = ()  # names of earlier commits: their input has changed, or this one has taken over their rows
    term: int = 0  # of the lease under which it was committed
    classify_seconds: ClassifySeconds | None = None  # None: labelled before these were measured
    flops: float | None = None  # of the model, on what went through it without padding; None: not known
    reasons: dict[str, int] | None = None  # rejects by reason
    schema: str | None = None  # which columns and types the labelled files have, folders' columns left out (schema_id)
    stage_seconds: dict[str, float] | None = None  # of the clock: read, tokenize and write, each of one process

    @property
    def name(self) -> str:
        """Unit and attempt: a unit that is labelled again, because its input changed back, is another commit."""
        return f"{self.unit}-{self.attempt}"

    @property
    def documents(self) -> int:
        return self.labeled + self.rejected

    def to_json(self) -> str:
        return json.dumps(self, default=_fields)

    @staticmethod
    def from_json(text: str | bytes) -> "Commit":
        fields = json.loads(text)
        fields["pieces"] = tuple(Piece(**piece) for piece in fields["pieces"])
        fields["files"] = tuple(WrittenFile(**file) for file in fields["files"])
        fields["rejects_file"] = WrittenFile(**fields["rejects_file"]) if fields["rejects_file"] else None
        fields["replaces"] = tuple(fields["replaces"])
        if fields.get("classify_seconds"):
            fields["classify_seconds"] = ClassifySeconds(**fields["classify_seconds"])
        return Commit(**fields)

    def all_files(self) -> list[WrittenFile]:
        return [*self.files, *([self.rejects_file] if self.rejects_file else [])]


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}


def schema_id(schema: pa.Schema) -> str:
    """Names a schema, metadata left out: files of equal names have equal columns and types."""
    return hashlib.sha256(schema.remove_metadata().serialize()).hexdigest()[:12]


def new_attempt() -> str:
    return uuid.uuid4().hex[:12]


def hive_folder(columns: tuple[str, ...], values: tuple[object, ...]) -> str:
    """`label=POSITIVE/…`; values are percent-encoded, as Arrow, Spark and DuckDB decode them."""
    parts = []
    for column, value in zip(columns, values, strict=True):
        text = NULL_PARTITION if value is None else urllib.parse.quote(str(value), safe="")
        parts.append(f"{urllib.parse.quote(column, safe='')}={text}")
    return "/".join(parts)


def write_unit(
    unit: Unit,
    labelled: pa.Table,
    rejects: list[Reject],
    output: OutputConfig,
    storage: StorageConfig,
    *,
    metadata: dict[str, Any],
    padded_tokens: int,
    classify_seconds: ClassifySeconds | None = None,
    flops: float | None = None,
) -> Commit:
    """Writes a unit's files, one PUT each, and returns what its commit has to say.

    Args:
        labelled: the documents with their labels and the columns to keep.
        metadata: recorded in each file's schema metadata under `label_corpus`, as JSON.
        padded_tokens: tokens that went through the model, padding included.
        flops: of the model, without padding.
    """
    attempt = new_attempt()
    name = f"{unit.id}-{attempt}"
    labelled = labelled.replace_schema_metadata({METADATA_KEY: json.dumps(metadata)})
    columns = output.partition_columns()
    schema = schema_id(labelled.schema) if not columns else schema_id(labelled.drop_columns(list(columns)).schema)
    contents: dict[str, Any] = {}
    files = []
    for values, part in partitions(labelled, columns):
        path = "/".join(filter(None, [hive_folder(columns, values), f"{name}.parquet"]))
        contents[path] = parquet_bytes(part)
        files.append(written_file(path, part.num_rows, contents[path]))
    rejects_file = None
    if rejects:
        path = f"{REJECTS_FOLDER}/{name}.jsonl"
        contents[path] = pack_rejects(rejects)
        rejects_file = written_file(path, len(rejects), contents[path])
    put_many({join(output.path, path): content for path, content in contents.items()}, storage)
    tokens, truncated, labels = count_labels(labelled.column, output)
    return Commit(
        unit=unit.id,
        attempt=attempt,
        pieces=unit.pieces,
        files=tuple(files),
        rejects_file=rejects_file,
        labeled=labelled.num_rows,
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
