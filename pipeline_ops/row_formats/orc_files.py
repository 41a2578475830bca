"""ORC files, stripe by stripe.

A stripe is decoded as a whole: 64 MiB where writers have their defaults. Arrow's scanner, which decodes a few rows at a time,
gives another number of rows before a damage whenever it comes upon it, and a repeated read has to give the same units.

Arrow has all timestamps of ORC in nanoseconds, which end in the year 2262. A column with one beyond that, such as the usual
9999-12-31, cannot be read for its stripe: its values are misfits there.
"""

import io
import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline_ops.row_formats.row_batches import RowBatch, Source
from pipeline_ops.schema.misfits import MISFITS_COLUMN

TOO_FAR = "out of range for nanosecond resolution"  # in Arrow's message
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
    fixed = [field.name for field in orc.schema if pa.types.is_primitive(field.type) and not pa.types.is_temporal(field.type)]
    small = [name for name in fixed if "." not in name][:1]
    row = 0
    for number in range(orc.nstripes):
        if row < start_row:
            passed = row + _read_stripe(orc, number, small or wanted).num_rows
            if passed <= start_row:
                row = passed
                continue
        table = _read_stripe(orc, number, wanted)
        table.validate(full=True)
        stop_row = row + table.num_rows
        stored = (source.size * row // max(orc.nrows, 1), source.size * stop_row // max(orc.nrows, 1))
        kept = (
            table.column_names
            if columns is None
            else [name for name in table.column_names if name in (*columns, MISFITS_COLUMN)]
        )
        yield RowBatch(row, table.select(kept), stored)
        row = stop_row
    if row != orc.nrows:
        raise OSError(f"it has {row} rows, its footer says {orc.nrows}")


def _read_stripe(orc: Any, number: int, columns: list[str] | None) -> pa.Table:
    """A stripe; columns with a timestamp that Arrow has no room for are nulls, and in MISFITS_COLUMN."""
    try:
        return pa.Table.from_batches([orc.read_stripe(number, columns=columns)])
    except pa.ArrowInvalid as error:
        names = orc.schema.names if columns is None else [name for name in orc.schema.names if name in columns]
        if TOO_FAR not in str(error) or any("." in name for name in names):
            raise
    failed = {name: why for name in names if (why := _beyond(orc, number, name)) is not None}
    read = pa.Table.from_batches([orc.read_stripe(number, columns=[name for name in names if name not in failed])])
    nulls = {name: pa.nulls(read.num_rows, orc.schema.field(name).type) for name in failed}
    table = pa.table({name: nulls[name] if name in failed else read.column(name) for name in names})
    misfits = json.dumps({name: json.dumps(f"not read: {why}; output.columns leaves it out") for name, why in failed.items()})
    alike = pa.DictionaryArray.from_arrays(pa.array(np.zeros(table.num_rows, np.int32)), [misfits])
    return table.append_column(MISFITS_COLUMN, alike)


def _beyond(orc: Any, number: int, column: str) -> str | None:
    """Why a column of a stripe cannot be read, if a timestamp is the reason."""
    try:
        orc.read_stripe(number, columns=[column])
    except pa.ArrowInvalid as error:
        if TOO_FAR in str(error):
            return str(error).splitlines()[0]
    return None


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
