"""WET files, as Common Crawl has them: WARC records of type `conversion`, whose blocks are the texts of web pages.

Rows are the conversion records, counted from 0; `warcinfo` records, about the file, are none. The framing is checked here: the
library that was tried, FastWARC 2.0, takes a record that is cut for a short one, and a wrong Content-Length for another text.
Block digests are not computed: the checksums of gzip cover what they do.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import BinaryIO, cast

import pyarrow as pa

from pipeline_ops.inputs.compression import compression_of, decompressed
from pipeline_ops.line_formats.line_records import MAX_RECORD_BYTES
from pipeline_ops.line_formats.parsing import BadRecord
from pipeline_ops.row_formats.row_batches import RowBatch, Source
from pipeline_ops.schema.streams import Readable

HEADERS = {  # column: header
    "url": "warc-target-uri",
    "date": "warc-date",
    "record_id": "warc-record-id",
    "language": "warc-identified-content-language",  # ISO 639-3, several separated by commas
}
SCHEMA = pa.schema([("text", pa.string()), *((column, pa.string()) for column in HEADERS)])
MAX_HEADER_LINE = 2**16  # bytes
BUFFER_BYTES = 2**16
BATCH_BYTES, BATCH_RECORDS = 2**20, 1024


def read_schema(source: Source) -> pa.Schema:
    """SCHEMA, if the first record is one of a WET file; raises as read_batches."""
    next(_conversions(source), None)
    return SCHEMA


def read_batches(source: Source, columns: Sequence[str] | None, start_row: int) -> Iterator[RowBatch]:
    """The conversion records, as RowFormat.read_batches; a text that is not UTF-8 is a bad row.

    Raises:
        ValueError: there is another kind of record; HTTP responses, for example, are HTML.
        OSError: a record is cut, or its Content-Length is wrong; or the compressed bytes are damaged.
    """
    names = SCHEMA.names if columns is None else columns
    rows: list[dict[str, str | None]] = []
    bad: list[BadRecord] = []
    row, size, stored = 0, 0, 0
    try:
        for headers, block in _conversions(source):
            row += 1
            if row <= start_row:
                stored = source.tell()
                continue
            values = {column: headers.get(header) for column, header in HEADERS.items()}
            try:
                rows.append({"text": block.decode(), **values})
            except UnicodeDecodeError as error:
                rows.append(values)
                bad.append(BadRecord(row - 1, "undecodable", str(error)))
            size += len(block)
            if size >= BATCH_BYTES or len(rows) == BATCH_RECORDS:
                yield _batch(row, rows, bad, names, stored, source.tell())
                rows, bad, size, stored = [], [], 0, source.tell()
    except Exception:
        if rows:
            yield _batch(row, rows, bad, names, stored, source.tell())
        raise
    if rows:
        yield _batch(row, rows, bad, names, stored, source.tell())


def _batch(stop_row: int, rows: list[dict], bad: list[BadRecord], names: Sequence[str], start: int, stop: int) -> RowBatch:
    table = pa.Table.from_pylist(rows, SCHEMA).select([*names])
    return RowBatch(stop_row - len(rows), table, (start, stop), tuple(bad))


def _conversions(source: Source) -> Iterator[tuple[dict[str, str], bytes]]:
    """(headers by their names in lower case, block) of each conversion record."""
    for headers, block in _records(source):
        kind = headers.get("warc-type")
        if kind == "conversion":
            yield headers, block
        elif kind != "warcinfo":
            raise ValueError(
                f"it holds a record of type {kind}, of which only `conversion` is text; give the WET files of the crawl, or"
                f" extract the texts first"
            )


def _records(source: Source) -> Iterator[tuple[dict[str, str], bytes]]:
    source.seek(0)
    compression = compression_of(source.read(BUFFER_BYTES), None)
    source.seek(0)
    with nullcontext(source) if compression is None else decompressed(cast(BinaryIO, source), compression, "it") as decoded:
        stream = io.BufferedReader(_Raw(decoded), BUFFER_BYTES)
        yield from _framed(stream)


def _framed(stream: BinaryIO) -> Iterator[tuple[dict[str, str], bytes]]:
    while (version := stream.readline(MAX_HEADER_LINE)) != b"":
        if not re.fullmatch(rb"WARC/\d\.\d+\r\n", version):
            raise OSError(f"no WARC record begins with {version[:40]!r}")
        headers = _headers(stream)
        length = headers.get("content-length", "")
        if not length.isdecimal() or int(length) > MAX_RECORD_BYTES:
            raise OSError(f"a record with the Content-Length {length!r}; at most {MAX_RECORD_BYTES} bytes are read")
        block = stream.read(int(length))
        if len(block) < int(length):
            raise OSError(f"the last record is cut: {len(block)} of its {length} bytes are there")
        if stream.read(4) != b"\r\n\r\n":
            raise OSError(f"the record {headers.get('warc-record-id')} does not end where its Content-Length says, or is cut")
        yield headers, block


def _headers(stream: BinaryIO) -> dict[str, str]:
    headers, name = dict[str, str](), ""
    while (line := stream.readline(MAX_HEADER_LINE)) != b"\r\n":
        if not line.endswith(b"\r\n"):
            raise OSError(f"a record is cut, or its header broken, at {line[:40]!r}")
        text = line[:-2].decode(errors="replace")
        if text[0] in " \t" and name:  # the line before goes on
            headers[name] += " " + text.strip()
            continue
        name, _, value = text.partition(":")
        name = name.strip().lower()
        headers[name] = value.strip()
    return headers


class _Raw(io.RawIOBase):
    """What BufferedReader reads from."""

    def __init__(self, stream: Readable):
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
