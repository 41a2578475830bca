"""Avro object container files: their blocks are framed and decompressed here, and their records parsed by fastavro.

The codecs are Arrow's and Python's, so that no further package is needed, and a file that ends within a block is never
taken for one that ends behind it. fastavro is given blocks as small files of their own, whose schema has no logical types
(as_stored): Arrow takes the stored values of dates, times and timestamps as they are, of any year.
"""

import bz2
import io
import lzma
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO, cast

import pyarrow as pa

from pipeline_ops.line_formats.line_records import MAX_RECORD_BYTES
from pipeline_ops.line_formats.parsing import BadRecord
from pipeline_ops.row_formats.avro_types import Convert, as_stored, columns_of, union_array
from pipeline_ops.row_formats.row_batches import RowBatch, Source
from pipeline_ops.schema.bisection import bisect_failures
from pipeline_ops.schema.errors import UserError

SYNC_BYTES = 16
BATCH_BYTES, BATCH_RECORDS = 2**20, 4096  # decompressed: blocks that are parsed together


@dataclass(frozen=True)
class Header:
    """What the beginning of a file says."""

    columns: dict[str, tuple[pa.DataType, Convert]]
    codec: str
    sync: bytes  # behind each block
    begin: int  # of the first block
    plain: bytes  # a header for blocks that are not compressed, as as_stored


@dataclass(frozen=True)
class Block:
    """Some records.

    Attributes:
        records: how many.
        data: decompressed.
    """

    records: int
    data: bytes


def read_schema(source: Source) -> pa.Schema:
    """The columns of an Avro file, by columns_of.

    Raises:
        ValueError: the header is damaged, or the schema is no record.
        UserError: fastavro is not installed.
    """
    return pa.schema([(name, data_type) for name, (data_type, _) in _read_header(source).columns.items()])


def read_batches(source: Source, columns: Sequence[str] | None, start_row: int) -> Iterator[RowBatch]:
    """The records of one or more blocks, as RowFormat.read_batches; one with a string that is not UTF-8 is a bad row.

    Raises:
        Exception: whatever the codec, or fastavro, raises for a block that is damaged.
    """
    header = _read_header(source)
    wanted = {name: typed for name, typed in header.columns.items() if columns is None or name in columns}
    for row, blocks, stored in _read_groups(source, header, start_row):
        try:
            parsed = [_parse(header, blocks)]
        except Exception:  # again, up to the block that is damaged
            parsed = (_parse(header, [block]) for block in blocks)
        for records in parsed:
            table, bad = _to_table(records, wanted, row)
            yield RowBatch(row, table, stored, bad)
            row += table.num_rows


def _read_groups(source: Source, header: Header, start_row: int) -> Iterator[tuple[int, list[Block], tuple[int, int]]]:
    """(the first row, blocks, the bytes of the file that hold them), from a block at or before `start_row` on."""
    row, held, stored = 0, list[Block](), header.begin
    try:
        for block in _read_blocks(source, header):
            if not held and row + block.records <= start_row:
                row, stored = row + block.records, source.tell()
                continue
            held.append(replace(block, data=_decompressed(block, header.codec)))
            records = sum(block.records for block in held)
            if records >= BATCH_RECORDS or sum(len(block.data) for block in held) >= BATCH_BYTES:
                yield row, held, (stored, source.tell())
                row, held, stored = row + records, [], source.tell()
    except Exception:
        if held:
            yield row, held, (stored, source.tell())
        raise
    if held:
        yield row, held, (stored, source.tell())


def _read_header(source: Source) -> Header:
    try:
        import fastavro
    except ModuleNotFoundError as error:
        raise UserError(
            "input.path: Avro files need a package that is not installed: pip install 'label-corpus[avro]'"
        ) from error
    source.seek(0)
    reader = fastavro.reader(cast(BinaryIO, source))  # reads the header alone
    begin = source.tell()
    sync = source.read_at(begin - SYNC_BYTES, SYNC_BYTES)
    plain = io.BytesIO()
    fastavro.writer(plain, as_stored(reader.writer_schema), [], sync_marker=sync)
    return Header(columns_of(reader.writer_schema), reader.metadata.get("avro.codec", "null"), sync, begin, plain.getvalue())


def _read_blocks(source: Source, header: Header) -> Iterator[Block]:
    """The blocks, not decompressed. A file that ends behind one is whole: Avro has no end that could be missing."""
    source.seek(header.begin)
    while source.tell() < source.size:
        records, size = _read_long(source), _read_long(source)
        if records < 0 or not 0 <= size <= MAX_RECORD_BYTES:
            raise OSError(f"a block of {records} records in {size} bytes; at most {MAX_RECORD_BYTES} bytes are read")
        data = source.read(size)
        sync = source.read(SYNC_BYTES)
        if len(data) < size or len(sync) < SYNC_BYTES:
            raise OSError(f"the last block is cut: {len(data)} of its {size} bytes are there")
        if sync != header.sync:
            raise OSError(f"a block of {records} records is damaged: the mark behind it is not the file's")
        yield Block(records, data)


def _read_long(source: Source) -> int:
    value = shift = 0
    while shift < 64:
        byte = source.read(1)
        if not byte:
            raise OSError("the last block is cut")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return (value >> 1) ^ -(value & 1)
        shift += 7
    raise OSError("a block begins with no number")


def _decompressed(block: Block, codec: str) -> bytes:
    """The data of a block; raises an exception of the codec's for damaged data."""
    if codec == "null":
        return block.data
    if codec in ("deflate", "bzip2", "xz"):
        decompressor = {"deflate": partial(zlib.decompressobj, -15), "bzip2": bz2.BZ2Decompressor, "xz": lzma.LZMADecompressor}[
            codec
        ]()
        data = decompressor.decompress(block.data, MAX_RECORD_BYTES + 1)
        _check_size(len(data))
        if not decompressor.eof:
            raise OSError(f"a block of {block.records} records is cut")
        return data
    if codec == "snappy":
        compressed, checksum = block.data[:-4], block.data[-4:]
        size = _snappy_size(compressed)
        data = pa.decompress(compressed, size, "snappy", asbytes=True)
        if zlib.crc32(data) != int.from_bytes(checksum, "big"):
            raise OSError(f"a block of {block.records} records is damaged: its checksum is another one")
        return data
    if codec == "zstandard":
        data = pa.CompressedInputStream(pa.BufferReader(block.data), "zstd").read(MAX_RECORD_BYTES + 1)
        _check_size(len(data))
        return data
    raise ValueError(f"its codec is {codec!r}; null, deflate, bzip2, xz, snappy and zstandard can be read")


def _snappy_size(data: bytes) -> int:
    """The size of the decompressed bytes, which snappy's first five bytes at most hold."""
    size = 0
    for place, byte in enumerate(data[:5]):
        size |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            break
    _check_size(size)
    return size


def _check_size(size: int) -> None:
    if size > MAX_RECORD_BYTES:
        raise OSError(f"a block of {size} bytes or more, decompressed; at most {MAX_RECORD_BYTES} are read")


def _parse(header: Header, blocks: Sequence[Block]) -> list[dict[str, Any]]:
    """The records of blocks; bytes of strings that are not UTF-8 become surrogates (PEP 383)."""
    import fastavro

    count, data = sum(block.records for block in blocks), b"".join(block.data for block in blocks)
    if count > len(data):
        raise OSError(f"a block of {count} records in {len(data)} bytes")
    content = b"".join((header.plain, _long(count), _long(len(data)), data, header.sync))
    return list(fastavro.reader(io.BytesIO(content), handle_unicode_errors="surrogateescape"))  # pyright: ignore


def _long(value: int) -> bytes:
    """A number that is not negative, as Avro writes it."""
    value, encoded = value << 1, bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*encoded, value))


def _to_table(
    records: list[dict[str, Any]], columns: dict[str, tuple[pa.DataType, Convert]], first_row: int
) -> tuple[pa.Table, tuple[BadRecord, ...]]:
    """(a row for each record, of nulls for a bad one; the bad ones)."""
    schema = pa.schema([(name, data_type) for name, (data_type, _) in columns.items()])
    unions = {field.name: field.type for field in schema if pa.types.is_union(field.type)}
    others = pa.schema([field for field in schema if field.name not in unions])
    converts = [(name, convert) for name, (_, convert) in columns.items() if convert is not None]

    def table_of(start: int, stop: int) -> pa.Table:
        rows = records[start:stop]
        for name, convert in converts:
            rows = [row if row[name] is None else {**row, name: convert(row[name])} for row in rows]
        return with_unions(rows, pa.Table.from_pylist(rows, others))

    def with_unions(rows: list[dict[str, Any]], table: pa.Table) -> pa.Table:
        arrays = {name: union_array([row.get(name) for row in rows], data_type) for name, data_type in unions.items()}
        return pa.table([arrays[name] if name in arrays else table.column(name) for name in schema.names], schema)

    parts, failed = bisect_failures(
        table_of,
        len(records),
        lambda error: isinstance(error, UnicodeEncodeError | pa.ArrowException | ArithmeticError),
        may_all_fail=True,
    )
    bad = [
        BadRecord(first_row + index, "undecodable" if isinstance(error, UnicodeEncodeError) else "column_type", _detail(error))
        for index, error in failed.items()
    ]
    tables = {start: table for start, _, table in parts}
    tables |= {index: with_unions([{}], pa.Table.from_pylist([{}], others)) for index in failed}
    return pa.concat_tables([tables[start] for start in sorted(tables)] or [schema.empty_table()]), tuple(bad)


def _detail(error: BaseException) -> str:
    if not isinstance(error, UnicodeEncodeError):
        return str(error)
    there = error.object[error.start : error.end].encode("utf-8", "surrogateescape")
    return f"a string has bytes that are not UTF-8: {there!r} at position {error.start}"
