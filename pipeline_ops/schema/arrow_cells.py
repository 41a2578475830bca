"""Tables and arrays as cells."""

import numpy as np
import pyarrow as pa


def pack_table(table: pa.Table) -> pa.Buffer:
    """Arrow IPC stream of `table`; one copy of its buffers."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def unpack_table(cell: pa.Scalar) -> pa.Table:
    """The table in a transport cell; shares the cell's memory."""
    return pa.ipc.open_stream(cell.as_buffer()).read_all()


def binary_cell(data: pa.Buffer) -> pa.Array:
    """`data` as a large_binary array of one row, without a copy."""
    offsets = pa.array([0, data.size], pa.int64()).buffers()[1]
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, data])


def list_cell(values: np.ndarray) -> pa.Array:
    """A flat array as a large_list array of one row, without a copy."""
    return pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), pa.array(values))


def flat_values(row: pa.Table, column: str) -> np.ndarray:
    """The flat array that `list_cell` made a cell of; shares its memory and is read-only."""
    return row.column(column).chunk(0).flatten().to_numpy(zero_copy_only=True)
