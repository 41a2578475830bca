"""Tables and arrays in cells come back as they were."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline_ops.schema.arrow_cells import binary_cell, flat_values, list_cell, pack_table, unpack_table

TABLE = pa.table(
    {
        "text": pa.array(["a", None, "ü"], pa.large_string()),
        "nested": pa.array([{"x": [1, None]}, None, {"x": []}], pa.struct([("x", pa.list_(pa.int8()))])),
        "kind": pa.array(["p", "q", "p"]).dictionary_encode(),
        "data": pa.array([b"\x00\xff", b"", None], pa.binary()),
        "none": pa.nulls(3),
    }
)


@pytest.mark.parametrize("table", [TABLE, TABLE.slice(1, 1), TABLE.slice(0, 0), pa.concat_tables([TABLE, TABLE])])
def test_table_in_a_transport_cell_comes_back_the_same(table: pa.Table) -> None:
    row = pa.table({"documents": binary_cell(pack_table(table))})
    back = unpack_table(row["documents"][0])
    assert back.schema == table.schema
    assert back.equals(table)


@pytest.mark.parametrize("values", [np.arange(5, dtype=np.int32), np.empty(0, np.int8), np.array([1.5, np.nan], np.float32)])
def test_flat_array_in_a_transport_cell_comes_back_the_same(values: np.ndarray) -> None:
    back = flat_values(pa.table({"cell": list_cell(values)}), "cell")
    assert back.dtype == values.dtype
    np.testing.assert_array_equal(back, values)
