"""ORC files, stripe by stripe.

A stripe is decoded as a whole: 64 MiB where writers have their defaults. Arrow's scanner, which decodes a few rows at a time,
gives another number of rows before a damage whenever it comes upon it, and a repeated read has to give the same units.
"""

import io
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from pipeline_ops.row_formats.row_batches import RowBatch, Source

BLOCK_BYTES, HELD_BLOCKS = 2**20, 64  # of a file: a stripe is read in turns from each of its columns


def read_schema(source: Source) -> pa.Schema:
    """The columns of an ORC file; raises what Arrow raises for one that is damaged."""
    return _open(source).schema


def read_batches(source: Source, columns: Sequence[str] | None, start_row: int) -> Iterator[RowBatch]:
    """The stripes, as RowFormat.read_batches.

    Raises:
        Exception: whatever Arrow raises for a damaged file.
    """
    orc = _open(source)
    wanted = None if columns is None or any("." in name for name in columns) else [*columns]  # a dot would name a field
    # how many rows a stripe has is not public: of one that is passed over, a small column is read
    small = [field.name for field in orc.schema if pa.types.is_primitive(field.type) and "." not in field.name][:1]
    row = 0
    for number in range(orc.nstripes):
        if row < start_row:
            passed = row + orc.read_stripe(number, columns=small or wanted).num_rows
            if passed <= start_row:
                row = passed
                continue
        table = pa.Table.from_batches([orc.read_stripe(number, columns=wanted)])
        table.validate(full=True)
        stop_row = row + table.num_rows
        stored = (source.size * row // max(orc.nrows, 1), source.size * stop_row // max(orc.nrows, 1))
        yield RowBatch(row, table if columns is None else table.select([*columns]), stored)
        row = stop_row
    if row != orc.nrows:
        raise OSError(f"it has {row} rows, its footer says {orc.nrows}")


def _open(source: Source) -> Any:
    import pyarrow.orc  # takes a while, and few jobs need it

    return pyarrow.orc.ORCFile(pa.PythonFile(_HeldBlocks(source), mode="r"))


class _HeldBlocks(io.RawIOBase):
    """A file of which the blocks that were read last are held: Arrow reads 128 KiB at a time."""

    def __init__(self, source: Source):
        self._source, self._position = source, 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.size}[whence]
        return self._position

    def read(self, size: int = -1) -> bytes:
        stop = self._source.size if size < 0 else min(self._position + size, self._source.size)
        parts = []
        while self._position < stop:
            number, offset = divmod(self._position, BLOCK_BYTES)
            part = self._block(number)[offset : offset + stop - self._position]
            if not part:
                break
            parts.append(part)
            self._position += len(part)
        return b"".join(parts)

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            self._blocks[number] = self._source.read_at(number * BLOCK_BYTES, BLOCK_BYTES)
        self._blocks.move_to_end(number)
        if len(self._blocks) > HELD_BLOCKS:
            self._blocks.popitem(last=False)
        return self._blocks[number]
