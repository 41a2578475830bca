"""The labeled corpus of a training, read by the job's readers."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from jobs.number_format import counted
from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.inputs.listing import find_inputs
from pipeline_ops.output.mostly_rejected import ASKED_FOR, MIN_DOCUMENTS, REMEDIES
from pipeline_ops.reading.documents import decode_texts
from pipeline_ops.reading.input_schema import column_names, infer_column_types
from pipeline_ops.reading.reader import read_pieces
from pipeline_ops.reading.spans import ReadSettings, Span
from pipeline_ops.reading.unit_sizes import UnitSizes
from pipeline_ops.schema.errors import UserError, store_access, store_errors
from pipeline_ops.schema.failures import Failure
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import Range, Reject
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.store import Store

# the reader's added columns; the prefix keeps them from colliding with the label column
ADDED_COLUMNS = {name: f"__{name}" for name in OutputConfig(path="-", scores=True, logits=True).added_columns()}
TRAINING_UNIT_BYTES = 8 * 2**20  # small units: reading stops soon after max_documents

REASONS = {  # why rows are skipped, in words; other reasons are words already
    "no_label": "without a label",
    "empty_text": "with an empty text",
    "null_text": "without a text",
    "too_short": "with a text that is too short",
    "not_a_string": "with a value that is no text",
}


class LabeledInputConfig(InputConfig):
    """The job's input section plus the label column."""

    path: str = Field(
        default="",
        description="file, folder (recursive) or glob; local, s3:// or what fsspec knows; not needed with corrections",
    )
    label_column: str = Field(default="label", description="the column that holds each document's label")
    corrections: str | tuple[str, ...] = Field(
        default=(),
        description="reviewed documents, as `review` exports them: a .jsonl or .csv file, a folder or glob, or a list of these;"
        " each takes the place of the document of that row or text",
    )

    @property
    def correction_paths(self) -> tuple[str, ...]:
        return (self.corrections,) if isinstance(self.corrections, str) else self.corrections

    @field_validator("path", mode="before")
    @classmethod
    def _none_is_empty(cls, path: Any) -> Any:
        return "" if path is None else path

    @model_validator(mode="after")
    def _has_documents(self) -> "LabeledInputConfig":
        if not self.path and not self.correction_paths:
            raise ValueError("give input.path, a labeled corpus, or input.corrections, or both")
        return self

    @field_validator("text_pair_column")
    @classmethod
    def _no_pairs(cls, column: str | None) -> str | None:
        if column is not None:
            raise ValueError("training reads one text per document; leave it out")
        return column


@dataclass
class LabeledDocuments:
    """Documents with a label, in the order of the input."""

    texts: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    sources: list[tuple[str, int]] = field(default_factory=list)  # (input file, row)
    skipped: Counter[str] = field(default_factory=Counter)  # rows without text or label, by reason


def list_inputs(config: LabeledInputConfig, storage: StorageConfig) -> list[InputFile]:
    """The files of the corpus in the order of their paths; none where only corrections are given.

    Raises:
        UserError: there are none, or the store refuses the listing.
    """
    if not config.path:
        return []
    with store_access("input.path", config.path, "read"):
        return find_inputs(config, Store(config.path, storage))[0]


def read_labeled(
    files: Sequence[InputFile], config: LabeledInputConfig, storage: StorageConfig, max_documents: int
) -> LabeledDocuments:
    """The first `max_documents` documents, and the rows that were skipped meanwhile.

    Reasons are those of rejects, `empty_text` and `no_label`.

    Args:
        files: of list_inputs.

    Raises:
        UserError: a file that cannot be read, or without the text or label column.
    """
    found = LabeledDocuments()
    try:
        for table, rejects in _tables(files, config, storage):
            found.skipped.update(reject.reason for reject in rejects)
            if not table.num_rows:
                continue
            columns = (config.label_column, ADDED_COLUMNS["source_file_column"], ADDED_COLUMNS["source_row_column"])
            for text, label, *source in zip(
                decode_texts(table.column(config.text_column))[0].to_pylist(),
                *(table.column(name).to_pylist() for name in columns),
                strict=True,
            ):
                if label is None or not text.strip():
                    found.skipped["no_label" if label is None else "empty_text"] += 1
                    continue
                found.texts.append(text)
                found.labels.append(str(label))
                found.sources.append((source[0], source[1]))
                if len(found.texts) == max_documents:
                    return found
    except store_errors() as error:
        raise UserError(f"input.path: {config.path!r} cannot be read: {error}") from error
    return found


def check_skipped(skipped: Counter[str], documents: int, config: LabeledInputConfig) -> None:
    """Raises UserError if more of the rows than input.max_reject_share are rejected.

    Args:
        documents: rows that were not skipped.
    """
    rows = skipped.total() + documents
    wrong = Counter({reason: count for reason, count in skipped.items() if reason in REMEDIES and reason not in ASKED_FOR})
    if rows < MIN_DOCUMENTS or wrong.total() <= config.max_reject_share * rows:
        return
    ((reason, count),) = wrong.most_common(1)
    why = f"as {reason}"
    if count <= config.max_reject_share * rows:
        count, why = wrong.total(), f"for {len(wrong)} reasons, most often {reason}"
    raise UserError(
        f"input.max_reject_share: {count:,} of {counted(rows, 'row')} of {config.path} are rejected {why};"
        f" {REMEDIES[reason]} (input.max_reject_share=1 accepts them)"
    )


def skipped_line(skipped: Counter[str], documents: int) -> str:
    """`skipped 12 of 4,000 rows: 9 without a label, 3 with an empty text`.

    Args:
        documents: rows that were not skipped.
    """
    reasons = ", ".join(f"{count:,} {REASONS.get(reason, reason.replace('_', ' '))}" for reason, count in skipped.most_common())
    return f"skipped {skipped.total():,} of {counted(skipped.total() + documents, 'row')}: {reasons}"


def _tables(
    files: Sequence[InputFile], config: LabeledInputConfig, storage: StorageConfig
) -> Iterator[tuple[pa.Table, list[Reject]]]:
    """Yield the input unit by unit: a table with the text and label columns, and the rejected rows."""
    store = Store(config.path, storage)
    settings = ReadSettings(
        input=config,
        storage=storage,
        output=OutputConfig(path="-", columns=(config.label_column,), **ADDED_COLUMNS),  # pyright: ignore[reportArgumentType]
        column_types=infer_column_types(files, config, store),
        unit_sizes=UnitSizes(TRAINING_UNIT_BYTES),
        fingerprint="",
    )
    for file in files:
        for part in read_pieces([Span(file, (Range(0, None),))], settings):
            if isinstance(part, Failure):
                raise UserError(f"input.path: {file.path!r} cannot be read: {part.message}")
            table, rejects = part.documents, part.rejects
            if table.num_rows and _is_empty(table, config.label_column):
                names = column_names(file, config, store)
                if config.label_column not in names:
                    raise UserError(
                        f"input.label_column: {file.path} has no column {config.label_column!r}; it has {', '.join(names)}"
                    )
            yield table, rejects


def _is_empty(table: pa.Table, column: str) -> bool:
    """Whether a column has no value; one that its file lacks has none."""
    return column not in table.column_names or table.column(column).null_count == table.num_rows
