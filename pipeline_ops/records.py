"""Line formats: bytes -> blocks of whole records -> Arrow tables, with every record accounted for.

Text, JSON Lines and CSV are cut at b"\\n" only (a b"\\r" before it is dropped); str.splitlines would also cut at U+2028, U+0085
and form feeds. A block that does not parse is halved until the records that cannot be parsed stand alone: those become rejects.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json

from pipeline_ops.schema import MAX_DETAIL_CHARACTERS
from pipeline_ops.storage import StorageConfig, open_to_read

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
READ_BYTES = 4 * 2**20
MAX_RECORD_BYTES = 512 * 2**20  # a record that never ends is a stray CSV quote, not a document
MAX_BLOCK_RECORDS = 250_000  # 32 MiB of two-byte lines would be 16 million documents in one unit


@dataclass(frozen=True)
class RecordBlock:
    """Consecutive whole records of a stream. Offsets are into the decompressed stream."""

    data: bytes
    start_row: int
    num_rows: int
    start_byte: int
    last: bool  # the stream ends here

    @property
    def stop_byte(self) -> int:
        return self.start_byte + len(self.data)


@dataclass(frozen=True)
class BadRecord:
    """A record that does not parse: its row in the file, a reason of schema.REASONS, and the parser's words."""

    row: int
    reason: str
    detail: str


@contextmanager
def open_decompressed(
    path: str, compression: str | None, storage: StorageConfig, start_byte: int = 0, content: bytes | None = None
) -> Iterator[BinaryIO]:
    """A readable stream of the decompressed bytes from `start_byte` on; `content` when the file has been fetched already.

    A compressed stream is decompressed up to `start_byte`, in bounded memory; another one seeks. Several concatenated members
    or frames read as one stream.
    """
    with pa.BufferReader(content) if content is not None else open_to_read(path, storage, sequential=True) as raw:
        if compression is None:
            raw.seek(start_byte)
            yield raw
            return
        with pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), compression) as stream:
            while start_byte > 0:
                skipped = stream.read(min(start_byte, READ_BYTES))
                if not skipped:
                    raise OSError(f"{path}: ends before the position that an earlier run recorded; it changed meanwhile")
                start_byte -= len(skipped)
            yield stream


def cut_records(
    stream: BinaryIO,
    *,
    target_bytes: int,
    quote: str | None,
    start_row: int = 0,
    start_byte: int = 0,
    stop_byte: int | None = None,
) -> Iterator[RecordBlock]:
    """Blocks of whole records, each the most that fits `target_bytes`, but at least one record.

    The cuts depend on the bytes and the arguments alone, not on how the stream delivers them.

    Args:
        quote: CSV's quote character: a newline inside quotes does not end a record. None: every newline does.
        stop_byte: where to stop, at the end of a record; None: at the end of the stream.

    Raises:
        OSError: a record is longer than MAX_RECORD_BYTES.
    """
    buffer = bytearray()
    row, position, at_end = start_row, start_byte, False
    need = target_bytes
    while True:
        while len(buffer) < need and not at_end:
            left = READ_BYTES if stop_byte is None else min(READ_BYTES, stop_byte - position - len(buffer))
            chunk = stream.read(left) if left > 0 else b""
            at_end = not chunk
            buffer += chunk
        if not buffer:
            return
        ends = _record_ends(buffer, quote)
        if at_end and (len(ends) == 0 or ends[-1] != len(buffer)):
            ends = np.append(ends, len(buffer))  # the last record needs no newline
        # an unfinished record is decided only when more has been read
        taken = max(int(np.searchsorted(ends, target_bytes, side="right")), 1)
        taken = min(taken, MAX_BLOCK_RECORDS)
        if len(ends) < taken:
            if len(buffer) > MAX_RECORD_BYTES:
                raise OSError(f"a record that begins at byte {position} has no end within {MAX_RECORD_BYTES} bytes")
            need = len(buffer) * 2
            continue
        cut = int(ends[taken - 1])
        if cut == len(buffer) and not at_end:  # whether this block is the last one takes one more look
            need = cut + 1
            chunk = stream.read(READ_BYTES if stop_byte is None else min(READ_BYTES, stop_byte - position - cut))
            at_end = not chunk
            buffer += chunk
            continue
        data = bytes(buffer[:cut])
        del buffer[:cut]
        yield RecordBlock(data, row, taken, position, last=at_end and not buffer and stop_byte is None)
        row, position, need = row + taken, position + cut, target_bytes


def _record_ends(data: bytes | bytearray, quote: str | None) -> np.ndarray:
    """Offsets behind each newline that ends a record: those with an even number of quotes before them."""
    characters = np.frombuffer(bytes(data), np.uint8)
    newlines = np.flatnonzero(characters == ord("\n"))
    if quote is not None:
        quotes = np.flatnonzero(characters == ord(quote))
        if len(quotes):
            newlines = newlines[np.searchsorted(quotes, newlines) % 2 == 0]
    return newlines + 1


def split_records(block: RecordBlock, quote: str | None) -> list[bytes]:
    """The block's records, without their line ends."""
    if quote is None or quote.encode() not in block.data:
        lines = block.data.split(b"\n")
        if not lines[-1]:
            lines.pop()
    else:
        ends = [*_record_ends(block.data, quote)]
        if not ends or ends[-1] != len(block.data):
            ends.append(len(block.data))
        starts = [0, *ends[:-1]]
        lines = [block.data[start:end].removesuffix(b"\n") for start, end in zip(starts, ends, strict=True)]
    return [line.removesuffix(b"\r") for line in lines]


def parse_text(block: RecordBlock, column: str) -> tuple[pa.Table, np.ndarray, list[BadRecord]]:
    """A document per line, blank ones too. Returns (table of bytes, rows, no bad records)."""
    lines = split_records(block, None)
    if block.start_byte == 0 and lines:
        lines[0] = lines[0].removeprefix(BYTE_ORDER_MARK)
    rows = np.arange(block.start_row, block.start_row + len(lines))
    return pa.table({column: pa.array(lines, pa.binary())}), rows, []


def parse_jsonl(
    block: RecordBlock,
    schema: pa.Schema,
    *,
    text_column: str,
    only_schema: bool,
    plain_type: Callable[[pa.DataType], pa.DataType],
) -> tuple[pa.Table, np.ndarray, list[BadRecord]]:
    """A document per non-blank line.

    Args:
        schema: the columns' types; a line whose value does not fit is a bad record.
        text_column: the column that is labelled.
        only_schema: leave other columns out; otherwise they are added with the types JSON gives them.
        plain_type: maps an inferred type to the one to use (Arrow takes text that looks like a date for one).

    Returns:
        (table, each row's number in the file as int64, bad records).
    """

    def parse(lines: list[bytes]) -> pa.Table:
        data = b"\n".join(lines)
        table = _read_json(data, schema, only_schema)
        plain = pa.schema([field.with_type(plain_type(field.type)) for field in table.schema])
        if not only_schema and plain != table.schema:
            known = [field for field in plain if field.name not in schema.names]
            table = _read_json(data, pa.schema([*schema, *known]), only_schema)
        return pa.table([_without_empty_objects(column) for column in table.columns], names=table.column_names)

    def reason(line: bytes, error: Exception) -> tuple[str, str]:
        try:
            document = json.loads(line.decode())
        except UnicodeDecodeError as undecodable:
            return "undecodable", str(undecodable)
        except ValueError as broken:
            return "broken_json", str(broken)
        if not isinstance(document, dict):
            return "broken_json", f"a JSON {type(document).__name__}, not an object"
        if not isinstance(document.get(text_column, ""), str | None):
            return "not_a_string", f"{document[text_column]!r}"
        return "column_type", str(error)

    lines = split_records(block, None)
    if block.start_byte == 0 and lines:
        lines[0] = lines[0].removeprefix(BYTE_ORDER_MARK)
    return _parse_records(lines, block.start_row, parse, reason)


def _read_json(data: bytes, schema: pa.Schema, only_schema: bool) -> pa.Table:
    return pyarrow.json.read_json(
        pa.BufferReader(data),
        read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(data) + 1),  # one block: one set of types
        parse_options=pyarrow.json.ParseOptions(
            explicit_schema=schema, unexpected_field_behavior="ignore" if only_schema else "infer"
        ),
    )


def _without_empty_objects(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """`column` with the text "{}" for objects that never have a key, at any depth: Parquet has no type for them."""

    def convert(array: pa.Array) -> pa.Array:
        if pa.types.is_struct(array.type) and not array.type.num_fields:
            return pc.if_else(array.is_valid(), "{}", pa.scalar(None, pa.string()))
        if pa.types.is_struct(array.type):
            fields = [convert(array.field(index)) for index in range(array.type.num_fields)]
            names = [field.name for field in array.type]
            return pa.StructArray.from_arrays(fields, names, mask=array.is_null())
        if pa.types.is_list(array.type):
            return pa.ListArray.from_arrays(array.offsets, convert(array.values), mask=array.is_null())
        return array

    return (
        pa.chunked_array([convert(chunk) for chunk in column.chunks], type=None) if _has_empty_objects(column.type) else column
    )


def _has_empty_objects(data_type: pa.DataType) -> bool:
    if pa.types.is_struct(data_type):
        return not data_type.num_fields or any(_has_empty_objects(field.type) for field in data_type)
    return pa.types.is_list(data_type) and _has_empty_objects(data_type.value_type)


def parse_csv(
    block: RecordBlock, header: list[str], delimiter: str, quote: str | None, types: dict[str, pa.DataType]
) -> tuple[pa.Table, np.ndarray, list[BadRecord]]:
    """A document per non-blank record. Values are text as they stand, also "", "NA" and "000", unless `types` says otherwise.

    Returns:
        (table, each row's number behind the header as int64, bad records).
    """

    def parse(lines: list[bytes]) -> pa.Table:
        data = b"\n".join(lines) + b"\n"
        return pyarrow.csv.read_csv(
            pa.BufferReader(data),
            read_options=pyarrow.csv.ReadOptions(column_names=header, use_threads=False, block_size=len(data) + 1),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=delimiter, quote_char=quote or False, newlines_in_values=True, ignore_empty_lines=False
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={name: types.get(name, pa.string()) for name in header}, strings_can_be_null=False
            ),
        )

    def reason(line: bytes, error: Exception) -> tuple[str, str]:
        try:
            line.decode()
        except UnicodeDecodeError as undecodable:
            return "undecodable", str(undecodable)
        if len(csv_fields(line, delimiter, quote)) != len(header):
            return "broken_csv", str(error)
        return "column_type", str(error)

    return _parse_records(split_records(block, quote), block.start_row, parse, reason)


def csv_fields(record: bytes, delimiter: str, quote: str | None) -> list[str]:
    """The fields of one CSV record, undecodable bytes replaced."""
    text = record.removeprefix(BYTE_ORDER_MARK).decode(errors="replace").rstrip("\r\n")
    quoting = csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE
    return next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quotechar=quote, quoting=quoting), [])


def _parse_records(lines: list[bytes], start_row: int, parse, reason) -> tuple[pa.Table, np.ndarray, list[BadRecord]]:
    """Parses the non-blank lines together; halves what fails until the lines at fault stand alone."""
    rows = np.array([start_row + index for index, line in enumerate(lines) if line.strip()], np.int64)
    lines = [line for line in lines if line.strip()]
    bad: list[BadRecord] = []

    def parse_range(start: int, stop: int) -> list[tuple[int, int, pa.Table]]:
        try:
            table = parse(lines[start:stop])
            table.validate(full=True)  # the parsers do not look at the encoding
            if table.num_rows != stop - start:
                raise pa.ArrowInvalid(f"{table.num_rows} values where one was expected")
            return [(start, stop, table)]
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            if stop - start == 1:
                why, detail = reason(lines[start], error)
                bad.append(BadRecord(int(rows[start]), why, detail[:MAX_DETAIL_CHARACTERS]))
                return []
            middle = (start + stop) // 2
            return parse_range(start, middle) + parse_range(middle, stop)

    parts = parse_range(0, len(lines)) if lines else []
    if not parts:
        return pa.table({}), np.empty(0, np.int64), bad
    table = pa.concat_tables([part for _, _, part in parts], promote_options="permissive")
    return table, np.concatenate([rows[start:stop] for start, stop, _ in parts]), bad
