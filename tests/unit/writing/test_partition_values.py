"""Values of partition columns come back from the names of their folders as they were, in their type."""

import base64
import json
import math
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest

from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.output_columns import OutputConfig, columns_of_models, combined_output
from pipeline_ops.writing.hive_partitions import (
    can_partition,
    hive_folder,
    hive_values,
    partition_scalars,
    partition_types,
    partition_values,
    split_by_partition,
)

NAMES = ["", "0", "01", "1.0", "True", "a/b", "a=b", "a b", " ", "%2F", "100%", "é 漢 🙂", "..", "+", "\x00", "a\nb", "?#"]
BERLIN = ZoneInfo("Europe/Berlin")
FAR_APART = [-(2**63) + 1, -(10**18) - 1, -1, 0, 1, 123_456_789, 1_729_989_000 * 10**9, 1_729_992_600 * 10**9, 2**63 - 1]
COLUMNS: dict[str, pa.Array] = {
    "strings": pa.array([*NAMES, "__HIVE_DEFAULT_PARTITION__", None]),
    "large strings": pa.array([*NAMES, None], pa.large_string()),
    "int8": pa.array([-128, 0, 127, None], pa.int8()),
    "int64": pa.array([-(2**63), 0, 2**63 - 1, None], pa.int64()),
    "uint64": pa.array([0, 2**64 - 1], pa.uint64()),
    "float16": pa.array([0.1, -0.0, 0.0, math.inf, math.nan, 6e-8], pa.float16()),
    "float32": pa.array([0.1, -0.0, 0.0, 16777217.0, 1e-45, -math.inf, math.nan, None], pa.float32()),
    "float64": pa.array([0.1, -0.0, 0.0, 2.0**53, 5e-324, 1e300, math.inf, -math.inf, math.nan, None]),
    "bool": pa.array([True, False, None]),
    "date32": pa.array([date(1, 1, 1), date(1969, 12, 31), date(9999, 12, 31), None], pa.date32()),
    "date64": pa.array([date(1, 1, 1), date(2024, 2, 29)], pa.date64()),
    "seconds": pa.array([-2_500_000_000, -1, 0, 1, 253_402_300_799], pa.timestamp("s")),
    "milliseconds": pa.array([-1, 0, 1, 1500], pa.timestamp("ms", "UTC")),
    "microseconds": pa.array([-1, 0, 1, 999_999, 10**6], pa.timestamp("us", "+05:30")),
    "nanoseconds": pa.array(FAR_APART, pa.timestamp("ns")),
    "nanoseconds in a zone": pa.array(FAR_APART[2:-1], pa.timestamp("ns", "Europe/Berlin")),
    "an hour twice, and before there were zones": pa.array(
        [
            datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN),
            datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN),
            datetime(1890, 1, 1, tzinfo=UTC),
        ],
        pa.timestamp("us", "Europe/Berlin"),
    ),
    "times": pa.array([0, 1, 86_399_999_999], pa.time64("us")),
    "decimal": pa.array([Decimal("0.00"), Decimal("-1.10"), Decimal("12345678901234567890.12"), None], pa.decimal128(38, 2)),
    "small decimals": pa.array([Decimal("0E-10"), Decimal("1E-10")], pa.decimal128(20, 10)),
    "large decimals": pa.array([Decimal("1.2E+4"), Decimal("0E+3")], pa.decimal256(50, -3)),
}


@pytest.mark.parametrize("values", COLUMNS.values(), ids=COLUMNS)
def test_values_in_folder_names_come_back_in_their_type(values: pa.Array) -> None:
    table = pa.table({"a/b = ü%": values, "row": range(len(values))})
    found: dict[int, pa.Scalar] = {}
    folders = set()
    for key, part in split_by_partition(table, ("a/b = ü%",)):
        folder = hive_folder(("a/b = ü%",), key)
        folders.add(folder)
        (scalar,) = partition_scalars(f"part-1-of-2/{folder}/file.parquet", {"a/b = ü%": values.type}).values()
        found |= dict.fromkeys(part["row"].to_pylist(), scalar)
    back = pa.array([found[row] for row in range(len(values))], values.type)
    assert back.equals(values) or (repr(back.to_pylist()) == repr(values.to_pylist()) and pa.types.is_floating(values.type))
    assert repr(back.to_pylist()) == repr(values.to_pylist()), "signs of zeros"
    assert len(folders) == len(values), "different values have different folders"


def test_partition_values_are_pythons(tmp_path: Path) -> None:
    types = {"label": pa.string(), "year": pa.int16(), "missing": pa.float32()}
    values = partition_values("label=0/year=2024/missing=__HIVE_DEFAULT_PARTITION__/f.parquet", types)
    assert values == {"label": "0", "year": 2024, "missing": None}
    assert hive_values("a=__HIVE_DEFAULT_PARTITION__/f.parquet") == {"a": None}


def test_partition_types_are_those_of_the_record_and_of_the_added_columns() -> None:
    schema = pa.schema([("year", pa.dictionary(pa.int8(), pa.int16())), ("label", pa.int64()), ("bytes", pa.binary())])
    record = {"column_types": base64.b64encode(schema.serialize().to_pybytes()).decode()}
    output = OutputConfig(path="/o", partition_by=("label", "year", "bytes", "late", "score", "truncated", "source_row"))
    found = {
        **{"label": pa.string(), "year": pa.int16(), "bytes": pa.string(), "late": pa.string()},
        **{"score": pa.float32(), "truncated": pa.bool_(), "source_row": pa.int64()},
    }
    assert partition_types(json.loads(json.dumps(record)), output) == found
    assert [*partition_types(record, output)] == [*output.partition_by], "outermost first"
    assert partition_types({}, output)["year"] == pa.string(), "of an earlier version's output"
    several = output.model_copy(update={"partition_by": ("b_num_tokens", "a_label")})
    several = combined_output(several, columns_of_models(several, ["a", "b"]))
    assert partition_types(record, several) == {"b_num_tokens": pa.int32(), "a_label": pa.string()}


@pytest.mark.parametrize(
    "data_type",
    [
        *(pa.binary(), pa.list_(pa.int8()), pa.struct([("a", pa.int8())]), pa.duration("s"), pa.time64("ns"), pa.null()),
        *(pa.map_(pa.string(), pa.string()), pa.month_day_nano_interval()),
    ],
    ids=str,
)
def test_other_types_cannot_partition(data_type: pa.DataType) -> None:
    assert not can_partition(data_type)


@pytest.mark.parametrize(
    ("text", "data_type"),
    [
        *(("x", pa.int8()), ("300", pa.int8()), ("true", pa.bool_()), ("x", pa.decimal128(3)), ("1.5", pa.decimal128(3))),
        *(("2024", pa.date32()), ("", pa.float32()), ("2024", pa.timestamp("ns")), ("", pa.time32("s"))),
    ],
)
def test_a_renamed_folder_is_an_error_that_names_it(text: str, data_type: Any) -> None:
    with pytest.raises(UserError) as caught:
        partition_values(f"year={text}/f", {"year": data_type})
    said = f"year={text}/f: the column 'year' of the output is {data_type}, of which {text!r} is no value"
    assert str(caught.value).startswith(said)
