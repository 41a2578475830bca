"""Profile of an unknown corpus: formats, columns, sample texts and an estimated number of documents.

Reads a bounded sample, PROFILE_BYTES of a few files of each format and compression, so that 100,000 files or one of 5 GB take
seconds. Needs no model and tokenizes nothing; planning/sampler.py estimates the work of a job.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.inputs.input_files import (
    MAX_OPENED_FILES,
    InputFile,
    UnreadableInput,
    evenly_spread,
    readable_files,
    unreadable_notes,
)
from pipeline_ops.inputs.listing import find_inputs
from pipeline_ops.inputs.passed_over import PassedOver
from pipeline_ops.line_formats import line_records
from pipeline_ops.line_formats.csv_header import check_header_names
from pipeline_ops.line_formats.csv_syntax import QUOTE_REMEDY
from pipeline_ops.line_formats.decoding import open_lines
from pipeline_ops.line_formats.first_bytes import check_no_pointer_file
from pipeline_ops.line_formats.json_types import types_of_lines
from pipeline_ops.reading.column_types import common_type, is_text_type, may_hold_texts, settle_types
from pipeline_ops.reading.csv_guess import CsvGuess, guess_file, header_doubt, shown_setting
from pipeline_ops.reading.documents import decode_texts
from pipeline_ops.reading.encoding_guess import encoding_notes, guess_encoding, guess_remark
from pipeline_ops.reading.input_schema import TYPE_SAMPLE_FILES, with_columns_around
from pipeline_ops.row_formats.parquet_files import check_footer, sampled_schema
from pipeline_ops.row_formats.row_files import ROW_FORMATS, open_row_file
from pipeline_ops.schema.units import Range
from pipeline_ops.storage.paths import some_shown
from pipeline_ops.storage.store import Store

PROFILE_BYTES = 2**20  # per file, decompressed
MAX_FIRST_RECORD_BYTES = 32 * 2**20
SAMPLE_TEXTS = 250  # documents per file whose texts are kept


@dataclass
class Beginning:
    """The first documents of a file."""

    columns: pa.Schema
    texts: dict[str, list[str]]  # by column, without nulls; of the first SAMPLE_TEXTS documents
    documents: int  # in `stored_bytes`
    stored_bytes: float  # estimate for compressed files
    csv: CsvGuess | None = None  # of a CSV file with records
    like_json: bool = False  # the first lines of CSV or plain text are JSON objects


@dataclass
class SampledKind:
    """Files of one format and compression."""

    bytes: int  # of those that are not known to be unreadable
    sampled: list[tuple[InputFile, pa.Schema, Beginning]]  # with the columns around the files


@dataclass
class CorpusProfile:
    """Files, columns and sample texts of a corpus."""

    files: list[InputFile]
    passed_over: list[PassedOver]
    kinds: list[SampledKind] = field(default_factory=list)
    texts: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # by column
    counted: bool = True  # all files were read whole, so documents_with() is exact
    unreadable: dict[str, str] = field(default_factory=dict)  # {path: why} of sampled files
    encoding: str | None = None  # guessed, where it is not UTF-8 and the job does not say
    encoding_notes: list[str] = field(default_factory=list)  # a sentence about the guess
    csv: list[tuple[InputFile, CsvGuess]] = field(default_factory=list)
    column_types: pa.Schema = field(default_factory=lambda: pa.schema([]))  # as a run would write them
    type_notes: list[str] = field(default_factory=list)  # sentences; see settle_types

    @property
    def schemas(self) -> dict[str, list[pa.Schema]]:
        """{format: columns of the sampled files}"""
        found: dict[str, list[pa.Schema]] = defaultdict(list)
        for kind in self.kinds:
            for file, schema, _ in kind.sampled:
                found[file.format].append(schema)
        return found

    def documents_with(self, column: str) -> float:
        """Estimated number of documents in files that have a text column."""
        documents = 0.0
        for kind in self.kinds:
            having = sum(
                beginning.documents
                for file, schema, beginning in kind.sampled
                if file.format == "text" or column in schema.names
            )
            stored = sum(beginning.stored_bytes for *_, beginning in kind.sampled)
            documents += having * kind.bytes / stored if stored else 0
        return documents

    def notes_on_files(self, column: str) -> list[str]:
        """Sentences about sampled files that cannot be labeled."""
        lacking = [
            file.path
            for kind in self.kinds
            for file, schema, _ in kind.sampled
            if file.format != "text" and schema.names and column not in schema.names
        ]
        unlabeled = [f"not labeled, for want of a text column {column!r}: {some_shown(lacking)}"] if lacking else []
        json_files = [file for kind in self.kinds for file, _, beginning in kind.sampled if beginning.like_json]
        other = (
            [f"looks like JSON Lines, but input.format={json_files[0].format}: {some_shown([f.path for f in json_files])}"]
            if json_files
            else []
        )
        return unreadable_notes(self.unreadable) + unlabeled + other

    @property
    def bytes(self) -> int:
        return sum(file.stored.size for file in self.files)

    @property
    def formats(self) -> dict[str, int]:
        return dict(Counter(file.format for file in self.files).most_common())

    @property
    def compressions(self) -> dict[str, int]:
        return dict(Counter(file.compression for file in self.files if file.compression).most_common())

    @property
    def columns(self) -> dict[str, str]:
        """{name: type}"""
        return {column.name: str(column.type) for column in self.column_types}

    @property
    def csv_settings(self) -> dict[str, tuple[Any, str]]:
        """{key of `input`: (its value for the CSV files, why)}, as most of the sampled ones have them."""
        if not self.csv:
            return {}
        settings = Counter(tuple(guessed.settings.items()) for _, guessed in self.csv).most_common(1)[0][0]
        file, reasons = next((file, guessed.reasons) for file, guessed in self.csv if (*guessed.settings.items(),) == settings)
        return {key: (value, f"{file.path.rsplit('/', 1)[-1]}: {reasons[key]}") for key, value in settings}

    @property
    def csv_notes(self) -> list[str]:
        """Sentences where sampled CSV files look as if they needed settings of their own, or their first record is in doubt."""
        usual = {key: value for key, (value, _) in self.csv_settings.items()}
        other = next(((file, guessed) for file, guessed in self.csv if guessed.settings != usual), None)
        if other is None:
            return [doubt for file, guessed in self.csv if (doubt := header_doubt(file, guessed))][:1]
        file, guessed = other
        keys = [key for key in ("delimiter", "quote", "escape", "header") if guessed.settings.get(key) != usual.get(key)]
        shown = ", ".join(f"input.{key}={shown_setting(guessed.values[key])}" for key in keys)
        return [f"{file.path} differs from most of the sampled CSV files: it looks like {shown}; give it a job of its own"]

    @property
    def types(self) -> dict[str, dict[str, pa.DataType]]:
        """{format: {column: type}}; string where the sampled files of a format have several that do not go together."""
        names = {form: dict.fromkeys(name for schema in found for name in schema.names) for form, found in self.schemas.items()}
        return {
            form: {
                name: common_type(schema.field(name).type for schema in found if name in schema.names) for name in names[form]
            }
            for form, found in self.schemas.items()
        }

    @property
    def common_texts(self) -> dict[str, list[str]]:
        """{column: sample texts} of the columns that hold texts in all formats; plain text matches any column."""
        types = self.types
        named = [found for file_format, found in types.items() if file_format != "text"] or [*types.values()]
        return {
            name: self.texts[name]
            for name in (named[0] if named else ())
            if any(is_text_type(found[name]) for found in named if name in found)
            and all(name in found and may_hold_texts(found[name]) for found in named)
        }


def profile_corpus(config: InputConfig, store: Store) -> CorpusProfile:
    """List the corpus and read the beginnings of some files of each format and compression.

    Raises:
        UserError: as find_inputs; UnreadableInput: no file can be read.
        Exception: of the object store.
    """
    corpus = CorpusProfile(*find_inputs(config, store))
    files = corpus.files
    if config.encoding is None:
        corpus.encoding = guess_encoding(files, store)
        config = config.model_copy(update={"encoding": corpus.encoding})
        if corpus.encoding == "auto":
            corpus.encoding_notes = encoding_notes(files, config, store)
        elif corpus.encoding is not None:
            corpus.encoding_notes = [guess_remark(files, corpus.encoding, store)]
    kinds: dict[tuple[str, str | None], list[InputFile]] = defaultdict(list)
    for file in files:
        kinds[file.format, file.compression].append(file)
    errors = list[UnreadableInput]()
    for alike in kinds.values():
        filled = [file for file in alike if file.stored.size]
        order = list(dict.fromkeys([*evenly_spread(filled, TYPE_SAMPLE_FILES), *evenly_spread(filled, MAX_OPENED_FILES)]))
        sampled = list[tuple[InputFile, Beginning]]()
        broken: dict[str, str] = {}
        try:
            beginnings = readable_files(order, lambda file: read_beginning(file, config, store), broken)
            sampled = [*islice(beginnings, TYPE_SAMPLE_FILES)]
        except UnreadableInput as error:
            errors.append(error)
        corpus.unreadable |= broken
        corpus.counted &= len(sampled) + len(broken) == len(filled)
        for file, beginning in sampled:
            corpus.counted &= beginning.stored_bytes >= file.stored.size
            if beginning.csv is not None:
                corpus.csv.append((file, beginning.csv))
            for name, values in beginning.texts.items():
                corpus.texts[name] += values
        columns = with_columns_around([(file, beginning.columns) for file, beginning in sampled])
        size = sum(file.stored.size for file in filled if file.path not in broken)
        if sampled and sampled[0][0].table is not None:
            columns *= len(sampled)  # all have those of the table
        corpus.kinds.append(SampledKind(size, [(f, schema, b) for (f, b), (_, schema) in zip(sampled, columns, strict=True)]))
    if errors and not any(kind.sampled for kind in corpus.kinds):
        raise errors[0]
    corpus.column_types, corpus.type_notes = settle_types(corpus.schemas, config)
    return corpus


def read_beginning(file: InputFile, config: InputConfig, store: Store) -> Beginning:
    """Parse the first documents of a file; raises whatever the parsers raise."""
    if file.format == "parquet":
        check_no_pointer_file(file, store)
        return _parquet_beginning(file, store)
    if file.format in ROW_FORMATS:
        return _rows_beginning(file, store)
    if file.format == "csv":
        return _csv_beginning(file, config, store)
    with open_lines(file, config, store) as stream:
        blocks = line_records.read_record_blocks(
            stream,
            target_bytes=PROFILE_BYTES,
            max_records=PROFILE_BYTES,
            max_record_bytes=MAX_FIRST_RECORD_BYTES,
        )
        block = next(blocks, line_records.RecordBlock(b"", 0, 0, 0, last=True))
        stored = float(file.stored.size)
        if not block.last:
            stored = min(stream.tell_stored(), file.stored.size) * len(block.data) / stream.delivered
    lines = line_records.split_records(block)
    documents = [line for line in lines if line_records.is_document(line, file.format)]
    sampled = documents[:SAMPLE_TEXTS]
    if file.format == "text":
        columns = pa.schema([(config.text_column, pa.string())])
        texts = {config.text_column: [line.decode(errors="replace") for line in sampled]}
        like_json = _are_objects(sampled)
        if config.text_unit == "file":
            return Beginning(columns, {config.text_column: [block.data.decode(errors="replace")]}, 1, stored)
        return Beginning(columns, texts, len(documents), stored, like_json=like_json)
    types = {column.name: column for column in types_of_lines(documents)}
    types |= {name: pa.field(name, pa.type_for_alias(alias)) for name, alias in config.column_types.items()}
    return Beginning(pa.schema([*types.values()]), _json_texts(sampled), len(documents), stored)


def _are_objects(lines: Sequence[bytes]) -> bool:
    """Whether the first lines are JSON objects."""
    try:
        return bool(lines) and all(isinstance(json.loads(line), dict) for line in lines[:3])
    except (ValueError, RecursionError):
        return False


def _json_texts(lines: Sequence[bytes]) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        with suppress(ValueError, RecursionError):  # the run rejects this line
            document = json.loads(line)
            for name, value in document.items() if isinstance(document, dict) else ():
                if isinstance(value, str):
                    texts[name].append(value)
    return texts


def _csv_beginning(file: InputFile, config: InputConfig, store: Store) -> Beginning:
    need = PROFILE_BYTES
    while True:
        with open_lines(file, config, store) as stream:
            guessed = guess_file(stream, file, config, need)
            stored = float(file.stored.size)
            if not guessed.whole:
                stored = min(stream.tell_stored(), file.stored.size) * guessed.size / stream.delivered
        if guessed.records or guessed.whole or need >= MAX_FIRST_RECORD_BYTES:
            break
        need = min(need * 8, MAX_FIRST_RECORD_BYTES)
    if not guessed.records and not guessed.whole:
        raise OSError(f"the first record has no end within {MAX_FIRST_RECORD_BYTES} bytes; {QUOTE_REMEDY}")
    header = guessed.names if isinstance(config.header, bool) else [*config.header]
    check_header_names(header, file)
    rows = [guessed.syntax.fields(record) for record in guessed.documents[:SAMPLE_TEXTS]]
    rows = [row for row in rows if len(row) == len(header)]
    texts = {name: [row[index] for row in rows] for index, name in enumerate(header)}
    columns = pa.schema([(name, pa.type_for_alias(config.column_types.get(name, "string"))) for name in header])
    csv = guessed if guessed.records else None
    return Beginning(columns, texts, len(guessed.documents), stored, csv, _are_objects(guessed.records))


def _rows_beginning(file: InputFile, store: Store) -> Beginning:
    with open_row_file(file, store) as source:
        columns = source.schema
        block = next(source.read_blocks(Range(0, None), PROFILE_BYTES))
    texts: dict[str, list[str]] = {}
    for name in (column.name for column in columns if is_text_type(column.type) and block.table.num_rows):
        column = block.table.column(name).slice(0, SAMPLE_TEXTS)
        texts[name] = [text for text in decode_texts(column)[0].to_pylist() if text is not None]
    stored = file.stored.size if block.last else block.stored[1]
    return Beginning(columns, texts, block.stop_row, stored)


def _parquet_beginning(file: InputFile, store: Store) -> Beginning:
    with store.open(file.stored, sequential=False) as source:
        # pre_buffer=True would fetch a whole row group
        parquet = pq.ParquetFile(source, pre_buffer=False, buffer_size=2**20)
        schema, metadata = parquet.schema_arrow, parquet.metadata
        check_footer(metadata, None)
        columns = [column.name for column in schema if is_text_type(column.type)]
        texts: dict[str, list[str]] = {}
        for batch in parquet.iter_batches(batch_size=SAMPLE_TEXTS, columns=columns, use_threads=False) if columns else ():
            table = pa.Table.from_batches([batch])
            texts = {
                name: [text for text in decode_texts(table.column(name))[0].to_pylist() if text is not None] for name in columns
            }
            break
    return Beginning(sampled_schema(metadata), texts, metadata.num_rows, file.stored.size)
