"""The texts of a file of typed rows as other code than the job's finds them, up to where that cannot read on."""

import io
import zlib
from collections.abc import Iterator
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.orc

TEXT_ALONE = pa.ipc.IpcReadOptions(included_fields=[1])  # damage to other columns is none for a job that leaves them out


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
    for batch in _batches(pa.py_buffer(data)):
        column = batch.column("text")
        column.validate(full=False)
        yield from column.cast(pa.binary()).to_pylist()


def _batches(buffer: pa.Buffer) -> Iterator[pa.RecordBatch]:
    """A file is a stream, and a footer that says the same again: one of the two may be damaged."""
    if buffer.slice(0, 6).to_pybytes() != b"ARROW1":
        return iter(pa.ipc.open_stream(buffer, options=TEXT_ALONE))
    try:
        file = pa.ipc.open_file(buffer, options=TEXT_ALONE)
        return iter([file.get_batch(index) for index in range(file.num_record_batches)])
    except (OSError, pa.ArrowException):
        return iter(pa.ipc.open_stream(buffer.slice(8), options=TEXT_ALONE))


def _orc(data: bytes) -> Iterator[Any]:
    file = pyarrow.orc.ORCFile(pa.BufferReader(data))
    for stripe in range(file.nstripes):
        yield from file.read_stripe(stripe, columns=["text"]).column("text").cast(pa.binary()).to_pylist()


def _avro(data: bytes) -> Iterator[Any]:
    yield from (record["text"] for record in fastavro.reader(io.BytesIO(data), handle_unicode_errors="replace"))  # pyright: ignore[reportOptionalSubscript, reportArgumentType, reportIndexIssue, reportCallIssue]


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
