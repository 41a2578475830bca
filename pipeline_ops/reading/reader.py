"""Spans of input files -> pieces -> units: (documents table, rejects), in bounded memory.

Columns in: whatever the files hold. Columns out: the text and those that `output.columns` asks for, as they were in the file,
plus source_file (string) and source_row (int64); every row has a text. Units follow from the files' bytes and the settings
alone, so a repeated read yields the same units. One file is read by one task from front to back (row groups excepted): row
numbers are then known without a pass of their own, and a compressed stream is decompressed once.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline_ops.reading import line_records as records
from pipeline_ops.reading import parsing
from pipeline_ops.reading.inputs import (
    InputConfig,
    InputFile,
    check_header_names,
    csv_delimiter,
    csv_header,
    decode_texts,
    is_text_type,
)
from pipeline_ops.reading.row_groups import intersect_ranges, read_rows, split_row_groups
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.failures import MAX_TRIES, Failure, failure_of, worker_died
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import END_OF_FILE, MAX_DETAIL_CHARACTERS, Piece, Range, Reject, Unit
from pipeline_ops.storage.files import StorageConfig, StoredFile, is_local, open_to_read, try_read_files

PREFETCHED_FILES = 256  # small objects fetched together, so that each does not cost a round trip
PREFETCHED_BYTES = 4 * 2**20
SINGLE_REQUEST_BYTES = 32 * 2**20  # up to this size, an object of which all is wanted is one request


@dataclass(frozen=True)
class Span:
    """What one task reads of one file. Each range of a Parquet file is a piece; those of line formats are cut into pieces."""

    file: InputFile
    ranges: tuple[Range, ...]
    replaces: tuple[str, ...] = ()  # names of the commits whose rows of this file are outdated


@dataclass(frozen=True)
class ReadSettings:
    """All that reading depends on, the same for every task of a job."""

    input: InputConfig
    storage: StorageConfig
    output: OutputConfig
    line_types: pa.Schema  # types of JSON Lines columns
    unit_bytes: int
    fingerprint: str


PieceContent = tuple[Piece, pa.Table, list[Reject]]


def spans_to_json(spans: list[Span]) -> str:
    return json.dumps([asdict(span) for span in spans])


def spans_from_json(text: str) -> list[Span]:
    return [
        Span(
            InputFile(**{**span["file"], "stored": StoredFile(**span["file"]["stored"])}),
            tuple(Range(**fields) for fields in span["ranges"]),
            tuple(span["replaces"]),
        )
        for span in json.loads(text)
    ]


class Attempts(Protocol):
    """What a process is about to do, remembered outside it: what kills the process is then known to the next one."""

    def begin(self, key: str) -> int:
        """Says that work begins; returns how often it has begun without ending first."""
        ...

    def end(self, key: str) -> None:
        """Says that the work has ended, well or not: this process lives."""
        ...


def read_units(
    spans: list[Span], settings: ReadSettings, attempts: Attempts | None = None
) -> Iterator[tuple[Unit, pa.Table, list[Reject]] | Failure]:
    """Units of about `unit_bytes`: consecutive parts are put together while they fit and their schemas are equal.

    What cannot be read of a file comes as a Failure; the other files are read all the same. The units are the same however
    often they are read.

    Args:
        attempts: given when an earlier process has died over these spans: a file that keeps killing is then given up.
    """
    replaces = {span.file.path: span.replaces for span in spans}
    pending: list[PieceContent] = []
    size = 0
    for part in read_pieces(spans, settings, attempts):
        if isinstance(part, Failure):
            if pending:
                yield _unit(pending, settings.fingerprint, replaces)
            pending, size = [], 0
            yield part
            continue
        table = part[1]
        full = size + table.nbytes > settings.unit_bytes
        other = table.num_rows > 0 and any(held.num_rows and held.schema != table.schema for _, held, _ in pending)
        if pending and (full or other):
            yield _unit(pending, settings.fingerprint, replaces)
            pending, size = [], 0
        pending.append(part)
        size += table.nbytes
    if pending:
        yield _unit(pending, settings.fingerprint, replaces)


def _unit(
    parts: list[PieceContent], fingerprint: str, replaces: dict[str, tuple[str, ...]]
) -> tuple[Unit, pa.Table, list[Reject]]:
    pieces = tuple(piece for piece, _, _ in parts)
    replaced = tuple(sorted({name for piece in pieces for name in replaces[piece.path]}))
    identity = [fingerprint, *((p.path, p.identity, p.start_row, p.stop_row) for p in pieces), *replaced]
    unit_id = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:24]
    rejects = [reject for _, _, rejects in parts for reject in rejects]
    tables = [table for _, table, _ in parts if table.num_rows] or [parts[0][1]]
    return Unit(unit_id, pieces, replaced), pa.concat_tables(tables), rejects


def read_pieces(
    spans: list[Span], settings: ReadSettings, attempts: Attempts | None = None
) -> Iterator[PieceContent | Failure]:
    """The spans' parts in order: (piece, documents, rejects), and a Failure for the rest of a file that cannot be read."""
    for span, content in _with_contents(spans, settings):
        key = at = f"read {_hash(asdict(span))}"
        done: list[Piece] = []
        try:
            if isinstance(content, Exception):
                raise content
            parts = _read_span(span, content, settings)
            while True:
                at = f"{key} {len(done)}"
                if attempts and attempts.begin(at) >= MAX_TRIES:
                    yield worker_died(_rest(span, done), "read")
                    break  # without an end: it stays given up, and the units the same, if another file kills the next process
                part = next(parts, None)
                if attempts:  # before the part is taken: a process that dies while it waits for that did not die of it
                    attempts.end(at)
                if part is None:
                    break
                yield part
                done.append(part[0])
        except Exception as error:  # a broken file can make the parsers raise anything
            if attempts:
                attempts.end(at)
            error.add_note(f"while reading {span.file.path}")
            yield failure_of(error, _rest(span, done), "read")


def _read_span(span: Span, content: bytes | None, settings: ReadSettings) -> Iterator[PieceContent]:
    if span.file.format == "parquet":
        yield from _read_parquet(span, content, settings)
    elif span.file.format == "text" and settings.input.text_unit == "file":
        yield _read_text_file(span.file, content, settings)
    else:
        yield from _read_line_file(span, content, settings)


def _rest(span: Span, done: list[Piece]) -> tuple[Piece, ...]:
    """What of a span is not in the pieces that were read of it, from front to back."""
    row, byte = (done[-1].stop_row, done[-1].stop_byte) if done else (0, 0)
    rest: list[Piece] = []
    for gap in span.ranges:
        stop_row, stop_byte = (END_OF_FILE, END_OF_FILE) if gap.stop_row is None else (gap.stop_row, gap.stop_byte or 0)
        if stop_row > row or not done:
            start = (row, byte) if row > gap.start_row else (gap.start_row, gap.start_byte)
            rest.append(_piece(span.file, start[0], stop_row, gap.stop_row is None, start[1], stop_byte))
    return tuple(rest)


def _hash(fields: Any) -> str:
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:24]


def _with_contents(spans: list[Span], settings: ReadSettings) -> Iterator[tuple[Span, bytes | Exception | None]]:
    """Each span with its file's content, or the error that it gave, where the file is fetched whole.

    Many small objects are fetched together, and cost one round trip. What is fetched whole is checked whole, by length and
    etag; ranges of a file cannot be.
    """
    for start in range(0, len(spans), PREFETCHED_FILES):
        batch = [span.file.stored for span in spans[start : start + PREFETCHED_FILES]]
        small = [file for file in batch if not is_local(file.path) and file.size <= PREFETCHED_BYTES]
        fetched = {file.path: content for file, content in zip(small, try_read_files(small, settings.storage), strict=True)}
        for span in spans[start : start + PREFETCHED_FILES]:
            if span.file.path in fetched:
                yield span, fetched.pop(span.file.path)
            elif _is_read_whole(span, settings):
                yield span, try_read_files([span.file.stored], settings.storage)[0]
            else:
                yield span, None


def _is_read_whole(span: Span, settings: ReadSettings) -> bool:
    """Whether nearly all of a file's bytes are wanted, and fit into memory beside a unit."""
    stored = span.file.stored
    some_columns = span.file.format == "parquet" and settings.output.input_columns() is not None
    some_rows = span.ranges != (Range(0, None),)
    return not is_local(stored.path) and stored.size <= SINGLE_REQUEST_BYTES and not some_columns and not some_rows


def _read_line_file(span: Span, content: bytes | None, settings: ReadSettings) -> Iterator[PieceContent]:
    file, config = span.file, settings.input
    quote = config.quote if file.format == "csv" else None
    header, header_bytes = csv_header(file, config, settings.storage, content) if file.format == "csv" else ([], 0)
    if header:
        check_header_names(header, file)
        _require_text_columns(header, file, settings)
    for gap in span.ranges:
        start_byte = max(gap.start_byte, header_bytes)
        piece = None
        with records.open_decompressed(file.stored, file.compression, settings.storage, start_byte, content) as stream:
            for block in records.read_record_blocks(
                stream,
                target_bytes=settings.unit_bytes,
                quote=quote,
                delimiter=csv_delimiter(file, config),
                start_row=gap.start_row,
                start_byte=start_byte,
                stop_byte=gap.stop_byte,
            ):
                if block.last and file.compression is None and stream.tell() != file.stored.size:
                    raise OSError(f"{stream.tell()} bytes read, {file.stored.size} listed; it changed meanwhile")
                piece = _piece(
                    file,
                    block.start_row,
                    block.start_row + block.num_rows,
                    block.last,
                    block.start_byte,
                    block.stop_byte,
                )
                yield piece, *parse_block(file, block, header, settings)
        if piece is None and gap.stop_row is None:  # no records: the file is done all the same
            piece = _piece(file, gap.start_row, gap.start_row, True, start_byte, start_byte)
            yield piece, *_documents(file, pa.table({}), np.empty(0, np.int64), [], settings)


def parse_block(
    file: InputFile, block: records.RecordBlock, header: list[str], settings: ReadSettings
) -> tuple[pa.Table, list[Reject]]:
    """Whole records of a line file, as its parts have them. `header`: of a CSV file, as csv_header gives it."""
    return _documents(file, *_parse(block, file, header, settings), settings)


def _piece(file: InputFile, start_row: int, stop_row: int, last: bool, start_byte: int = 0, stop_byte: int = 0) -> Piece:
    return Piece(file.path, file.stored.identity, start_row, stop_row, last, start_byte, stop_byte)


def _parse(block: records.RecordBlock, file: InputFile, header: list[str], settings: ReadSettings):
    config = settings.input
    if file.format == "text":
        return parsing.parse_text(block, config.text_column)
    if file.format == "csv":
        types = {name: pa.type_for_alias(alias) for name, alias in config.column_types.items()}
        return parsing.parse_csv(block, header, csv_delimiter(file, config), config.quote, types)
    wanted, kept = settings.line_types, settings.output.input_columns()
    if kept is not None:
        wanted = pa.schema([field for field in wanted if field.name in (*kept, *config.text_columns)])
    for column in config.text_columns:
        if column not in wanted.names:
            wanted = wanted.append(pa.field(column, pa.string()))
    return parsing.parse_jsonl(block, wanted, text_columns=config.text_columns, only_schema=kept is not None)


def _read_text_file(file: InputFile, content: bytes | None, settings: ReadSettings) -> PieceContent:
    with records.open_decompressed(file.stored, file.compression, settings.storage, 0, content) as stream:
        data = stream.read().removeprefix(records.BYTE_ORDER_MARK)
    table = pa.table({settings.input.text_column: pa.array([data], pa.large_binary())})
    return _piece(file, 0, 1, True), *_documents(file, table, np.zeros(1, np.int64), [], settings)


def _read_parquet(span: Span, content: bytes | None, settings: ReadSettings) -> Iterator[PieceContent]:
    file = span.file
    source = open_to_read(file.stored, settings.storage, sequential=False) if content is None else pa.BufferReader(content)
    with source as opened:
        parquet = pq.ParquetFile(opened, page_checksum_verification=True)
        num_rows, names = parquet.metadata.num_rows, parquet.schema_arrow.names
        _require_text_columns(names, file, settings)
        parsing.check_nesting(parquet.schema_arrow)
        kept = settings.output.input_columns()
        columns = None if kept is None else [name for name in names if name in (*kept, *settings.input.text_columns)]
        # a file that is small on disk can be large in memory
        cuts = [cut for group in split_row_groups(parquet.metadata, columns, settings.unit_bytes) for cut in group]
        ranges = [(part.start_row, part.stop_row or 0) for part in intersect_ranges(cuts, span.ranges, num_rows)]
        # one pass over all ranges: they may share a row group, which can only be decoded from its start
        tables = read_rows(parquet, opened, columns, ranges[0][0], ranges[-1][1])
        row, ahead = ranges[0][0], parquet.schema_arrow.empty_table()
        for start, stop in ranges:
            held = []
            while row < stop:
                if not ahead.num_rows:
                    ahead = next(tables, None)
                if ahead is None:
                    raise OSError(f"has fewer rows than the {num_rows} of its footer")
                count = min(ahead.num_rows, (start if row < start else stop) - row)
                if row >= start:
                    held.append(ahead.slice(0, count))
                ahead, row = ahead.slice(count), row + count
            table = pa.concat_tables(held) if held else parquet.schema_arrow.empty_table()
            piece = _piece(file, start, stop, stop == num_rows)
            yield piece, *_documents(file, table, np.arange(start, stop), [], settings)


def _require_text_columns(names: list[str], file: InputFile, settings: ReadSettings) -> None:
    for key, column in zip(("text_column", "text_pair_column"), settings.input.text_columns, strict=False):
        if column not in names:
            raise UserError(f"input.{key}: {file.path} has no column {column!r}; it has {', '.join(names)}")


def check_columns(columns: list[str], path: str, output: OutputConfig) -> None:
    """Raises UserError when one of the input's `columns` that are kept has the name of a column that labeling adds."""
    kept = output.input_columns()
    for key, name in output.added_columns().items():
        if name in columns and (kept is None or name in kept):
            raise UserError(
                f"output.{key}: the input has a column {name!r} of its own ({path}); set output.{key} to another name,"
                f" or leave that column out by output.columns"
            )


def _documents(
    file: InputFile, table: pa.Table, rows: np.ndarray, bad: list[parsing.BadRecord], settings: ReadSettings
) -> tuple[pa.Table, list[Reject]]:
    """Adds source_file and source_row, and separates what has no usable text."""
    names, text_columns = settings.output, settings.input.text_columns
    for column in text_columns:
        if column not in table.column_names:  # no row of this block gave one
            table = table.append_column(column, pa.nulls(table.num_rows, pa.string()))
    keep, rejects = np.ones(table.num_rows, bool), [Reject(file.path, at.row, at.reason, at.detail) for at in bad]
    for column in text_columns:
        rejects += _unusable(table, column, keep, rows, file.path, settings.input)
    kept = names.input_columns()
    if kept is not None:
        table = table.select([name for name in table.column_names if name in kept or name in text_columns])
    check_columns(table.column_names, file.path, names)
    table = pa.table([_without_views(column) for column in table.columns], names=table.column_names)
    table = table.append_column(names.source_file_column, pa.repeat(pa.scalar(file.path), table.num_rows))
    table = table.append_column(names.source_row_column, pa.array(rows, pa.int64()))
    if not keep.all():
        table = table.filter(pa.array(keep))
    if file.format == "text":  # its bytes are the text; the bytes of a Parquet column stay bytes
        (text_column,) = text_columns
        index = table.schema.get_field_index(text_column)
        table = table.set_column(index, text_column, decode_texts(table.column(text_column))[0].cast(pa.string()))
    return table.replace_schema_metadata(None), sorted(rejects, key=lambda reject: reject.source_row)


def _unusable(table: pa.Table, name: str, keep: np.ndarray, rows: np.ndarray, path: str, config: InputConfig) -> list[Reject]:
    """A reject for each row of `keep` (bool, per row) whose text in that column cannot be labeled; takes it out of `keep`."""
    column, rejects = table.column(name), list[Reject]()
    which = f"{name}: " if config.text_pair_column is not None else ""

    def reject(bad: np.ndarray, reason: str, detail) -> None:
        for index in np.flatnonzero(bad & keep):
            words = which + detail(int(index))
            rejects.append(Reject(path, int(rows[index]), reason, words[:MAX_DETAIL_CHARACTERS]))
        keep[bad] = False

    if not is_text_type(column.type):
        reject(np.ones(len(column), bool), "not_a_string", lambda index: f"{column.type}: {column[index].as_py()!r}")
        return rejects
    reject(column.is_null().to_numpy(), "null_text", lambda index: "the text is null or missing")
    decoded, errors = decode_texts(column)
    reject(np.array([error is not None for error in errors]) if errors else ~keep, "undecodable", lambda i: str(errors[i]))
    min_characters = config.min_characters if name == config.text_column else 0
    if min_characters and len(column):
        lengths = pc.fill_null(pc.utf8_length(pc.utf8_trim_whitespace(decoded)), 0).to_numpy()
        reject(lengths < min_characters, "too_short", lambda index: f"{lengths[index]} characters")
    return rejects


def _without_views(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A view column as its plain type: Arrow cannot filter views."""
    plain = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    return column.cast(plain[column.type]) if column.type in plain else column
