"""Columns of each type are read from the table as they are, or refused before the run; so are columns that some files lack."""

import base64
import datetime
import json
import math
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from jobs.run.plan import plan
from pipeline_ops.schema.errors import UserError
from tests.support.corpora import write_bytes, write_jsonl, write_parquet
from tests.support.running import command, make_job, write_job_file
from tests.support.serial_chain import run_serially
from tests.support.table_readers import READERS, Published

FORMATS = ["delta", "iceberg"]
TIMES = [0, None, -1, 1_700_000_000_001]
VALUES: dict[str, pa.Array] = {
    "half": pa.array([0.1, None, -0.0, math.inf], pa.float16()),
    "i8": pa.array([-128, None, 127, 0], pa.int8()),
    "u8": pa.array([255, None, 128, 0], pa.uint8()),
    "u16": pa.array([2**16 - 1, None, 2**15, 0], pa.uint16()),
    "u32": pa.array([2**32 - 1, None, 2**31, 0], pa.uint32()),
    "large": pa.array(["é", None, "", "z"], pa.large_string()),
    "bytes": pa.array([b"\xff", None, b"", b"z"], pa.binary()),
    "fixed": pa.array([b"\xff\x00", None, b"ab", b"zz"], pa.binary(2)),
    "day": pa.array([datetime.date(1, 1, 1), None, datetime.date(9999, 12, 31), datetime.date(1969, 12, 31)]),
    "ms": pa.array(TIMES, pa.timestamp("ms")),
    "us": pa.array(TIMES, pa.timestamp("us")),
    "utc": pa.array(TIMES, pa.timestamp("us", "UTC")),
    "decimal": pa.array([Decimal("1.10"), None, Decimal("-0.01"), Decimal("9" * 36 + ".99")], pa.decimal128(38, 2)),
    "object": pa.array([{"a": 1, "b c.d": [255]}, None, {"a": None, "b c.d": None}, {"a": 2, "b c.d": []}]).cast(
        pa.struct([("a", pa.int64()), ("b c.d", pa.list_(pa.uint8()))])
    ),
    "map": pa.array([[("k", 1)], None, [], [("z", None)]], pa.map_(pa.string(), pa.int64())),
    "vector": pa.array([[0.5, 1.0], None, [1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float16(), 2)),
    "category": pa.array(["b", None, "a", "b"]).dictionary_encode(),
    "odd ,;{}()\n\t=/%`\"'": pa.array([1, None, 2, 3]),
}
REFUSED = {
    "u64": (pa.array([1], pa.uint64()), FORMATS, "int64"),
    "ns": (pa.array([1], pa.timestamp("ns")), FORMATS, "timestamp[us]"),
    "nested_ns": (pa.array([[1]], pa.list_(pa.timestamp("ns"))), FORMATS, "string"),
    "span": (pa.array([1], pa.duration("s")), FORMATS, "string"),
    "clock": (pa.array([1], pa.time32("ms")), FORMATS, {"delta": "string", "iceberg": "time64[us]"}),
    "long": (pa.array([Decimal(1)], pa.decimal256(60, 2)), FORMATS, "string"),
    "berlin": (pa.array([1], pa.timestamp("us", "Europe/Berlin")), ["iceberg"], "string"),
    "twins": (pa.array([{"a": 1, "A": 2}]), FORMATS, "string"),
}


def texts(count: int) -> list[str]:
    return [f"a text {row}" for row in range(count)]


def expected(table: pa.Table) -> list[dict[str, Any]]:
    """Rows for comparison: NaN and signed zeros by how they are written, time zones alike, of objects the fields by name."""
    return [{name: repr(_plain(value)) for name, value in row.items()} for row in table.to_pylist()]


def _plain(value: Any) -> Any:
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.UTC) if value.tzinfo else value
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in sorted(value.items())}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.slow
@pytest.mark.parametrize("table_format", FORMATS)
def test_engines_read_columns_of_each_type(model: Path, tmp_path: Path, table_format: str) -> None:
    table = pa.table({"text": texts(4), **VALUES})
    write_parquet(tmp_path / "in" / "a.parquet", table)
    run_serially(make_job(tmp_path / "in", model, tmp_path / "out", f"output.table={table_format}"), quiet=True)
    for engine, read in READERS[table_format].items():
        if engine != "Polars":  # which takes a list's fixed length from the files, and then misses it in the table
            assert expected(read(Published(str(tmp_path / "out"))).select(table.column_names)) == expected(table), engine


@pytest.mark.parametrize("table_format", FORMATS)
def test_types_that_engines_do_not_read_are_refused_before_the_run(model: Path, tmp_path: Path, table_format: str) -> None:
    for name, (values, formats, remedy) in REFUSED.items():
        write_parquet(tmp_path / name / "a.parquet", pa.table({"text": ["a"], name: values}))
        job = make_job(tmp_path / name, model, tmp_path / "out", f"output.table={table_format}")
        if table_format not in formats:
            plan(job)
            continue
        wanted = remedy if isinstance(remedy, str) else remedy[table_format]
        with pytest.raises(UserError) as caught:
            plan(job)
        assert f"output.table: column {name!r} is " in str(caught.value)
        assert "which engines do not read from" in str(caught.value)
        assert f"set input.column_types={{{name}: {wanted}}}, or leave it out by output.columns" in str(caught.value)
        remedies = [f"input.column_types={{{name}: '{wanted}'}}"] if name != "nested_ns" else []
        for setting in (*remedies, "output.columns=[text]"):
            plan(make_job(tmp_path / name, model, tmp_path / "out", f"output.table={table_format}", setting))


@pytest.mark.parametrize(
    ("rows", "settings", "said"),
    [
        ({"Id": 1, "id": 2}, [], "output.table: the columns 'Id' and 'id' differ in upper and lower case alone"),
        ({"Score": 1}, [], "output.table: the columns 'Score' and 'score' differ in upper and lower case alone"),
        ({}, ["model.id2label={0: ''}"], "has a label without a name, which Delta tables take for null"),
    ],
)
def test_names_that_a_table_cannot_have_are_refused_before_the_run(
    model: Path, tmp_path: Path, rows: dict[str, Any], settings: list[str], said: str
) -> None:
    write_jsonl(tmp_path / "in.jsonl", [{"text": "a", **rows}])
    job = partial(make_job, tmp_path / "in.jsonl", model, tmp_path / "out", "output.table=delta", *settings)
    with pytest.raises(UserError) as caught:
        run_serially(job(), quiet=True)
    assert said in str(caught.value)
    assert not (tmp_path / "out").exists()
    for setting in ["output.partition_by=[]", "output.table=none"] if settings else ["output.table=none"]:
        plan(job(setting))


@pytest.mark.parametrize("table_format", ["delta", pytest.param("iceberg", marks=pytest.mark.slow)])
def test_columns_and_fields_that_come_later_are_read_as_null_before(model: Path, tmp_path: Path, table_format: str) -> None:
    """Also fields of objects, at any depth."""
    source, output = tmp_path / "in", tmp_path / "out"
    job = make_job(source, model, output, f"output.table={table_format}", "output.scores=true")
    write_bytes(source / "a.jsonl", b'{"text": "a", "n": {"x": 1}, "l": [{"x": 1}]}\n')
    run_serially(job, quiet=True)
    write_bytes(source / "b.jsonl", b'{"text": "b", "late": "c", "n": {"x": 2, "y": {"z": "d"}}, "l": [{"w": "e"}]}\n')
    run_serially(job, quiet=True)
    rows = [
        {"text": "a", "late": None, "n": {"x": 1, "y": None}, "l": [{"x": 1, "w": None}]},
        {"text": "b", "late": "c", "n": {"x": 2, "y": '{"z": "d"}'}, "l": [{"x": None, "w": "e"}]},
    ]
    for engine, read in READERS[table_format].items():
        if engine != "Polars":
            found = read(Published(str(output))).select(["text", "late", "n", "l"])
            assert found.to_pylist() == rows, engine
    record = json.loads((output / "_job.json").read_text())
    other = pa.schema([("text", pa.string()), ("late", pa.int64())])
    record["column_types"] = base64.b64encode(other.serialize().to_pybytes()).decode()
    (output / "_job.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"^output\.table: column 'late' is int64, and string in the .* table so far; delete"):
        plan(job)
    assert command("verify", write_job_file(tmp_path / "job.yaml", job.model_dump(mode="json"))).result["ok"]
