"""The bytes of a file of a line format -> a stream of its lines as UTF-8, decompressed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import pyarrow as pa

from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.line_formats.line_records import STREAM_CHUNK_BYTES
from pipeline_ops.storage.store import Store


class LineStream:
    """Decoded bytes, to be read from front to back.

    Attributes:
        is_plain: the decoded bytes are those of the file, so that an offset is one into the file.
        delivered: how many decoded bytes have been read.
    """

    def __init__(self, source: BinaryIO, decoded: BinaryIO):
        self._source, self._decoded = source, decoded
        self.is_plain, self.delivered = decoded is source, 0

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, all that are left if it is negative; b"" at the end."""
        data = bytes(self._decoded.read() if size < 0 else self._decoded.read(size))
        self.delivered += len(data)
        return data

    def tell_stored(self) -> int:
        """How many bytes of the file have been read; of a decoded one a little more than what was delivered."""
        return self._source.tell()


@contextmanager
def open_lines(
    file: InputFile, config: InputConfig, store: Store, start_byte: int = 0, content: bytes | None = None
) -> Iterator[LineStream]:
    """A stream of the decoded bytes from `start_byte` on.

    A decoded stream is read up to `start_byte`, in bounded memory; a plain one seeks. Concatenated gzip members or zstd frames
    read as one stream.

    Args:
        start_byte: offset into the decoded bytes.
        content: of the file, where it has been fetched already.

    Raises:
        OSError: the decoded bytes end before `start_byte`.
    """
    with pa.BufferReader(content) if content is not None else store.open(file.stored, sequential=True) as source:
        if file.compression is None:
            source.seek(start_byte)
            yield LineStream(source, source)
            return
        with pa.CompressedInputStream(pa.PythonFile(source, mode="r"), file.compression) as decoded:
            stream = LineStream(source, decoded)
            while start_byte > 0:
                skipped = stream.read(min(start_byte, STREAM_CHUNK_BYTES))
                if not skipped:
                    raise OSError(f"{file.path}: ends before the position that an earlier run recorded; it changed meanwhile")
                start_byte -= len(skipped)
            yield stream
