"""ORC files, in batches of rows, by Arrow's scanner: `pyarrow.orc` would decode whole stripes."""

import io
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import pyarrow as pa

from pipeline_ops.row_formats.row_batches import RowBatch, Source

BATCH_ROWS = 1024
BLOCK_BYTES, HELD_BLOCKS = 2**20, 64  # of a file: a stripe is read in turns from each of its columns


def read_schema(source: Source) -> pa.Schema:
    """The columns of an ORC file; raises what Arrow raises for one that is damaged."""
    return _fragment(source).physical_schema


def read_batches(source: Source, columns: Sequence[str] | None, start_row: int) -> Iterator[RowBatch]:
    """The rows, as RowFormat.read_batches. Those before `start_row` are decoded: the footer's rows per stripe are not public.

    Raises:
        Exception: whatever Arrow raises for a damaged file.
    """
    fragment = _fragment(source)
    num_rows = fragment.count_rows()
    scanner = fragment.scanner(
        columns=None if columns is None else [*columns], batch_size=BATCH_ROWS, batch_readahead=0, use_threads=False
    )
    row = 0
    for batch in scanner.to_batches():
        stop_row = row + batch.num_rows
        if stop_row > start_row:
            batch.validate(full=True)
            stored = (source.size * row // max(num_rows, 1), source.size * stop_row // max(num_rows, 1))
            yield RowBatch(row, pa.Table.from_batches([batch]), stored)
        row = stop_row
    if row != num_rows:
        raise OSError(f"it has {row} rows, its footer says {num_rows}")


def _fragment(source: Source):
    import pyarrow.dataset as ds  # takes a while, and only ORC needs it here

    return ds.OrcFileFormat().make_fragment(pa.PythonFile(_HeldBlocks(source), mode="r"))


class _HeldBlocks(io.RawIOBase):
    """A file of which the blocks that were read last are held: Arrow reads 128 KiB at a time, from another thread.

    Each scan has one: a scan that is given up may still read a little.
    """

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
