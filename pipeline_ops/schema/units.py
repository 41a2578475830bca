"""The vocabulary shared by all stages: what travels between them, and the names of the columns they add.

A unit travels through Ray as one row of plain Arrow columns (design notes in README: "why a unit is one row"). Tables inside
that row are Arrow IPC streams in a `large_binary` cell: the transport schema is then the same for every unit whatever the
documents' own columns are, so Ray never has to unify, promote or split them. Writing a stream costs one copy, reading it none.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

Embedding = Literal["cls", "mean"]


class UserError(ValueError):
    """A user's mistake: one line that names the field, the value and the remedy. The command line prints it and exits 2."""


class OutputConfig(BaseModel):
    """Where the labels go and what they look like. Each column that labelling adds can be renamed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(description="the output folder; local, s3:// or what fsspec knows")
    partition_by: tuple[str, ...] = Field(
        default=("label",), description="hive folders; `label` is the label column, [] for none"
    )
    columns: Literal["all", "none"] | tuple[str, ...] = Field(
        default="all", description="input columns to keep beside the label"
    )
    scores: bool = Field(default=False, description="add every label's score, in id2label order")
    logits: bool = Field(default=False, description="add the raw logits, in id2label order")
    labels: bool | Literal["auto"] = Field(
        default="auto", description="multi-label: add the list of all labels from model.threshold on, and every label's score"
    )
    num_windows: bool | Literal["auto"] = Field(
        default="auto", description="model.long_documents: windows: add how many windows a document was read in"
    )
    window_scores: bool = Field(default=False, description="add every label's score in each of the document's windows")
    embedding: Embedding | None = Field(
        default=None,
        description="add the last hidden state: of the token that the head reads (cls), or the mean of all tokens' (mean)",
    )
    embedding_dtype: Literal["float16", "float32"] | None = Field(
        default=None, description="of the numbers in it; float32 unless set"
    )
    top_k: int | None = Field(default=None, ge=1, description="add the k best labels and their scores, best first")
    label_column: str = Field(default="label", description="the label's name, by the model's id2label")
    score_column: str = Field(default="score", description="the label's score, float32")
    scores_column: str = Field(default="scores", description="name of the column that `scores` adds")
    logits_column: str = Field(default="logits", description="name of the column that `logits` adds")
    labels_column: str = Field(default="labels", description="name of the column that `labels` adds")
    embedding_column: str = Field(default="embedding", description="name of the column that `embedding` adds")
    top_labels_column: str = Field(default="top_labels", description="name of a column that `top_k` adds")
    top_scores_column: str = Field(default="top_scores", description="name of a column that `top_k` adds")
    num_tokens_column: str = Field(default="num_tokens", description="tokens fed to the model, special tokens included")
    truncated_column: str = Field(default="truncated", description="whether the model has not read all of the text")
    num_windows_column: str = Field(default="num_windows", description="name of the column that `num_windows` adds")
    window_scores_column: str = Field(default="window_scores", description="name of the column that `window_scores` adds")
    source_file_column: str = Field(default="source_file", description="the input file the document came from")
    source_row_column: str = Field(default="source_row", description="the document's row (or line) in that file, from 0")
    drop_removed: bool = Field(default=False, description="drop the labels of input files that are gone")
    lease_seconds: float = Field(
        default=60, gt=0, description="how long a run that died keeps others from this output; it renews four times as often"
    )

    @model_validator(mode="after")
    def _distinct_names(self) -> "OutputConfig":
        self.check_names()
        if self.embedding_dtype is not None and self.embedding is None:
            raise ValueError("embedding_dtype is for embeddings; give output.embedding as well")
        return self

    def check_names(self) -> None:
        """Raises ValueError where two of the columns that labelling adds have the same name."""
        names = list(self.added_columns().values())
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"two of the columns that labelling adds are called {twice[0]!r}; give each a name of its own")

    def by_model(self) -> dict[str, "OutputConfig"]:
        """{name of a model: its columns' settings}; of a job's only model the name is empty."""
        return {"": self}

    def added_columns(self) -> dict[str, str]:
        """{config key: column name} of the columns that this configuration adds to the input's own."""
        names = {name: getattr(self, name) for name in type(self).model_fields if name.endswith("_column")}
        asked = {
            "scores_column": self.scores,
            "logits_column": self.logits,
            "labels_column": self.labels is True,
            "num_windows_column": self.num_windows is True,
            "window_scores_column": self.window_scores,
            "embedding_column": self.embedding is not None,
            "top_labels_column": self.top_k is not None,
            "top_scores_column": self.top_k is not None,
        }
        return {name: column for name, column in names.items() if asked.get(name, True)}

    def list_columns(self) -> set[str]:
        """Names of the added columns that hold a list per document."""
        lists = {"scores", "logits", "labels", "top_labels", "top_scores", "window_scores", "embedding"}
        return {column for name, column in self.added_columns().items() if name.removesuffix("_column") in lists}

    def partition_columns(self) -> tuple[str, ...]:
        return tuple(self.label_column if name == "label" else name for name in self.partition_by)

    def input_columns(self) -> tuple[str, ...] | None:
        """The input columns to keep; None for all."""
        return {"all": None, "none": ()}[self.columns] if isinstance(self.columns, str) else self.columns


class OutputOfSeveral(OutputConfig):
    """The output of several models: the columns of each begin with its name; only the sources' are common to all."""

    parts: dict[str, OutputConfig] = Field(default_factory=dict, exclude=True)

    def by_model(self) -> dict[str, OutputConfig]:
        return self.parts

    def added_columns(self) -> dict[str, str]:
        return {
            key if column == getattr(self, key) else f"{key} (of {name})": column
            for name, part in self.parts.items()
            for key, column in part.added_columns().items()
        }

    def list_columns(self) -> set[str]:
        return set().union(*(part.list_columns() for part in self.parts.values()))

    def partition_columns(self) -> tuple[str, ...]:
        return self.partition_by


def output_of(output: OutputConfig, models: Sequence[str]) -> OutputConfig:
    """The output of several models, by their names.

    Raises:
        ValueError: two columns would have the same name.
    """
    columns = [key for key in OutputConfig.model_fields if key.endswith("_column") and not key.startswith("source_")]
    parts = {name: output.model_copy(update={key: f"{name}_{getattr(output, key)}" for key in columns}) for name in models}
    several = OutputOfSeveral(**output.model_dump(), parts=parts)
    several.check_names()
    return several


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
    """What is read, labelled, written and committed as a whole.

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
    """A document that cannot be labelled, and why. `reason` is one of REASONS; `detail` is for people."""

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


def pack_table(table: pa.Table) -> pa.Buffer:
    """Arrow IPC stream of `table`; one copy of its buffers."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def unpack_table(cell: pa.Scalar) -> pa.Table:
    """The table in a transport cell; shares the cell's memory."""
    return pa.ipc.open_stream(cell.as_buffer()).read_all()


def binary_cell(data: pa.Buffer) -> pa.Array:
    """`data` as a large_binary array of one row, without a copy."""
    offsets = pa.array([0, data.size], pa.int64()).buffers()[1]
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, data])


def list_cell(values: np.ndarray) -> pa.Array:
    """A flat array as a large_list array of one row, without a copy."""
    return pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), pa.array(values))


def flat_values(row: pa.Table, column: str) -> np.ndarray:
    """The flat array that `list_cell` made a cell of; shares its memory and is read-only."""
    return row.column(column).chunk(0).flatten().to_numpy(zero_copy_only=True)


def pack_rejects(rejects: list[Reject]) -> bytes:
    return "".join(json.dumps(asdict(reject), ensure_ascii=False) + "\n" for reject in rejects).encode(
        "utf-8", errors="backslashreplace"
    )


def unpack_rejects(lines: bytes) -> list[Reject]:
    return [Reject(**json.loads(line)) for line in lines.split(b"\n") if line]
