"""The record of a unit's commit and of the files that it names; converts to and from JSON without loss."""

import hashlib
import json
import sys
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline_ops.schema.units import Piece


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file of the output; `path` is relative to the output folder.

    `statistics`: {column: (lowest, highest value, number of nulls)} of some columns of a labeled file, for the log of a table;
    of files of earlier versions there are none.
    """

    path: str
    rows: int
    bytes: int
    md5: str  # of its bytes; on most object stores its etag
    statistics: dict[str, tuple[Any, Any, int]] = field(default_factory=dict, hash=False)

    @staticmethod
    def from_fields(fields: dict[str, Any]) -> "WrittenFile":
        """Of a record's JSON."""
        held: dict[str, Any] = {}  # equal strings once: a plan holds the records of all files
        for column, values in fields.get("statistics", {}).items():
            held[sys.intern(column)] = tuple(map(_held_once, values))
        given: dict[str, Any] = {**fields, "statistics": held}
        return WrittenFile(**given)


@dataclass(frozen=True, slots=True)
class ClassifySeconds:
    """A classifier's wall-clock seconds for a unit, from the end of the unit before it (or of loading) to the end of this one.

    waiting: for the unit; copying: batches to the device and back, as far as the device did not compute meanwhile; computing:
    the model, on a GPU by the GPU's clock from the first to the last kernel of each pass, so that a GPU which waits between
    kernels for the next launch counts as computing (MFU shows which); writing: the row for the next stage, and everything
    else.
    """

    waiting: float = 0.0
    copying: float = 0.0
    computing: float = 0.0
    writing: float = 0.0

    @property
    def total(self) -> float:
        return self.waiting + self.copying + self.computing + self.writing

    @property
    def busy(self) -> float:
        """All but waiting."""
        return self.copying + self.computing + self.writing

    def to_dict(self) -> dict[str, float]:
        return _fields(self)

    @staticmethod
    def sum_of(several: Iterable["ClassifySeconds"]) -> "ClassifySeconds":
        """The sums of each field."""
        values = [seconds.to_dict().values() for seconds in several]
        return ClassifySeconds(*(sum(column) for column in zip(*values, strict=True)))


@dataclass(frozen=True, slots=True)
class FileCounts:
    """The documents of one input file, and how many of them are rejected."""

    path: str
    documents: float  # rejects included; in a record a whole number
    reasons: dict[str, int]  # rejects by reason

    @property
    def rejected(self) -> int:
        return sum(self.reasons.values())

    @staticmethod
    def sum_of(several: Iterable["FileCounts"]) -> dict[str, "FileCounts"]:
        """The sums for each file, by path."""
        documents: dict[str, float] = defaultdict(float)
        reasons: dict[str, Counter[str]] = defaultdict(Counter)
        for one in several:
            documents[one.path] += one.documents
            reasons[one.path].update(one.reasons)
        return {path: FileCounts(path, documents[path], dict(found)) for path, found in reasons.items()}


@dataclass(frozen=True, slots=True)
class Commit:
    """What one attempt at a unit wrote. Stored as `_commits/<unit>.json` it makes those files part of the output."""

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
    replaces: tuple[str, ...] = ()  # names of earlier commits whose input has changed, or whose rows this one contains
    term: int = 0  # of the lease under which it was committed
    classify_seconds: ClassifySeconds = ClassifySeconds()
    flops: float | None = None  # of all models, on tokens without padding; None: not known
    reasons: dict[str, int] = field(default_factory=dict)  # rejects by reason
    schema: str | None = None  # schema_id of the labeled files, partition columns left out
    misfits_file: WrittenFile | None = None
    misfits: dict[str, int] = field(default_factory=dict)  # values that do not fit their column's type, by column
    stage_seconds: dict[str, float] = field(default_factory=dict)  # wall-clock: read, tokenize and write, each in one process
    file_rejects: tuple[FileCounts, ...] = ()  # of the files with rejects, where there are several files; see by_file

    @property
    def name(self) -> str:
        """Unit and attempt: a unit that is labeled again, as its input has changed back, gets another commit."""
        return f"{self.unit}-{self.attempt}"

    @property
    def documents(self) -> int:
        return self.labeled + self.rejected

    def by_file(self) -> list[FileCounts]:
        """What is committed of each input file. Files without rejects have the other documents, in proportion to their rows.

        Of records of versions without `file_rejects` the rejects of several files are not known, and are left out.
        """
        rows: Counter[str] = Counter()
        for piece in self.pieces:
            rows[piece.path] += piece.stop_row - piece.start_row
        if len(rows) == 1:
            return [FileCounts(path, self.documents, self.reasons) for path in rows]
        known = {one.path: one for one in self.file_rejects}
        documents = self.documents - sum(one.documents for one in known.values())
        others = sum(count for path, count in rows.items() if path not in known)
        return [
            known[path] if path in known else FileCounts(path, documents * count / others if others else 0, {})
            for path, count in rows.items()
        ]

    def to_json(self) -> str:
        return json.dumps(self, default=_fields)

    @staticmethod
    def from_json(text: str | bytes) -> "Commit":
        fields = json.loads(text)
        fields["pieces"] = tuple(Piece(**piece) for piece in fields["pieces"])
        fields["files"] = tuple(map(WrittenFile.from_fields, fields["files"]))
        for name in ("rejects_file", "misfits_file"):  # earlier versions have no misfits
            fields[name] = WrittenFile.from_fields(fields[name]) if fields.get(name) else None
        fields["replaces"] = tuple(fields["replaces"])
        fields["classify_seconds"] = ClassifySeconds(**fields["classify_seconds"])
        fields["file_rejects"] = tuple(FileCounts(**one) for one in fields.get("file_rejects", ()))
        return Commit(**fields)

    def all_files(self) -> list[WrittenFile]:
        return [*self.files, *self.line_files()]

    def line_files(self) -> list[WrittenFile]:
        """The files of JSON lines: rejects, misfits."""
        return [file for file in (self.rejects_file, self.misfits_file) if file is not None]


def _held_once(value: Any) -> Any:
    return sys.intern(value) if isinstance(value, str) else value


def _fields(record: Any) -> dict[str, Any]:
    found = {name: getattr(record, name) for name in record.__slots__}
    return found if found.get("statistics", True) else {name: found[name] for name in found if name != "statistics"}


def schema_id(schema: pa.Schema) -> str:
    """Hash of a schema without its metadata: equal for files with equal columns and types."""
    return hashlib.sha256(schema.remove_metadata().serialize()).hexdigest()[:12]


def new_attempt() -> str:
    return uuid.uuid4().hex[:12]
