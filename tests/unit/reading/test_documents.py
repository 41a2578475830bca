"""Columns keep the types and values that the files give them, format by format; chosen, missing and clashing columns."""

import json
import re
from dataclasses import replace
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline_ops.reading.documents import is_text_type
from tests.support.corpora import write_bytes, write_csv, write_jsonl, write_parquet
from tests.support.reading_path import SOURCE_COLUMNS, prepare, read_path, read_spans, spans_of, try_path, write_rows


def test_read_of_json_keeps_text_that_looks_like_dates_and_numbers(tmp_path: Path) -> None:
    row = {"id": "000", "day": "2024-01-31", "deep": {"at": ["2024-01-31T10:00:00"], "n": None}, "hash": 2**64 - 1, "o": {}}
    result = read_path(write_jsonl(tmp_path / "a.jsonl", [{"text": "2024-01-31", **row}]))
    (document,) = result.documents
    assert {name: document[name] for name in row} == {**row, "o": "{}"}
    assert document["text"] == "2024-01-31"


def test_read_of_json_columns_that_come_late_keeps_their_text(tmp_path: Path) -> None:
    """The types of columns come from the first mebibyte; later ones are text."""
    early = [{"text": "x" * 1000}] * 1200
    late = [{"text": "late", "day": "2024-01-31", "deep": [{"at": "2024-01-31T10:00:00"}]}, {"text": "later", "day": None}]
    result = read_path(write_jsonl(tmp_path / "a.jsonl", [*early, *late]), unit_bytes=10**9)
    assert result.documents[-2]["day"] == "2024-01-31"
    assert result.documents[-2]["deep"] == '[{"at": "2024-01-31T10:00:00"}]'
    assert result.documents[-1]["day"] is None
    assert len(result.documents) == 1202


def test_read_of_json_columns_that_come_late_with_mixed_types_loses_no_document(tmp_path: Path) -> None:
    early = [{"text": "x" * 1000}] * 1200
    late = [{"text": "late", "new": 1}, {"text": "later", "new": "x"}, {"text": "last", "new": {"x": [1]}}]
    result = read_path(write_jsonl(tmp_path / "a.jsonl", [*early, *late]), unit_bytes=10**9)
    assert (result.column("source_row"), result.rejected) == ([*range(1203)], [])
    assert [document["new"] for document in result.documents[-4:]] == [None, "1", "x", '{"x": [1]}']


def test_read_of_csv_keeps_every_value_as_text(tmp_path: Path) -> None:
    rows = [{"id": "000", "day": "2024-01-31", "text": "NA"}, {"id": "", "day": "null", "text": ""}]
    result = read_path(write_csv(tmp_path / "a.csv", rows))
    assert [{name: document[name] for name in rows[0]} for document in result.documents] == rows


def test_read_of_csv_with_column_types_gives_them(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a.csv", b"year,day,text\n2024,2024-01-31,a\n,,b\nx,,c\n")
    result = read_path(path, column_types={"year": "int16", "day": "date32"})
    assert result.tables[0].schema.field("year").type == pa.int16()
    assert result.tables[0].schema.field("day").type == pa.date32()
    assert result.column("year") == [2024, None, None]
    assert (result.rejected, result.misfits) == ([], [(2, "year", '"x"')])


def test_read_of_csv_with_its_own_delimiter_and_no_quotes(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a.csv", b'id|text\n1|"a\n2|b, "c"\n')
    result = read_path(path, delimiter="|", quote=None, unit_bytes=1)
    assert result.column("text") == ['"a', 'b, "c"']


def test_read_of_csv_with_a_quote_inside_a_plain_field_gives_every_row(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a.csv", b'id,text\n1,5" pipe\n2,valve\n3,7" pipe\n4,end\n')
    result = read_path(path)
    assert result.column("text") == ['5" pipe', "valve", '7" pipe', "end"]
    assert result.column("source_row") == [0, 1, 2, 3]


def test_read_of_parquet_leaves_every_column_as_it_was(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": pa.array(["a", "b", "c"], pa.large_string()),
            "nested": pa.array([{"x": [{"y": 1}], "z": None}, None, {"x": [], "z": b"\xff"}]),
            "lists": pa.array([[1, None], None, []], pa.list_(pa.int16())),
            "fixed": pa.array([[1.5, 2.5], None, [0.0, -1.0]], pa.list_(pa.float32(), 2)),
            "map": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int8())),
            "bytes": pa.array([b"\x00", None, b"\xff"]),
            "kind": pa.array(["p", None, "p"]).dictionary_encode(),
            "big": pa.array([2**64 - 1, None, 0], pa.uint64()),
            "money": pa.array([Decimal("1.10"), None, Decimal("-0.01")], pa.decimal128(9, 2)),
            "at": pa.array([0, None, 1], pa.timestamp("us", "Europe/Kyiv")),
            "none": pa.nulls(3),
            "day": pa.array(["2024-01-31", "000", None]),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    result = read_path(tmp_path / "a.parquet")
    read = pa.concat_tables(result.tables).select(table.column_names)
    expected = pq.read_table(tmp_path / "a.parquet")
    expected = expected.set_column(6, "kind", expected["kind"].cast(pa.string()))  # a later file may have more categories
    expected = expected.set_column(10, "none", pa.nulls(3, pa.string()))  # a later file may have values, which text can hold
    assert read.schema.remove_metadata() == expected.schema.remove_metadata()
    assert read.to_pylist() == table.to_pylist()


@pytest.mark.parametrize(
    "data_type",
    [pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.dictionary(pa.int32(), pa.string()), pa.string_view()],
)
def test_read_of_parquet_text_of_any_text_type_keeps_it_and_rejects_null(tmp_path: Path, data_type: pa.DataType) -> None:
    values = pa.array(["a", None, "ü"], pa.string())
    values = values.dictionary_encode() if pa.types.is_dictionary(data_type) else values.cast(data_type)
    pq.write_table(pa.table({"text": values}), tmp_path / "a.parquet")
    result = read_path(tmp_path / "a.parquet")
    texts = [text.decode() if isinstance(text, bytes) else text for text in result.column("text")]
    assert (texts, result.rejected) == (["a", "ü"], [(1, "null_text")])


def test_read_of_parquet_bytes_rejects_the_undecodable(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([b"a", b"\xff", "ü".encode()])}), tmp_path / "a.parquet")
    result = read_path(tmp_path / "a.parquet")
    assert (result.column("source_row"), result.rejected) == ([0, 2], [(1, "undecodable")])


def test_read_of_parquet_text_that_is_no_text_rejects_every_row(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [{"text": 1}, {"text": None}])
    assert read_path(tmp_path / "a.parquet").rejected == [(0, "not_a_string"), (1, "not_a_string")]


def test_read_of_parquet_without_the_text_column_names_those_it_has(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [{"body": "a", "id": 1}])
    (failure,) = try_path(tmp_path / "a.parquet").failures
    assert failure.error == "UserError"
    assert re.search(r"input\.text_column.*body.*id", failure.message)


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.csv"])
def test_read_of_chosen_columns_gives_those_and_the_text(tmp_path: Path, name: str) -> None:
    path = write_rows(tmp_path / name, [{"id": "0", "text": "a", "other": "x"}])
    (document,) = read_path(path, columns=("id",)).documents
    assert document.keys() - set(SOURCE_COLUMNS) == {"id", "text"}


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.csv"])
def test_read_of_a_column_that_labeling_adds_names_the_key_that_renames_it(tmp_path: Path, name: str) -> None:
    path = write_rows(tmp_path / name, [{"text": "a", "label": "x"}])
    (failure,) = try_path(path).failures
    assert failure.error == "UserError"
    assert "output.label_name" in failure.message
    assert read_path(path, columns="none").column("text") == ["a"]


@pytest.mark.parametrize(
    ("data_type", "expected"),
    [
        (pa.string(), True),
        (pa.large_string(), True),
        (pa.string_view(), True),
        (pa.binary(), True),
        (pa.dictionary(pa.int32(), pa.string()), True),
        (pa.int64(), False),
        (pa.list_(pa.string()), False),
        (pa.dictionary(pa.int32(), pa.int64()), False),
        (pa.timestamp("s"), False),
    ],
)
def test_text_types_are_distinguished_from_others(data_type: pa.DataType, expected: bool) -> None:
    assert is_text_type(data_type) is expected


DECLARED = {"day": "date32", "date": "date64", "time": "time64[us]", "half": "halffloat", "at": "timestamp[ms]"}


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_read_of_texts_as_declared_dates_times_and_half_floats(tmp_path: Path, name: str) -> None:
    fit = {"day": "2024-01-31", "date": "2024-01-31", "time": "10:00:00.5", "half": "1.5", "at": "2024-01-31 10:00:00"}
    unfit = {"day": "31.1.", "date": "2024-02-31", "time": "25:00:00", "half": "a", "at": "today"}
    rows = [{"text": "a", **fit}, *({"text": "b", **fit, column: value} for column, value in unfit.items())]
    if name == "a.jsonl":
        write_jsonl(tmp_path / name, [{**row, "half": float(row["half"]) if row["half"] != "a" else "a"} for row in rows])
    else:
        write_csv(tmp_path / name, rows)
    result = read_path(tmp_path / name, column_types=DECLARED)
    assert result.rejected == []
    assert result.misfits == [(row, name, json.dumps(value)) for row, (name, value) in enumerate(unfit.items(), 1)]
    document, *others = result.documents
    for other, column in zip(others, unfit, strict=True):
        assert {**document, "text": "b", column: None} == {**other, "source_row": 0}
    assert [document[column] for column in DECLARED] == [
        date(2024, 1, 31),
        date(2024, 1, 31),
        time(10, 0, 0, 500_000),
        1.5,
        datetime(2024, 1, 31, 10),
    ]


def test_read_of_json_lines_beside_parquet_types_that_json_lacks(tmp_path: Path) -> None:
    odd = {
        "fixed": pa.array([b"abc"], pa.binary(3)),
        "uuid": pa.array([b"0123456789abcdef"], pa.uuid()),
        "view": pa.array([[1]], pa.list_view(pa.int64())),
        "json": pa.array(["{}"], pa.json_()),
        "deep": pa.array([{"fixed": b"abc", "times": [time(1)]}]).cast(
            pa.struct([("fixed", pa.binary(3)), ("times", pa.list_(pa.time32("s")))])
        ),
    }
    write_parquet(tmp_path / "a.parquet", pa.table({"text": ["a"], **odd}))
    write_jsonl(tmp_path / "b.jsonl", [{"text": "b"}, {"text": "c"}])
    result = read_path(tmp_path)
    assert result.rejected == []
    assert [document["text"] for document in result.documents] == ["a", "b", "c"]
    assert [document["view"] for document in result.documents] == [[1], None, None]
    assert {document["fixed"] for document in result.documents} == {b"abc", None}


def test_read_of_one_number_in_a_field_of_texts_leaves_the_other_lines(tmp_path: Path) -> None:
    """Dates, decimals and times beside it are parsed as they are in the other lines."""
    meta = {"when": "2024-01-31T10:00:00", "price": "1.50", "day": "2024-01-31", "time": "10:00:00", "id": "q"}
    metas = [meta, {**meta, "id": 5}, {**meta, "when": "today"}, {**meta, "time": "late", "id": 5}, {**meta, "price": 1.5}]
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "a", "meta": meta} for meta in metas])
    fields = [("when", pa.timestamp("us")), ("price", pa.decimal128(10, 2)), ("day", pa.date32()), ("time", pa.time32("s"))]
    types = pa.schema([("text", pa.string()), ("meta", pa.struct([*fields, ("id", pa.string())]))])
    files, settings = prepare(path)
    result = read_spans(spans_of(files), replace(settings, column_types=types))
    expected = (datetime(2024, 1, 31, 10), Decimal("1.50"), date(2024, 1, 31), time(10))
    found = [value and tuple(value.values()) for value in result.column("meta")]
    assert found == [(*expected, "q"), (*expected, "5"), None, None, (*expected, "q")]
    late = {**metas[3], "when": "2024-01-31 10:00:00", "id": "5"}  # as the column's strings and timestamps have it
    assert [(row, json.loads(value)) for row, _, value in result.misfits] == [(2, metas[2]), (3, late)]
    assert result.rejected == []


def test_read_of_chosen_columns_keeps_late_fields_beside_any_others(tmp_path: Path) -> None:
    early = [{"text": "x" * 1000, "meta": {"a": 1}, "other": index % 2} for index in range(1200)]
    late = [{"text": "a", "meta": {"a": 2, "day": "2024-01-31"}, "other": "x"}, {"text": "b", "meta": {"a": 3}, "new": 1}]
    result = read_path(write_jsonl(tmp_path / "a.jsonl", [*early, *late]), columns=["meta"], unit_bytes=10**9)
    assert result.rejected == []
    assert result.column("meta")[-3:] == [{"a": 1, "day": None}, {"a": 2, "day": "2024-01-31"}, {"a": 3, "day": None}]
    assert {*result.documents[0]} == {"text", "meta", *SOURCE_COLUMNS}
