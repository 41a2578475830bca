"""The bytes of a file of a line format -> a stream of its lines as UTF-8.

Layers, each over the one before: the file's bytes, decompressed, in UTF-8, with \\n at the ends of lines, elements of JSON
arrays as lines. Which of them a file needs is found from its first bytes (Decoding), whatever its name says, whenever it is
opened.
"""

import io
import math
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa

from pipeline_ops.inputs.compression import compression_of, decompressed
from pipeline_ops.inputs.config import InputConfig
from pipeline_ops.inputs.file_formats import format_suffix
from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.line_formats.csv_syntax import CsvSyntax, csv_syntax
from pipeline_ops.line_formats.first_bytes import check_no_other_format, check_no_pointer
from pipeline_ops.line_formats.json_arrays import LOOK_BYTES, JsonElements, JsonLayout, json_layout
from pipeline_ops.line_formats.line_records import BYTE_ORDER_MARK, STREAM_CHUNK_BYTES, record_ends
from pipeline_ops.line_formats.text_encoding import Transcoded, check_is_text, encoding_of, has_byte_order_mark
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.streams import BrokenStream, Readable
from pipeline_ops.storage.store import Store

HEAD_BYTES = 64 * 2**10
LINE_END_BYTES = 2**20  # in these a file shows how its lines end
LONE_CARRIAGE_RETURN = re.compile(rb"\r(?!\n)")
NO_WINDOWS_ENDS = re.compile(rb"(?<!\r)\r++(?!\n)")  # \r\r\n is one as well: text of Windows that was written as such


@dataclass(frozen=True)
class Decoding:
    """How the bytes of a file become lines of UTF-8."""

    compression: str | None  # a key of compression.MAGIC
    encoding: str | None  # a codec; None: UTF-8 already
    carriage_returns: bool  # lines end with \r alone
    has_byte_order_mark: bool
    layout: JsonLayout | None = None  # of JSON that is no JSON Lines

    @property
    def is_plain(self) -> bool:
        """Whether the decoded bytes are those of the file, so that an offset is one into the file."""
        return self.compression is None and self.encoding is None and not self.carriage_returns and self.layout is None


class LineStream:
    """Decoded bytes, to be read from front to back.

    Attributes:
        delivered: how many decoded bytes have been read.
    """

    def __init__(self, source: BinaryIO, decoded: Readable, decoding: Decoding, size: int):
        self._source, self._decoded, self._size = source, decoded, size
        self.decoding, self.delivered = decoding, 0
        self._broken: BrokenStream | None = None

    @property
    def is_plain(self) -> bool:
        return self.decoding.is_plain

    def read(self, size: int = -1) -> bytes:
        """`size` bytes, less where the stream ends before, all that are left if it is negative.

        Raises:
            BrokenStream: at the first read that has no byte before the damage.
        """
        parts, left = [], size
        while left and not self._broken:
            try:
                part = bytes(self._decoded.read(STREAM_CHUNK_BYTES if left < 0 else left))
            except BrokenStream as broken:
                self._broken = broken
                break
            if not part:
                break
            parts.append(part)
            left -= len(part) if left > 0 else 0
        if self._broken and not parts:
            raise self._broken
        data = b"".join(parts)
        self.delivered += len(data)
        return data

    def tell_stored(self) -> int:
        """How many bytes of the file have been read; of a decoded one a little more than what was delivered."""
        return self._source.tell()

    def bytes_left(self, position: int) -> float:
        """Decoded bytes from there to the end; where they are not the file's own, by what its bytes read so far have given.

        The same whenever the file is read by the same reads: the files of a Store return all the bytes that are asked for.
        """
        if self.is_plain:
            return self._size - position
        stored = self.tell_stored()
        if self.delivered < LINE_END_BYTES and stored < self._size:
            return math.inf  # so many may have been looked at, and are still to be read
        return self.delivered - position + (self._size - stored) * self.delivered / stored


@contextmanager
def open_lines(
    file: InputFile, config: InputConfig, store: Store, start_byte: int = 0, content: bytes | None = None
) -> Iterator[LineStream]:
    """A stream of the decoded bytes from `start_byte` on.

    A decoded stream is read up to `start_byte`, in bounded memory; a plain one seeks.

    Args:
        start_byte: offset into the decoded bytes.
        content: of the file, where it has been fetched already.

    Raises:
        OSError: the decoded bytes end before `start_byte`, or the compressed ones are damaged.
        UserError: the file is not what its name says, and not what can be read.
    """
    with (
        pa.BufferReader(content) if content is not None else store.open(file.stored, sequential=True) as source,
        _decoded(source, file, config) as (decoding, decoded),
    ):
        stream = LineStream(source, decoded, decoding, file.stored.size)
        if decoding.is_plain:
            source.seek(start_byte)
            yield LineStream(source, source, decoding, file.stored.size)
            return
        while start_byte > 0:
            skipped = len(stream.read(min(start_byte, STREAM_CHUNK_BYTES)))
            if not skipped:
                raise OSError(f"{file.path}: ends before the position that an earlier run recorded; it changed meanwhile")
            start_byte -= skipped
        yield stream


def decoding_of(file: InputFile, config: InputConfig, store: Store) -> Decoding:
    """How a file is decoded; reads little more than its first bytes. Raises what open_lines raises."""
    with _opened_for_a_look(file, store) as source, _decoded(source, file, config) as (decoding, _):
        return decoding


def beginning_of(file: InputFile, store: Store) -> bytes:
    """The first HEAD_BYTES of a file, decompressed, in its own encoding. Raises what open_lines raises."""
    with _opened_for_a_look(file, store) as source, _decompressed(source, file) as (_, stream):
        return stream.peek(HEAD_BYTES)


@contextmanager
def _opened_for_a_look(file: InputFile, store: Store) -> Iterator[BinaryIO]:
    """A file of which the beginning is read: by one request, where it is an object."""
    with store.open(file.stored, sequential=False) as source:
        yield io.BufferedReader(source, HEAD_BYTES)  # pyright: ignore[reportArgumentType, reportReturnType] it has what is used


@contextmanager
def _decoded(source: BinaryIO, file: InputFile, config: InputConfig) -> Iterator[tuple[Decoding, Readable]]:
    """(how a file that is open at its beginning is decoded, the decoded bytes)."""
    with _decompressed(source, file) as (compression, stream):
        head = stream.peek(HEAD_BYTES)
        encoding = encoding_of(head, config, file.path)
        if encoding is not None:
            stream = Peekable(Transcoded(stream, encoding))
        in_two_bytes = encoding is not None and encoding.startswith(("utf-16", "utf-32"))
        check_is_text(stream.peek(HEAD_BYTES) if in_two_bytes else head, config, file.path)
        carriage_returns = not (file.format == "text" and config.text_unit == "file") and _ends_in_carriage_returns(
            stream, csv_syntax(file, config)
        )
        if carriage_returns:
            stream = Peekable(NewlineEnds(stream))
        layout = _layout(stream, file, config) if file.format == "jsonl" else None
        yield (
            Decoding(compression, encoding, carriage_returns, has_byte_order_mark(head), layout),
            stream if layout is None else JsonElements(stream, layout),
        )


@contextmanager
def _decompressed(source: BinaryIO, file: InputFile) -> Iterator[tuple[str | None, "Peekable"]]:
    """(compression, decompressed bytes) of a file that is open at its beginning; see open_lines for what it raises."""
    head = source.read(HEAD_BYTES)
    source.seek(0)
    check_no_pointer(head, file.path)
    compression = compression_of(head, file.compression)
    if compression is None and file.compression is not None:
        begins = f"begins with {bytes(head[:16])!r}" if head else "is empty"
        suffix = file.path[file.path.rindex(".") :]
        raise UserError(f"input.path: {file.path} is named {suffix}, but {begins}; rename it, or fetch it again")
    with ExitStack() as opened:
        stream = Peekable(source if compression is None else opened.enter_context(decompressed(source, compression, file.path)))
        check_no_other_format(stream.peek(HEAD_BYTES), file.format, file.path)
        yield compression, stream


def _ends_in_carriage_returns(stream: "Peekable", syntax: CsvSyntax | None) -> bool:
    """Whether \\r alone ends each line, or each record of CSV: its quoted fields may have \\n, as Excel for Mac writes it.

    A \\n that is the file's last byte ends its last line, however the others end.
    """
    for size in (HEAD_BYTES, LINE_END_BYTES):  # most files end a line in the first bytes
        head = stream.peek(size + 1)
        whole = len(head) <= size
        if b"\n" in head[:-1] or whole:
            break
    head = head if whole else head.removesuffix(b"\r")  # a \n may follow
    if head.count(b"\r") == head.count(b"\r\n"):
        return False
    lines = NO_WINDOWS_ENDS.sub(lambda found: b"\n" * len(found[0]), head)
    ends = record_ends(lines, syntax, at_end=False, begins_file=True)
    if whole and len(ends) and ends[-1] == len(head):
        ends = ends[:-1]
        if not len(ends):
            return not head.endswith(b"\n")
    return len(ends) > 0 and b"\n" not in {head[end - 1 : end] for end in ends.tolist()}


def _layout(stream: "Peekable", file: InputFile, config: InputConfig) -> JsonLayout | None:
    """How documents lie in a JSON file; None: JSON Lines."""
    by_objects = format_suffix(file.path) == ".json"
    begins = stream.peek(HEAD_BYTES).removeprefix(BYTE_ORDER_MARK).lstrip()[:1]
    if begins != b"[" and not (begins == b"{" and by_objects):
        return None  # without a longer look
    return json_layout(stream.peek(LOOK_BYTES), by_objects=by_objects, text_columns=config.text_columns)


class Peekable:
    """A stream whose next bytes can be looked at."""

    def __init__(self, source: Readable):
        self._source, self._ahead = source, b""
        self._broken: BrokenStream | None = None  # met by a look, for the read that gets there: a stream may break only once

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, less where the stream ends or breaks before; they are still to be read."""
        while len(self._ahead) < size and self._broken is None:
            try:
                data = self._source.read(size - len(self._ahead))
            except BrokenStream as broken:
                self._broken = broken
                break
            if not data:
                break
            self._ahead += bytes(data)
        return self._ahead[:size]

    def read(self, size: int) -> bytes:
        if not self._ahead and self._broken is not None:
            raise self._broken
        if not self._ahead:
            return self._source.read(size)
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        return data


class NewlineEnds:
    """A stream with \\n in place of each \\r that none follows, as in a quoted field: offsets stay the same."""

    def __init__(self, source: Peekable):
        self._source = source

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        within_pair = data.endswith(b"\r") and self._source.peek(1) == b"\n"
        lines = LONE_CARRIAGE_RETURN.sub(b"\n", data) if b"\r\n" in data else data.replace(b"\r", b"\n")
        return lines[:-1] + b"\r" if within_pair else lines
