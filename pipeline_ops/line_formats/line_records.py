"""Line formats: bytes -> blocks of whole records, the same blocks however the bytes arrive.

Text, JSON Lines and CSV are split at b"\\n" only (a b"\\r" before it is dropped); str.splitlines would also split at U+2028,
U+0085 and form feeds.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from pipeline_ops.line_formats.csv_syntax import QUOTE_REMEDY, CsvSyntax, record_pattern, strict_record_pattern
from pipeline_ops.schema.streams import BrokenStream, Readable

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
STREAM_CHUNK_BYTES = 4 * 2**20  # per read of a stream
MIN_CHUNK_BYTES = 2**16
MAX_RECORD_BYTES = 512 * 2**20  # a record that never ends is a stray CSV quote, not a document
SEARCHED_BYTES = 2**20  # at a time for newlines: numpy makes a byte for each that it compares
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

    def record_ends(self, syntax: CsvSyntax | None = None) -> np.ndarray:
        """int64: the offsets in `data` behind each record."""
        return record_ends(self.data, syntax, at_end=True, begins_file=self.start_byte == 0)

    def lines_in_parts(self, part_bytes: int) -> Iterator["RecordBlock"]:
        """Its lines in blocks of about `part_bytes`, each of at least one."""
        ends = self.record_ends()
        first = start = 0
        while first < len(ends):
            stop = max(int(np.searchsorted(ends, start + part_bytes, side="right")), first + 1)
            stop_byte = int(ends[stop - 1])
            last = self.last and stop == len(ends)
            yield RecordBlock(self.data[start:stop_byte], self.start_row + first, stop - first, self.start_byte + start, last)
            first, start = stop, stop_byte


def read_record_blocks(
    stream: Readable,
    *,
    target_bytes: int | Callable[[int], int],
    syntax: CsvSyntax | None = None,
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
        target_bytes: of each block; or what gives it for the block that begins at a byte, while the stream is as far as it is
            when the block before has been cut.
        syntax: of CSV, where a newline in a quoted field does not end a record. None: every newline does.
        stop_byte: where to stop, at the end of a record; None: at the end of the stream.

    Raises:
        OSError: a record is longer than `max_record_bytes`.
        BrokenStream: of the stream, once all whole records before it have been returned.
    """
    buffer = bytearray()
    row, position, at_end = start_row, start_byte, False
    broken: BrokenStream | None = None
    need = target = _target(target_bytes, position)
    while True:
        chunk_bytes = min(STREAM_CHUNK_BYTES, max(target, MIN_CHUNK_BYTES))  # each block is found in all that is held
        while len(buffer) < need and not at_end:
            left = chunk_bytes if stop_byte is None else min(chunk_bytes, stop_byte - position - len(buffer))
            try:
                chunk = stream.read(left) if left > 0 else b""
            except BrokenStream as error:
                broken, chunk = error, b""
            at_end = not chunk
            buffer += chunk
        if not buffer and not broken:
            return
        ends = record_ends(buffer, syntax, at_end=at_end and not broken, begins_file=position == 0)
        if broken and not len(ends):  # what is left is no whole record
            raise broken
        taken = min(max(int(np.searchsorted(ends, target, side="right")), 1), max_records)
        cut = int(ends[taken - 1]) if len(ends) >= taken else 0
        if not at_end and cut in (0, len(buffer)):
            # the first record is incomplete, or one more byte shows whether this block is the last
            if len(buffer) >= max_record_bytes:
                remedy = f"; {QUOTE_REMEDY}" if syntax is not None and syntax.quote else ""
                raise OSError(f"a record that begins at byte {position} has no end within {max_record_bytes} bytes{remedy}")
            need = len(buffer) * 2 if cut == 0 else cut + 1
            continue
        at_last = at_end and not broken and stop_byte is None and cut == len(buffer)
        yield RecordBlock(_take(buffer, cut), row, taken, position, at_last)  # nothing here holds it while it is parsed
        row, position = row + taken, position + cut
        need = target = _target(target_bytes, position)


def _target(target_bytes: int | Callable[[int], int], position: int) -> int:
    return target_bytes(position) if callable(target_bytes) else target_bytes


def _take(buffer: bytearray, size: int) -> bytes:
    """Removes the first `size` bytes, which are copied once."""
    with memoryview(buffer) as view, view[:size] as front:
        taken = bytes(front)
    del buffer[:size]
    return taken


def record_ends(data: bytes | bytearray, syntax: CsvSyntax | None, *, at_end: bool, begins_file: bool) -> np.ndarray:
    """int64: the offsets behind each record in `data`, which begins with a record.

    Args:
        at_end: the stream ends here, so the last record needs no newline.
        begins_file: `data` may begin with a byte order mark, which is no part of the first field.
    """
    if syntax is None or syntax.ends_at_newlines(data):
        there = np.frombuffer(data, np.uint8)
        starts = range(0, len(there), SEARCHED_BYTES)
        found = [np.flatnonzero(there[start : start + SEARCHED_BYTES] == ord("\n")) + (start + 1) for start in starts]
        ends = np.concatenate(found) if found else np.empty(0, np.int64)
    else:
        ends = np.array(_ends_by_pattern(data, syntax, begins_file=begins_file)[0], np.int64)
    if at_end and len(data) and (len(ends) == 0 or ends[-1] != len(data)):
        ends = np.append(ends, len(data))
    return ends


def _ends_by_pattern(data: bytes | bytearray, syntax: CsvSyntax, *, begins_file: bool) -> tuple[list[int], list[int]]:
    """(the offsets behind each record that has an end in `data`, the numbers of those that Arrow would read otherwise)."""
    strict, loose = strict_record_pattern(syntax), record_pattern(syntax)
    found, marred = list[int](), list[int]()
    position = len(BYTE_ORDER_MARK) if begins_file and data.startswith(BYTE_ORDER_MARK) else 0
    while True:
        match = strict.match(data, position)
        if match is None:
            match = loose.match(data, position)
            if match is None:
                return found, marred
            marred.append(len(found))
        position = match.end()
        found.append(position)


def split_records(block: RecordBlock, syntax: CsvSyntax | None = None) -> list[bytes]:
    """The block's records without line ends; without a byte order mark if the block begins the file."""
    if syntax is not None and not syntax.ends_at_newlines(block.data):
        return split_quoted_records(block, syntax)[0]
    lines = block.data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    lines = _without_mark(lines, block)
    return [line.removesuffix(b"\r") for line in lines] if syntax is None else [line.rstrip(b"\r") for line in lines]


def split_quoted_records(block: RecordBlock, syntax: CsvSyntax) -> tuple[list[bytes], list[int]]:
    """(records as split_records, the numbers of those with CsvSyntax.quoting_fault, but for rows that they take in)."""
    if syntax.ends_at_newlines(block.data):
        lines = split_records(block, syntax)
        has_lone = block.data.count(b"\r") > block.data.count(b"\r\n")
        return lines, [number for number, line in enumerate(lines) if b"\r" in line] if has_lone else []
    ends, faulty = _ends_by_pattern(block.data, syntax, begins_file=block.start_byte == 0)
    rest = block.data[ends[-1] if ends else 0 :]
    if rest:
        ends.append(len(block.data))
    ranges = zip([0, *ends], ends, strict=False)
    lines = [syntax.without_line_end(block.data[start:end]) for start, end in ranges]
    lines = _without_mark(lines, block)
    if rest and not strict_record_pattern(syntax).fullmatch(lines[-1] + b"\n"):
        faulty.append(len(lines) - 1)
    return lines, faulty


def _without_mark(lines: list[bytes], block: RecordBlock) -> list[bytes]:
    if block.start_byte == 0 and lines:
        lines[0] = lines[0].removeprefix(BYTE_ORDER_MARK)
    return lines


def is_document(record: bytes, file_format: str) -> bool:
    """True if a record counts as a document: blank lines of text do, blank JSON lines and empty CSV records do not."""
    if file_format == "jsonl":
        return bool(record.strip())
    return file_format == "text" or bool(record)
