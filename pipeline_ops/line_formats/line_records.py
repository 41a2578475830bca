"""Line formats: bytes -> blocks of whole records, the same blocks however the bytes arrive.

Text, JSON Lines and CSV are split at b"\\n" only (a b"\\r" before it is dropped); str.splitlines would also split at U+2028,
U+0085 and form feeds.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
STREAM_CHUNK_BYTES = 4 * 2**20  # per read of a stream
MAX_RECORD_BYTES = 512 * 2**20  # a record that never ends is a stray CSV quote, not a document
MAX_BLOCK_RECORDS = 250_000  # 32 MiB of two-byte lines would be 16 million documents in one unit


class BrokenStream(OSError):
    """The stream cannot be read on for what its bytes are, at each attempt in the same place: all before it may be used."""


class Readable(Protocol):
    """A stream that is read from front to back."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; b"" at the end."""
        ...


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


def read_record_blocks(
    stream: Readable,
    *,
    target_bytes: int,
    quote: str | None,
    delimiter: str = ",",
    start_row: int = 0,
    start_byte: int = 0,
    stop_byte: int | None = None,
    max_records: int = MAX_BLOCK_RECORDS,
    max_record_bytes: int = MAX_RECORD_BYTES,
) -> Iterator[RecordBlock]:
    """Blocks of whole records, each as many as fit into `target_bytes` and `max_records`, but at least one.

    The blocks depend on the bytes and the arguments alone, not on how many bytes a read of the stream returns.

    Args:
        stream: at `start_byte`, which is the beginning of a record.
        quote: CSV's quote character; a newline in a quoted field does not end a record. None: every newline does.
        delimiter: CSV's, for telling quoted fields from quotes inside plain ones.
        stop_byte: where to stop, at the end of a record; None: at the end of the stream.

    Raises:
        OSError: a record is longer than `max_record_bytes`.
        BrokenStream: of the stream, once all whole records before it have been returned.
    """
    buffer = bytearray()
    row, position, at_end = start_row, start_byte, False
    broken: BrokenStream | None = None
    need = target_bytes
    while True:
        while len(buffer) < need and not at_end:
            left = STREAM_CHUNK_BYTES if stop_byte is None else min(STREAM_CHUNK_BYTES, stop_byte - position - len(buffer))
            try:
                chunk = stream.read(left) if left > 0 else b""
            except BrokenStream as error:
                broken, chunk = error, b""
                del buffer[buffer.rfind(b"\n") + 1 :]
            at_end = not chunk
            buffer += chunk
        if not buffer and broken:
            raise broken
        if not buffer:
            return
        ends = record_ends(bytes(buffer), quote, delimiter, at_end=at_end)
        taken = min(max(int(np.searchsorted(ends, target_bytes, side="right")), 1), max_records)
        cut = int(ends[taken - 1]) if len(ends) >= taken else 0
        if not at_end and cut in (0, len(buffer)):
            # the first record is incomplete, or one more byte shows whether this block is the last
            if len(buffer) >= max_record_bytes:
                raise OSError(f"a record that begins at byte {position} has no end within {max_record_bytes} bytes")
            need = len(buffer) * 2 if cut == 0 else cut + 1
            continue
        data = bytes(buffer[:cut])
        del buffer[:cut]
        yield RecordBlock(data, row, taken, position, last=at_end and not (buffer or broken) and stop_byte is None)
        row, position, need = row + taken, position + cut, target_bytes


def record_ends(data: bytes, quote: str | None, delimiter: str, *, at_end: bool) -> np.ndarray:
    """int64: the offsets behind each record in `data`, which begins with a record.

    Args:
        at_end: the stream ends here, so the last record needs no newline.
    """
    if quote is None or quote.encode() not in data:
        ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n")) + 1
    else:
        pattern, found, position = _record_pattern(quote, delimiter), [], 0
        while match := pattern.match(data, position):
            position = match.end()
            found.append(position)
        ends = np.array(found, np.int64)
    if at_end and len(data) and (len(ends) == 0 or ends[-1] != len(data)):
        ends = np.append(ends, len(data))
    return ends


@cache
def _record_pattern(quote: str, delimiter: str) -> re.Pattern[bytes]:
    """One CSV record (RFC 4180) up to its newline. A quote counts at the start of a field only: 5" pipe is plain text."""
    q, d = re.escape(quote.encode()), re.escape(delimiter.encode())
    plain = rb"[^" + d + rb"\n]*+"
    quoted = q + rb"[^" + q + rb"]*+(?:" + q + q + rb"[^" + q + rb"]*+)*+" + q + plain
    field = rb"(?:" + quoted + rb"|(?!" + q + rb")" + plain + rb")"
    return re.compile(field + rb"(?:" + d + field + rb")*+\n")


def has_closed_quotes(record: bytes, quote: str | None, delimiter: str) -> bool:
    """True if a CSV record has no unfinished quoted field; only a file's last record can have one."""
    if quote is None or quote.encode() not in record:
        return True
    return bool(_record_pattern(quote, delimiter).fullmatch(record + b"\n"))


def split_records(block: RecordBlock, quote: str | None, delimiter: str = ",") -> list[bytes]:
    """The block's records without line ends; without a byte order mark if the block begins the file."""
    if quote is None or quote.encode() not in block.data:
        lines = block.data.split(b"\n")
        if not lines[-1]:
            lines.pop()
    else:
        ends = record_ends(block.data, quote, delimiter, at_end=True).tolist()
        lines = [block.data[start:end].removesuffix(b"\n") for start, end in zip([0, *ends], ends, strict=False)]
    if block.start_byte == 0 and lines:
        lines[0] = lines[0].removeprefix(BYTE_ORDER_MARK)
    return [line.removesuffix(b"\r") for line in lines]


def is_document(record: bytes, file_format: str) -> bool:
    """True if a record counts as a document: blank lines of text do, blank JSON lines and empty CSV records do not."""
    if file_format == "jsonl":
        return bool(record.strip())
    return file_format == "text" or bool(record)
