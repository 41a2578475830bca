"""The texts of a file of typed rows as other code than the job's finds them, up to where that cannot read on."""

import io
import zlib
from collections.abc import Iterator
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.orc


def texts_of_rows(data: bytes, file_format: str) -> list[Any]:
    """The value of `text` per row, as bytes or str, of the rows before what cannot be read."""
    found: list[Any] = []
    try:
        for text in READERS[file_format](data):
            found.append(text)
    except Exception:  # a broken file can make the libraries raise anything
        pass
    return found


def _arrow(data: bytes) -> Iterator[Any]:
    start = 8 if data.startswith(b"ARROW1") else 0  # a file is a stream, and a footer that says where its batches are
    for batch in pa.ipc.open_stream(pa.py_buffer(data).slice(start)):
        column = batch.column("text")
        column.validate(full=False)
        yield from column.cast(pa.binary()).to_pylist()


def _orc(data: bytes) -> Iterator[Any]:
    file = pyarrow.orc.ORCFile(pa.BufferReader(data))
    for stripe in range(file.nstripes):
        yield from file.read_stripe(stripe, columns=["text"]).column("text").cast(pa.binary()).to_pylist()


def _avro(data: bytes) -> Iterator[Any]:
    yield from (record["text"] for record in fastavro.reader(io.BytesIO(data)))  # pyright: ignore[reportIndexIssue, reportCallIssue, reportArgumentType]


def _wet(data: bytes) -> Iterator[Any]:
    if data.startswith(b"\x1f\x8b"):
        data = _gunzipped(data)
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in head.split(b"\r\n"))}
        length = int(fields[b"content-length"])
        assert len(rest) >= length
        if fields[b"warc-type"] == b"conversion":
            yield rest[:length]
        data = rest[length:].lstrip(b"\r\n")


def _gunzipped(data: bytes) -> bytes:
    """What can be decompressed."""
    found = b""
    while data:
        member = zlib.decompressobj(wbits=31)
        try:
            found += member.decompress(data)
        except zlib.error:
            break
        data = member.unused_data
    return found


READERS = {"arrow": _arrow, "orc": _orc, "avro": _avro, "wet": _wet}
