"""A corpus that nobody has described yet -> what it seems to hold, from a bounded sample: some files, a mebibyte of each.

So it takes seconds whatever the size: of 100,000 files as of one of 5 GB. Nothing is tokenized, no model is needed;
sampling.py estimates what a job will take.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_ops.reading import line_records as records
from pipeline_ops.reading import parsing
from pipeline_ops.reading.input_schema import TYPE_SAMPLE_FILES, check_header_names, csv_delimiter
from pipeline_ops.reading.inputs import MAX_OPENED_FILES, InputConfig, InputFile, evenly_spread, find_inputs, readable_files
from pipeline_ops.reading.row_groups import check_footer
from pipeline_ops.reading.text_columns import decode_texts, is_text_type
from pipeline_ops.storage.files import StorageConfig, open_to_read

SAMPLED_BYTES = 2**20  # of a file, decompressed
MOST_RECORD_BYTES = 32 * 2**20
SAMPLED_DOCUMENTS = 250  # of a file: whose values are looked at
DELIMITERS = (";", "\t", "|")


@dataclass
class Beginning:
    """The first documents of a file."""

    types: dict[str, pa.DataType]
    texts: dict[str, list[str]]  # by column, nulls left out; of some of the documents
    documents: int  # in so many stored bytes:
    stored_bytes: float
    delimiter: str | None = None  # of CSV, where the usual one does not do


@dataclass
class Corpus:
    """What a corpus seems to hold."""

    files: list[InputFile]
    passed_over: list[str]  # of no known suffix
    types: dict[str, dict[str, pa.DataType]] = field(default_factory=dict)  # by format, by column
    texts: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # by column
    documents: float = 0  # about
    counted: bool = True  # all of them have been seen
    delimiter: str | None = None

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
        """{name: type}; of several formats both types where they differ."""
        found: dict[str, dict[str, None]] = {}
        for types in self.types.values():
            for name, data_type in types.items():
                found.setdefault(name, {})[str(data_type)] = None
        return {name: " or ".join(types) for name, types in found.items()}

    @property
    def common_texts(self) -> dict[str, list[str]]:
        """The texts of the columns that hold such in all formats; plain text has a column of any name."""
        named = [types for file_format, types in self.types.items() if file_format != "text"] or [*self.types.values()]
        return {
            name: self.texts[name]
            for name, data_type in named[0].items()
            if is_text_type(data_type) and all(name in types and is_text_type(types[name]) for types in named)
        }


def look_at(config: InputConfig, storage: StorageConfig) -> Corpus:
    """Lists the corpus and reads the beginnings of some of its files.

    Raises:
        UserError: as find_inputs, or UnreadableInput: no file of a format can be read.
        Exception: the object store is at fault.
    """
    files, passed_over = find_inputs(config, storage)
    corpus = Corpus(files, passed_over)
    kinds: dict[tuple[str, str | None], list[InputFile]] = defaultdict(list)
    for file in files:
        kinds[file.format, file.compression].append(file)
    for (file_format, _), alike in kinds.items():
        filled = [file for file in alike if file.stored.size]
        documents, stored = 0, 0.0
        order = list(dict.fromkeys([*evenly_spread(filled, TYPE_SAMPLE_FILES), *evenly_spread(filled, MAX_OPENED_FILES)]))
        seen = 0
        for file, beginning in readable_files(order, lambda file: begin_of(file, config, storage)):
            seen += 1
            documents, stored = documents + beginning.documents, stored + beginning.stored_bytes
            corpus.counted &= beginning.stored_bytes >= file.stored.size
            corpus.delimiter = corpus.delimiter or beginning.delimiter
            corpus.types.setdefault(file_format, {}).update(beginning.types)
            for name, values in beginning.texts.items():
                corpus.texts[name] += values
            if seen == TYPE_SAMPLE_FILES:
                break
        corpus.counted &= seen == len(filled)
        corpus.documents += documents * sum(file.stored.size for file in filled) / stored if stored else 0
    return corpus


def begin_of(file: InputFile, config: InputConfig, storage: StorageConfig) -> Beginning:
    """The first documents of a file; raises whatever the parsers raise."""
    if file.format == "parquet":
        return _rows(file, storage)
    with open_to_read(file.stored, storage, sequential=file.compression is not None) as source:
        stream = source if file.compression is None else pa.CompressedInputStream(pa.PythonFile(source), file.compression)
        data, at_end = b"", False
        ends: list[int] = []
        quote = config.quote if file.format == "csv" else None
        delimiter = csv_delimiter(file, config)
        while not ends and not at_end:
            if len(data) >= MOST_RECORD_BYTES:
                raise OSError(f"the first record has no end within {MOST_RECORD_BYTES} bytes")
            more = bytes(stream.read(max(SAMPLED_BYTES, len(data))))
            data, at_end = data + more, len(more) < max(SAMPLED_BYTES, len(data))
            ends = records.record_ends(data, quote, delimiter, at_end=at_end).tolist()
        whole = at_end or not ends
        stored = file.stored.size if whole else min(source.tell(), file.stored.size) * ends[-1] / len(data)
    block = records.RecordBlock(data[: ends[-1]] if ends else b"", 0, len(ends), 0, last=at_end)
    lines = records.split_records(block, quote, delimiter)
    if file.format == "csv":
        return _fields(file, lines, delimiter, config, stored)
    documents = [line for line in lines if records.is_document(line, file.format)]
    sampled = documents[:SAMPLED_DOCUMENTS]
    if file.format == "text":
        texts = {config.text_column: [line.decode(errors="replace") for line in sampled]}
        if config.text_unit == "file":
            return Beginning(
                {config.text_column: pa.string()}, {config.text_column: [data.decode(errors="replace")]}, 1, stored
            )
        return Beginning({config.text_column: pa.string()}, texts, len(documents), stored)
    types = {column.name: column.type for column in parsing.types_of_lines(documents)}
    types |= {name: pa.type_for_alias(alias) for name, alias in config.column_types.items()}
    return Beginning(types, _strings(sampled), len(documents), stored)


def _strings(lines: Sequence[bytes]) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        with suppress(ValueError, RecursionError):  # it becomes a reject when it is labeled
            document = json.loads(line)
            for name, value in document.items() if isinstance(document, dict) else ():
                if isinstance(value, str):
                    texts[name].append(value)
    return texts


def _fields(file: InputFile, lines: Sequence[bytes], delimiter: str, config: InputConfig, stored: float) -> Beginning:
    header = parsing.csv_fields(lines[0], delimiter, config.quote) if lines else []
    other = None
    if len(header) == 1 and config.delimiter is None:
        widths = {mark: len(parsing.csv_fields(lines[0], mark, config.quote)) for mark in DELIMITERS}
        widest = max(widths, key=lambda mark: widths[mark])
        if widths[widest] > 1:
            delimiter = other = widest
            header = parsing.csv_fields(lines[0], delimiter, config.quote)
    check_header_names(header, file)
    rows = [parsing.csv_fields(line, delimiter, config.quote) for line in lines[1 : SAMPLED_DOCUMENTS + 1] if line]
    rows = [row for row in rows if len(row) == len(header)]
    texts = {name: [row[index] for row in rows] for index, name in enumerate(header)}
    types = {name: pa.type_for_alias(config.column_types.get(name, "string")) for name in header}
    return Beginning(types, texts, sum(bool(line) for line in lines[1:]), stored, other)


def _rows(file: InputFile, storage: StorageConfig) -> Beginning:
    with open_to_read(file.stored, storage, sequential=False) as source:
        # pre_buffer would fetch a whole row group
        parquet = pq.ParquetFile(source, pre_buffer=False, buffer_size=2**20)
        schema, metadata = parquet.schema_arrow, parquet.metadata
        check_footer(metadata, None)
        columns = [column.name for column in schema if is_text_type(column.type)]
        texts: dict[str, list[str]] = {}
        for batch in parquet.iter_batches(batch_size=SAMPLED_DOCUMENTS, columns=columns, use_threads=False) if columns else ():
            table = pa.Table.from_batches([batch])
            texts = {
                name: [text for text in decode_texts(table.column(name))[0].to_pylist() if text is not None] for name in columns
            }
            break
    return Beginning({column.name: column.type for column in schema}, texts, metadata.num_rows, file.stored.size)
