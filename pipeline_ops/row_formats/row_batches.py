"""What a format of typed rows that is read from front to back consists of, RowFormat; what it is given, and what it gives."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa

from pipeline_ops.line_formats.parsing import BadRecord


class Source:
    """A file as the formats' libraries see it: one that they cannot close.

    Attributes:
        error: that of a read, which some of them replace by their own.
        size: of the file, bytes.
        bytes_read: so far.
    """

    def __init__(self, source: BinaryIO):
        self._source = source
        self.error: Exception | None = None
        self.bytes_read = 0
        self.seek, self.tell = source.seek, source.tell
        self.size = source.seek(0, os.SEEK_END)
        source.seek(0)

    def read(self, size: int = -1) -> bytes:
        try:
            data = self._source.read(size)
        except Exception as error:
            self.error = error
            raise
        self.bytes_read += len(data)
        return data

    def read_at(self, start: int, size: int) -> bytes:
        """The bytes from `start` on."""
        self.seek(start)
        return self.read(size)

    def close(self) -> None:
        """Its opener closes it."""

    @property
    def closed(self) -> bool:
        return self._source.closed

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


@dataclass(frozen=True)
class RowBatch:
    """Consecutive rows of a file, few enough to be held in memory.

    Attributes:
        start_row: of the first one in the file.
        table: a row for each of them; what a bad one holds is not used. It may have MISFITS_COLUMN.
        stored: the bytes of the file that hold them, [start, stop), about.
        bad: those that do not parse, in order.
    """

    start_row: int
    table: pa.Table
    stored: tuple[int, int]
    bad: tuple[BadRecord, ...] = ()


@dataclass(frozen=True)
class RowFormat:
    """The functions of a format. Both are given the open file, at any position.

    Attributes:
        read_schema: the columns that the file declares.
        read_batches: (file, the top-level columns that are wanted or None for all, a row) -> the batches in the order of their
            rows, beginning at or before that row. They raise at the place of a damage, after what stands before it; a file that
            is cut, even between two batches, is damaged.
        sequential: False: the file is read in leaps.
        is_dense: its files are usually compressed inside, which is for sizing only.
        decompresses: it reads files that are compressed as a whole.
    """

    read_schema: Callable[[Source], pa.Schema]
    read_batches: Callable[[Source, Sequence[str] | None, int], Iterator[RowBatch]]
    sequential: bool = True
    is_dense: bool = False
    decompresses: bool = False
