"""Typed values in columns of another type: as they are, or misfits, never another value."""

import datetime as dt
import json
import math
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.support.corpora import write_csv, write_jsonl, write_parquet
from tests.support.reading_path import Result, prepare, read_path, read_spans, spans_of

NOON = dt.datetime(2020, 1, 1, 12, 34)
DAY = dt.datetime(2020, 1, 1)


def read_as(tmp_path: Path, values: pa.Array, settled: pa.DataType, **settings: Any) -> Result:
    """A Parquet column as a later run reads it into an output in which its type is settled."""
    path = write_parquet(tmp_path / "a.parquet", pa.table({"text": ["a"] * len(values), "v": values}))
    files, prepared = prepare(path, **settings)
    return read_spans(spans_of(files), replace(prepared, column_types=pa.schema([("text", pa.string()), ("v", settled)])))


@pytest.mark.parametrize(
    ("values", "settled"),
    [
        (pa.array([2, 1]), pa.bool_()),
        (pa.array([True]), pa.int64()),
        (pa.array([True]), pa.float64()),
        (pa.array([1577836800]), pa.timestamp("us")),
        (pa.array([18262], pa.int32()), pa.date32()),
        (pa.array([3723], pa.int32()), pa.time32("s")),
        (pa.array([1500]), pa.duration("s")),
        (pa.array([5], pa.duration("s")), pa.int64()),
        (pa.array([DAY]), pa.int64()),
        (pa.array([NOON], pa.timestamp("us")), pa.date32()),
        (pa.array([NOON], pa.timestamp("us")), pa.time64("us")),
        (pa.array([DAY], pa.timestamp("us")), pa.timestamp("us", "UTC")),
        (pa.array([DAY], pa.timestamp("us", "UTC")), pa.timestamp("us")),
        (pa.array([NOON], pa.timestamp("us")), pa.timestamp("s", "UTC")),
        (pa.array([0.1 + 0.2]), pa.decimal128(10, 2)),
        (pa.array([Decimal("0.12345678901234567890")]), pa.float64()),
        (pa.array([0.1]), pa.float32()),
        (pa.array([1e300]), pa.float32()),
        (pa.array(["007", " 12 ", "+1", "x"]), pa.int64()),
        (pa.array(["1", "yes"]), pa.bool_()),
        (pa.array([[True]]), pa.list_(pa.int64())),
        (pa.array([[0.1]]), pa.list_(pa.float32())),
        (pa.array([["007"]]), pa.list_(pa.int64())),
        (pa.array([{"a": True}]), pa.struct([("a", pa.int64())])),
        (pa.array([[{"a": 1577836800}]]), pa.list_(pa.struct([("a", pa.timestamp("s"))]))),
    ],
    ids=str,
)
def test_value_that_a_cast_would_change_is_a_misfit(tmp_path: Path, values: pa.Array, settled: pa.DataType) -> None:
    result = read_as(tmp_path, pa.concat_arrays([values, pa.nulls(1, values.type)]), settled)
    assert result.column("v") == [None] * (len(values) + 1)
    assert [row for row, _, _ in result.misfits] == [*range(len(values))]
    assert all(json.loads(value) is not None for _, _, value in result.misfits)


@pytest.mark.parametrize(
    ("values", "settled", "expected"),
    [
        (pa.array([7, None], pa.int32()), pa.int64(), [7, None]),
        (pa.array([7]), pa.int8(), [7]),
        (pa.array([0.5, math.nan, -0.0], pa.float32()), pa.float64(), [0.5, math.nan, -0.0]),
        (pa.array([0.5, math.nan]), pa.float32(), [0.5, math.nan]),
        (pa.array([[0.5, math.nan]]), pa.list_(pa.float32()), [[0.5, math.nan]]),
        (pa.array([7.0, math.nan]), pa.int64(), [7, None]),
        (pa.array([1.25, 0.1]), pa.decimal128(10, 2), [Decimal("1.25"), Decimal("0.10")]),
        (pa.array([3]), pa.decimal128(38, 2), [Decimal("3.00")]),
        (pa.array([Decimal("1.5")]), pa.float64(), [1.5]),
        (pa.array([dt.date(2020, 1, 1)]), pa.timestamp("us"), [DAY]),
        (pa.array([DAY], pa.timestamp("us")), pa.date32(), [dt.date(2020, 1, 1)]),
        (pa.array([NOON], pa.timestamp("s")), pa.timestamp("us"), [NOON]),
        (pa.array(["7", "-1", None]), pa.int64(), [7, -1, None]),
        (pa.array(["0.5"]), pa.float64(), [0.5]),
        (pa.array(["2020-01-01"]), pa.date32(), [dt.date(2020, 1, 1)]),
        (pa.array(["a"]).dictionary_encode(), pa.string(), ["a"]),
        (pa.array([{"a": 1}]), pa.struct([("a", pa.int64()), ("b", pa.string())]), [{"a": 1, "b": None}]),
        (pa.array([[1]], pa.list_(pa.int8())), pa.list_(pa.string()), [["1"]]),
    ],
    ids=str,
)
def test_value_that_both_types_hold_stays(tmp_path: Path, values: pa.Array, settled: pa.DataType, expected: list[Any]) -> None:
    result = read_as(tmp_path, values, settled)
    assert (repr(result.column("v")), result.misfits) == (repr(expected), [])


@pytest.mark.parametrize(
    ("values", "alias", "expected"),
    [
        (pa.array([0.1, 1e300]), "float32", [pa.scalar(0.1, pa.float32()).as_py(), None]),
        (pa.array([1577836800]), "timestamp[s]", [DAY]),
        (pa.array([0, 1, 2]), "bool", [False, True, None]),
        (pa.array([DAY, NOON]), "date32", [dt.date(2020, 1, 1), None]),
        (pa.array(["007", "x"]), "int64", [7, None]),
    ],
    ids=str,
)
def test_declared_type_casts_other_kinds_and_keeps_what_it_cannot_hold(
    tmp_path: Path, values: pa.Array, alias: str, expected: list[Any]
) -> None:
    result = read_as(tmp_path, values, pa.type_for_alias(alias), column_types={"v": alias})
    assert result.column("v") == expected
    assert len(result.misfits) == expected.count(None)


@pytest.mark.parametrize("columns", ["all", ("id",)])
def test_value_of_a_folder_that_does_not_fit_is_a_misfit_of_rows_without_one(tmp_path: Path, columns: Any) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"text": "a", "year": 2020, "id": 1}])
    rows = [{"text": "b", "id": 2}, {"text": "c", "year": 2021, "id": 3}, {"text": "d", "year": "x", "id": "y"}]
    write_jsonl(tmp_path / "year=unknown" / "b.jsonl", rows)
    files, settings = prepare(tmp_path, columns=columns)
    types = pa.schema([("text", pa.string()), ("year", pa.int64()), ("id", pa.int64())])
    result = read_spans(spans_of(files), replace(settings, column_types=types))
    assert result.column("text") == ["a", "b", "c", "d"]
    if columns == "all":
        assert result.column("year") == [2020, None, 2021, None]
        assert result.misfits == [(0, "year", '"unknown"'), (2, "year", '"x"'), (2, "id", '"y"')]
    else:
        assert result.misfits == [(2, "id", '"y"')]


def test_text_of_csv_is_parsed(tmp_path: Path) -> None:
    rows = [{"text": "a", "n": "007"}, {"text": "b", "n": "1.5"}]
    result = read_path(write_csv(tmp_path / "a.csv", rows), column_types={"n": "int64"})
    assert (result.column("n"), [value for _, _, value in result.misfits]) == ([7, None], ['"1.5"'])
