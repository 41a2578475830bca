"""Spans of input files -> pieces -> units, in bounded memory.

Columns in: whatever the files hold. Columns out: as documents.to_documents. Units follow from the files' bytes and the settings
alone, so a repeated read yields the same units. One task reads a file from front to back (row groups excepted): row numbers are
then known without a pass of their own, and a compressed stream is decompressed once.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.line_formats import json_lines, line_records, parsing
from pipeline_ops.line_formats.csv_header import check_header_names, csv_header
from pipeline_ops.line_formats.csv_syntax import csv_syntax
from pipeline_ops.line_formats.decoding import LineStream, open_lines
from pipeline_ops.line_formats.first_bytes import check_no_pointer_file
from pipeline_ops.line_formats.json_types import check_nesting, json_type
from pipeline_ops.reading.documents import to_documents
from pipeline_ops.reading.spans import PieceContent, ReadSettings, Span, span_fields
from pipeline_ops.row_formats.parquet_files import (
    current_names,
    intersect_ranges,
    read_rows,
    selected_bytes,
    split_row_groups,
)
from pipeline_ops.row_formats.plain_types import plain_schema
from pipeline_ops.row_formats.row_files import ROW_FORMATS, RowBlock, open_row_file
from pipeline_ops.schema.errors import UserError, names_shown
from pipeline_ops.schema.failures import MAX_TRIES, Attempts, Failure, failure_of, worker_died
from pipeline_ops.schema.units import END_OF_FILE, Piece, Range, Reject, Unit, short_id
from pipeline_ops.storage.paths import is_local

PREFETCHED_FILES = 256  # spans whose small objects are fetched side by side, so that not each costs a round trip
PREFETCHED_BYTES = 4 * 2**20  # size up to which an object is such a small one
SINGLE_REQUEST_BYTES = 32 * 2**20  # size up to which an object that is read from end to end is fetched by one request


def read_units(
    spans: list[Span], settings: ReadSettings, attempts: Attempts | None = None
) -> Iterator[tuple[Unit, pa.Table, list[Reject]] | Failure]:
    """Units of `settings.unit_sizes`, about: consecutive pieces are joined while they fit and their schemas are equal.

    The rest of a file that cannot be read comes as a Failure, and reading continues with the next file. Repeated reads give the
    same units.

    Args:
        attempts: given if an earlier process has died while it read these spans; a file that has killed MAX_TRIES processes
            becomes a Failure.
    """
    replaces = {span.file.path: span.replaces for span in spans}
    pending: list[PieceContent] = []
    size = 0
    for part in read_pieces(spans, settings, attempts):
        if isinstance(part, Failure):
            if pending:
                yield _take_unit(pending, settings.fingerprint, replaces)
            size = 0
            yield part
            continue
        if pending and not _belongs_to(part, pending, size, settings):
            yield _take_unit(pending, settings.fingerprint, replaces)
            size = 0
        pending.append(part)
        size += part.documents.nbytes
        del part  # which the loop would hold while the next piece is read
    if pending:
        yield _take_unit(pending, settings.fingerprint, replaces)


def _belongs_to(part: PieceContent, pending: list[PieceContent], size: int, settings: ReadSettings) -> bool:
    """Whether a piece shall be in the unit of those before it, whose documents have `size` bytes."""
    table, limit = part.documents, pending[0].unit_bytes
    if limit < settings.unit_bytes and pending[-1].piece.path == part.piece.path:
        return False  # cut to be a unit of its own, by the size of what is read, of which the documents may be a small part
    other = table.num_rows > 0 and any(held.documents.num_rows and held.documents.schema != table.schema for held in pending)
    return size + table.nbytes <= limit and not other


def _take_unit(
    parts: list[PieceContent], fingerprint: str, replaces: dict[str, tuple[str, ...]]
) -> tuple[Unit, pa.Table, list[Reject]]:
    """The unit of `parts`, which is cleared: whoever gets the unit decides how long its documents are held."""
    pieces = tuple(part.piece for part in parts)
    replaced = tuple(sorted({name for piece in pieces for name in replaces[piece.path]}))
    identity = [fingerprint, *((p.path, p.identity, p.start_row, p.stop_row) for p in pieces), *replaced]
    rejects = [reject for part in parts for reject in part.rejects]
    tables = [part.documents for part in parts if part.documents.num_rows] or [parts[0].documents]
    parts.clear()
    return Unit(short_id(identity), pieces, replaced), pa.concat_tables(tables), rejects


def read_pieces(
    spans: list[Span], settings: ReadSettings, attempts: Attempts | None = None
) -> Iterator[PieceContent | Failure]:
    """The spans' pieces in order, and a Failure for the rest of a file that cannot be read; see read_units."""
    for span, content in _with_contents(spans, settings):
        key = at = f"read {short_id(span_fields(span))}"
        done: list[Piece] = []
        try:
            if isinstance(content, Exception):
                raise content
            parts = _read_span(span, content, settings)
            while True:
                at = f"{key} {len(done)}"
                if attempts and attempts.begin(at) >= MAX_TRIES:
                    yield worker_died(_unread_pieces(span, done), "read")
                    break  # without attempts.end: the next process, if another file kills this one, gives it up as well
                part = next(parts, None)
                if attempts:  # before the yield: a process that dies while it is suspended there did not die of this piece
                    attempts.end(at)
                if part is None:
                    break
                done.append(part.piece)
                yield part
                del part  # its documents are not held while the next ones are read
        except Exception as error:  # a broken file can make the parsers raise anything
            if attempts:
                attempts.end(at)
            error.add_note(f"while reading {span.file.path}")
            yield failure_of(error, _unread_pieces(span, done), "read")


def _read_span(span: Span, content: bytes | None, settings: ReadSettings) -> Iterator[PieceContent]:
    if span.file.format == "parquet":
        check_no_pointer_file(span.file, settings.store, content)
        yield from _read_parquet(span, content, settings)
    elif span.file.format in ROW_FORMATS:
        yield from _read_row_file(span, content, settings)
    elif span.file.format == "text" and settings.input.text_unit == "file":
        yield _read_text_file(span, content, settings)
    else:
        yield from _read_line_file(span, content, settings)


def _unread_pieces(span: Span, done: list[Piece]) -> tuple[Piece, ...]:
    """The part of a span behind the pieces that have been read, which are `done`, in order."""
    row, byte = (done[-1].stop_row, done[-1].stop_byte) if done else (0, 0)
    rest: list[Piece] = []
    for gap in span.ranges:
        stop_row, stop_byte = (END_OF_FILE, END_OF_FILE) if gap.stop_row is None else (gap.stop_row, gap.stop_byte or 0)
        if stop_row > row or not done:
            start = (row, byte) if row > gap.start_row else (gap.start_row, gap.start_byte)
            rest.append(_piece(span.file, start[0], stop_row, gap.stop_row is None, start[1], stop_byte))
    return tuple(rest)


def _with_contents(spans: list[Span], settings: ReadSettings) -> Iterator[tuple[Span, bytes | Exception | None]]:
    """Each span with its file's content, or the error of fetching it; None for a file that is not fetched whole.

    Small objects are fetched side by side and cost one round trip together. Whole objects are verified by length and etag,
    which is not possible for ranges.
    """
    for start in range(0, len(spans), PREFETCHED_FILES):
        batch = [span.file.stored for span in spans[start : start + PREFETCHED_FILES]]
        small = [file for file in batch if not is_local(file.path) and file.size <= PREFETCHED_BYTES]
        fetched = {file.path: content for file, content in zip(small, settings.store.try_read_files(small), strict=True)}
        for span in spans[start : start + PREFETCHED_FILES]:
            if span.file.path in fetched:
                yield span, fetched.pop(span.file.path)
            elif _is_read_whole(span, settings):
                yield span, settings.store.try_read_files([span.file.stored])[0]
            else:
                yield span, None


def _is_read_whole(span: Span, settings: ReadSettings) -> bool:
    """True if the span needs nearly all bytes of a remote file, and they fit into memory beside a unit."""
    stored = span.file.stored
    some_columns = span.file.format == "parquet" and settings.output.input_columns() is not None
    some_rows = span.ranges != (Range(0, None),)
    return not is_local(stored.path) and stored.size <= SINGLE_REQUEST_BYTES and not some_columns and not some_rows


def _read_line_file(span: Span, content: bytes | None, settings: ReadSettings) -> Iterator[PieceContent]:
    file, config = span.file, settings.input
    header, header_bytes = csv_header(file, config, settings.store, content) if file.format == "csv" else ([], 0)
    if header:
        check_header_names(header, file)
        _require_text_columns(header, file, settings)
    for number, gap in enumerate(span.ranges):
        start_byte = max(gap.start_byte, header_bytes)
        behind = span.behind + sum(
            (later.stop_byte or file.stored.size) - later.start_byte for later in span.ranges[number + 1 :]
        )
        piece = None
        with open_lines(file, config, settings.store, start_byte, content) as stream:

            def unit_bytes(position: int, gap: Range = gap, stream: LineStream = stream, behind: int = behind) -> int:
                left = stream.bytes_left(position) if gap.stop_byte is None else gap.stop_byte - position
                return settings.unit_sizes.at(left + behind)

            for block in line_records.read_record_blocks(
                stream,
                target_bytes=unit_bytes,
                syntax=csv_syntax(file, config),
                start_row=gap.start_row,
                start_byte=start_byte,
                stop_byte=gap.stop_byte,
            ):
                if block.last and stream.is_plain and stream.tell_stored() != file.stored.size:
                    raise OSError(f"{stream.tell_stored()} bytes read, {file.stored.size} listed; it changed meanwhile")
                piece = _piece(
                    file,
                    block.start_row,
                    block.start_row + block.num_rows,
                    block.last,
                    block.start_byte,
                    block.stop_byte,
                )
                parsed = PieceContent(piece, *parse_block(file, block, header, settings), unit_bytes(block.start_byte))
                del block  # the bytes are not held while the documents are handed on
                yield parsed
                del parsed  # and these not while the next ones are read
        if piece is None and gap.stop_row is None:  # no records: an empty piece completes the file
            piece = _piece(file, gap.start_row, gap.start_row, True, start_byte, start_byte)
            table, rejects = _documents(file, pa.table({}), np.empty(0, np.int64), [], settings)
            yield PieceContent(piece, table, rejects, settings.unit_sizes.at(behind))


def parse_block(
    file: InputFile, block: line_records.RecordBlock, header: list[str], settings: ReadSettings
) -> tuple[pa.Table, list[Reject]]:
    """The documents and rejects in a block of a line file.

    Args:
        header: a CSV file's column names; see csv_header.
    """
    return _documents(file, *_parse(block, file, header, settings), settings)


def _documents(
    file: InputFile, table: pa.Table, rows: np.ndarray, bad: list[parsing.BadRecord], settings: ReadSettings
) -> tuple[pa.Table, list[Reject]]:
    return to_documents(file, table, rows, bad, settings.input, settings.output, settings.column_types)


def _piece(file: InputFile, start_row: int, stop_row: int, last: bool, start_byte: int = 0, stop_byte: int = 0) -> Piece:
    return Piece(file.path, file.stored.identity, start_row, stop_row, last, start_byte, stop_byte)


def _parse(block: line_records.RecordBlock, file: InputFile, header: list[str], settings: ReadSettings):
    config = settings.input
    if file.format == "text":
        return parsing.parse_text(block, config.text_column)
    if (syntax := csv_syntax(file, config)) is not None:
        return parsing.parse_csv(block, header, syntax)
    wanted, kept = settings.column_types, settings.output.input_columns()
    if kept is not None:
        wanted = pa.schema([field for field in wanted if field.name in (*kept, *config.text_columns)])
    others = [field.with_type(json_type(field.type)) for field in wanted if field.name not in config.text_columns]
    wanted = pa.schema([*others, *(pa.field(column, pa.string()) for column in config.text_columns)])
    return json_lines.parse_jsonl(block, wanted, text_columns=config.text_columns, only_schema=kept is not None)


def _read_text_file(span: Span, content: bytes | None, settings: ReadSettings) -> PieceContent:
    file = span.file
    with open_lines(file, settings.input, settings.store, 0, content) as stream:
        data = stream.read().removeprefix(line_records.BYTE_ORDER_MARK)
        stream.read(1)  # raises where the file is cut: its beginning is another document
    table = pa.table({settings.input.text_column: pa.array([data], pa.large_binary())})
    table, rejects = _documents(file, table, np.zeros(1, np.int64), [], settings)
    return PieceContent(_piece(file, 0, 1, True), table, rejects, settings.unit_sizes.at(len(data) + span.behind))


def _read_parquet(span: Span, content: bytes | None, settings: ReadSettings) -> Iterator[PieceContent]:
    file = span.file
    source = settings.store.open(file.stored, sequential=False) if content is None else pa.BufferReader(content)
    with source as opened:
        parquet = pq.ParquetFile(opened, page_checksum_verification=True)
        num_rows, names = parquet.metadata.num_rows, current_names(parquet.schema_arrow, file)
        check_header_names(parquet.schema_arrow.names, file)
        _require_text_columns([*names.values()], file, settings)
        check_nesting(parquet.schema_arrow)
        kept = settings.output.input_columns()
        wanted = {*names.values()} if kept is None else {*kept, *settings.input.text_columns}
        columns = [own for own, name in names.items() if name in wanted] or [*names][:1]  # a table without columns has no rows
        if len(columns) == len(parquet.schema_arrow):
            columns = None
        # split again: a file that is small on disk can be large in memory
        cuts = [cut for group in split_row_groups(parquet.metadata, columns, settings.unit_bytes) for cut in group]
        ranges = [(part.start_row, part.stop_row or 0) for part in intersect_ranges(cuts, span.ranges, num_rows)]
        row_bytes = selected_bytes(parquet.metadata, columns) / max(num_rows, 1)
        units = [*_cut_ranges(ranges, row_bytes, span.behind, settings)]
        # one pass over all ranges: they may share a row group, which is decoded from its start
        tables = read_rows(parquet, opened, columns, ranges[0][0], ranges[-1][1])
        row, ahead = ranges[0][0], pa.table({})
        for start, stop, unit_bytes in units:
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
            table = pa.concat_tables(held) if held else plain_schema(parquet.schema_arrow).empty_table().select([*names])
            table = table.rename_columns([names[own] for own in table.column_names])
            piece = _piece(file, start, stop, stop == num_rows)
            yield PieceContent(piece, *_documents(file, table, np.arange(start, stop), [], settings), unit_bytes)
            del table, held


def _cut_ranges(
    ranges: list[tuple[int, int]], row_bytes: float, behind: int, settings: ReadSettings
) -> Iterator[tuple[int, int, int]]:
    """As UnitSizes.cut_rows, of ranges that are read one after the other."""
    left = sum(stop - start for start, stop in ranges)
    for start, stop in ranges:
        left -= stop - start
        yield from settings.unit_sizes.cut_rows(start, stop, row_bytes, left * row_bytes + behind)


def _read_row_file(span: Span, content: bytes | None, settings: ReadSettings) -> Iterator[PieceContent]:
    file = span.file
    with open_row_file(file, settings.store, content) as source:
        _require_text_columns(source.schema.names, file, settings)
        columns = wanted_columns(settings)
        for gap in span.ranges:
            for block in source.read_blocks(gap, settings.unit_bytes, columns):
                rows = max(block.stop_row - block.start_row, 1)
                begin, end = block.stored
                # what is stored behind the block is as dense as the block, about
                behind = (file.stored.size - end) * block.table.nbytes / max(end - begin, 1) + span.behind
                row_bytes = block.table.nbytes / rows
                for start, stop, unit_bytes in settings.unit_sizes.cut_rows(block.start_row, block.stop_row, row_bytes, behind):
                    part = block if (start, stop) == (block.start_row, block.stop_row) else block.slice(start, stop)
                    piece = _piece(file, part.start_row, part.stop_row, part.last)
                    yield PieceContent(piece, *documents_of_rows(file, part, settings), unit_bytes)
                    del part
                del block


def wanted_columns(settings: ReadSettings) -> tuple[str, ...] | None:
    """The input's columns that are read; None: all."""
    kept = settings.output.input_columns()
    return None if kept is None else (*kept, *settings.input.text_columns)


def documents_of_rows(file: InputFile, block: RowBlock, settings: ReadSettings) -> tuple[pa.Table, list[Reject]]:
    """The documents and rejects in a block of a file of typed rows."""
    table, rows = block.table, np.arange(block.start_row, block.stop_row)
    if block.bad:
        good = np.isin(rows, [record.row for record in block.bad], invert=True)
        table, rows = table.filter(pa.array(good)), rows[good]
    return _documents(file, table, rows, [*block.bad], settings)


def _require_text_columns(names: list[str], file: InputFile, settings: ReadSettings) -> None:
    for key, column in zip(("text_column", "text_pair_column"), settings.input.text_columns, strict=False):
        if column not in names and column not in dict(file.columns):
            raise UserError(f"input.{key}: {file.path} has no column {column!r}; it has {names_shown(names)}")
