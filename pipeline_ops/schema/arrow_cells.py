"""Arrow tables and numpy arrays as cells of a unit's row, and back; reading a cell copies nothing."""

import numpy as np
import pyarrow as pa


def pack_table(table: pa.Table) -> pa.Buffer:
    """`table` as an Arrow IPC stream; copies its buffers once."""
    counting = pa.MockOutputStream()
    _write_stream(table, counting)
    packed = pa.allocate_buffer(counting.size())  # one that grows would be copied again and again
    _write_stream(table, pa.FixedSizeBufferWriter(packed))
    return packed


def _write_stream(table: pa.Table, sink: pa.NativeFile) -> None:
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def unpack_table(cell: pa.Scalar) -> pa.Table:
    """The table in a large_binary cell that holds what pack_table returns; shares the cell's memory."""
    return pa.ipc.open_stream(cell.as_buffer()).read_all()


def binary_cell(data: pa.Buffer) -> pa.Array:
    """`data` as a large_binary array of one row, without a copy."""
    offsets = pa.array([0, data.size], pa.int64()).buffers()[1]
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, data])


def list_cell(values: np.ndarray) -> pa.Array:
    """`values`, one-dimensional, as a large_list array of one row, without a copy."""
    return pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), pa.array(values))


def flat_values(row: pa.Table, column: str) -> np.ndarray:
    """The array in a list_cell of a table of one row; read-only, shares the cell's memory."""
    return row.column(column).chunk(0).flatten().to_numpy(zero_copy_only=True)
