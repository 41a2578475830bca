"""Piece, Range, Unit and Reject: the records that all stages exchange.

A unit travels through Ray as one row of plain Arrow columns (design notes in pipeline_ops/README.md). Tables inside that row
are Arrow IPC streams in a `large_binary` cell: the row's schema is then the same for every unit whatever the documents' own
columns are, so Ray never has to unify, promote or split them. Writing a stream costs one copy, reading it none.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive rows of one input file; a unit consists of pieces.

    Rows are counted from 0, including rows that are no documents (blank JSON lines) or are rejected. Bytes are offsets into the
    decompressed stream, for line formats only; with them a later run continues behind a committed piece without counting rows
    again.
    """

    path: str
    identity: str  # the file's etag, or its size and modification time; it changes with the file
    start_row: int
    stop_row: int  # exclusive
    last: bool  # the file ends here; a file is complete when its pieces reach from row 0 to such a piece
    start_byte: int = 0
    stop_byte: int = 0


@dataclass(frozen=True)
class Range:
    """Rows [start_row, stop_row) of a file; None: to its end. Likewise bytes, as in Piece."""

    start_row: int
    stop_row: int | None
    start_byte: int = 0
    stop_byte: int | None = None


@dataclass(frozen=True)
class Unit:
    """What is read, labeled, written and committed as a whole.

    The id is a hash of the job's fingerprint, the pieces and `replaces`.
    """

    id: str
    pieces: tuple[Piece, ...]
    replaces: tuple[str, ...] = ()  # names of the commits whose rows of the same files are outdated

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Unit":
        fields = json.loads(text)
        return Unit(fields["id"], tuple(Piece(**piece) for piece in fields["pieces"]), tuple(fields["replaces"]))


Reason = Literal[
    "null_text",
    "not_a_string",
    "undecodable",
    "broken_json",
    "broken_csv",
    "column_type",  # of Avro records alone; see misfits.py for other values of other types
    "too_short",
    "tokenizer_error",
    "model_error",
    "non_finite_logits",
]


@dataclass(frozen=True)
class Reject:
    """A document that cannot be labeled, and why."""

    source_file: str
    source_row: int
    reason: Reason
    detail: str  # for people


def row_of(path: str, row: int) -> str:
    """Where a document is, for people: its row counts from 0, as in `source_row`, and only in some formats is it a line."""
    return f"row {row} of {path}"


END_OF_FILE = 2**62  # stop of a piece that reaches to the end of its file, where that is not known

MAX_DETAIL_CHARACTERS = 300


def short_id(fields: Any) -> str:
    """24 hexadecimal digits that name what has these fields: a hash (SHA-256) of their JSON."""
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:24]


def pack_rejects(rejects: list[Reject]) -> bytes:
    """The rejects as JSON lines, UTF-8; the content of a rejects file."""
    return "".join(json.dumps(asdict(reject), ensure_ascii=False) + "\n" for reject in rejects).encode(
        "utf-8", errors="backslashreplace"
    )


def unpack_rejects(lines: bytes) -> list[Reject]:
    """The rejects in what pack_rejects returns."""
    return [Reject(**json.loads(line)) for line in lines.split(b"\n") if line]


def iso(time: datetime) -> str:
    """ISO 8601 in UTC, to the second: 2026-01-31T23:59:59Z."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
