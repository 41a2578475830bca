"""What travels between the stages comes out as it went in."""

import json

import numpy as np
import pyarrow as pa
import pytest

from pipeline_ops.schema.arrow_cells import binary_cell, flat_values, list_cell, pack_table, unpack_table
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.schema.units import Piece, Reject, Unit, pack_rejects, unpack_rejects

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


def test_unit_as_json_comes_back_the_same() -> None:
    unit = Unit("0" * 24, (Piece("s3://b/ü.jsonl", "etag", 0, 7, False, 0, 90), Piece("s3://b/b.jsonl", "etag", 0, 0, True)))
    assert Unit.from_json(unit.to_json()) == unit
    replacing = Unit("0" * 24, unit.pieces, ("1" * 24 + "-attempt", "2" * 24 + "-attempt"))
    assert Unit.from_json(replacing.to_json()) == replacing


def test_rejects_as_lines_hold_one_json_object_each_and_come_back_the_same() -> None:
    rejects = [Reject("a.csv", 3, "undecodable", "a\nb\u2028c"), Reject("ü.csv", 2**40, "null_text", "")]
    packed = pack_rejects(rejects)
    assert [json.loads(line)["source_row"] for line in packed.decode().split("\n")[:-1]] == [3, 2**40]
    assert unpack_rejects(packed) == rejects


def test_rejects_with_a_lone_surrogate_can_be_stored() -> None:
    (back,) = unpack_rejects(pack_rejects([Reject("a.jsonl", 0, "column_type", "\ud800 here")]))
    assert back.detail.endswith(" here")


def test_rejects_without_any_are_no_bytes() -> None:
    assert pack_rejects([]) == b""
    assert unpack_rejects(b"") == []


def test_added_columns_leave_out_what_is_not_asked_for() -> None:
    few = OutputConfig(path="out").added_columns()
    many = OutputConfig(path="out", scores=True, logits=True, scores_column="all_scores").added_columns()
    assert {"scores", "logits"}.isdisjoint(few.values())
    assert set(many.values()) - set(few.values()) == {"all_scores", "logits"}


def test_partition_by_label_follows_the_label_columns_name() -> None:
    output = OutputConfig(path="out", label_column="class", partition_by=("label", "year"))
    assert output.partition_columns() == ("class", "year")
