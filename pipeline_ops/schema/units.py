"""The vocabulary shared by all stages: what travels between them, and the names of the columns they add.

A unit travels through Ray as one row of plain Arrow columns (design notes in pipeline_ops/README.md). Tables inside
that row are Arrow IPC streams in a `large_binary` cell: the transport schema is then the same for every unit whatever the
documents' own columns are, so Ray never has to unify, promote or split them. Writing a stream costs one copy, reading it none.
"""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of consecutive rows of one input file, the building block of a unit.

    Rows are counted from 0 and include rows that are no documents (blank JSON lines) or are rejected. Bytes are offsets into
    the decompressed stream, for line formats only; they let a later run continue behind a committed piece without counting
    rows again.
    """

    path: str
    identity: str  # the file's etag, or size and modification time: another identity is another file
    start_row: int
    stop_row: int  # exclusive
    last: bool  # whether the file ends with this piece; a file is complete when its pieces reach from 0 to the last one
    start_byte: int = 0
    stop_byte: int = 0


@dataclass(frozen=True)
class Range:
    """Rows [start_row, stop_row) of a file; None: to its end. Bytes likewise, for line formats (decompressed offsets)."""

    start_row: int
    stop_row: int | None
    start_byte: int = 0
    stop_byte: int | None = None


@dataclass(frozen=True)
class Unit:
    """What is read, labeled, written and committed as a whole.

    Its id follows from its pieces, what it replaces, and the job's fingerprint.
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


@dataclass(frozen=True)
class Reject:
    """A document that cannot be labeled, and why. `reason` is one of REASONS; `detail` is for people."""

    source_file: str
    source_row: int
    reason: str
    detail: str


REASONS = (
    "null_text",
    "not_a_string",
    "undecodable",
    "broken_json",
    "broken_csv",
    "column_type",
    "too_short",
    "tokenizer_error",
    "model_error",
    "non_finite_logits",
)

END_OF_FILE = 2**62  # stop of a piece that reaches to an end which nobody has seen

MAX_DETAIL_CHARACTERS = 300


def pack_rejects(rejects: list[Reject]) -> bytes:
    return "".join(json.dumps(asdict(reject), ensure_ascii=False) + "\n" for reject in rejects).encode(
        "utf-8", errors="backslashreplace"
    )


def unpack_rejects(lines: bytes) -> list[Reject]:
    return [Reject(**json.loads(line)) for line in lines.split(b"\n") if line]


def iso(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
