"""Columns and types of input files; those of JSON Lines are inferred from a sample."""

from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline_ops.inputs.input_files import UnreadableInput
from pipeline_ops.inputs.listing import find_inputs
from pipeline_ops.line_formats.csv_syntax import csv_delimiter
from pipeline_ops.line_formats.json_types import text_for_null
from pipeline_ops.reading.input_schema import column_names, infer_column_types, sample_columns
from pipeline_ops.storage.store import Store
from tests.support.corpora import real_documents, write_bytes, write_csv, write_jsonl, write_parquet
from tests.support.reading_path import input_of, read_path


def types_of(rows: list[dict], path: Path, **settings) -> dict[str, pa.DataType]:
    config = input_of(write_jsonl(path, rows), **settings)
    schema = infer_column_types(find_inputs(config, Store(config.path))[0], config, Store(config.path))
    return dict(zip(schema.names, schema.types, strict=True))


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.csv", b"id,text\n1,a\n", ["id", "text"]),
        ("a.csv", b'\xef\xbb\xbf"id","a ""b"", c",text\r\n', ["id", 'a "b", c', "text"]),
        ("a.csv", b'"two\nlines",text', ["two\nlines", "text"]),
        ("a.tsv", b"id\ttext\n", ["id", "text"]),
        ("a.csv.gz", b"id,text\n1,a\n", ["id", "text"]),
        ("a.csv", b"", []),
        ("a.jsonl", b'{"id": 1}\nbroken\n{"text": "a"}\n', ["id", "text"]),
        ("a.jsonl", b"", []),
        ("a.txt", b"whatever\n", ["text"]),
    ],
)
def test_column_names_of_each_format(tmp_path: Path, name: str, data: bytes, expected: list[str]) -> None:
    config = input_of(write_bytes(tmp_path / name, data))
    ((file,), _) = find_inputs(config, Store(config.path))
    assert sorted(column_names(file, config, Store(config.path))) == sorted(expected)


def test_column_names_of_parquet(tmp_path: Path) -> None:
    config = input_of(write_parquet(tmp_path / "a.parquet", [{"id": 1, "text": "a", "deep": {"x": 1}}]))
    ((file,), _) = find_inputs(config, Store(config.path))
    assert column_names(file, config, Store(config.path)) == ["id", "text", "deep"]


def test_delimiter_follows_the_suffix_unless_it_is_given(tmp_path: Path) -> None:
    for name in ("a.csv", "a.tsv.gz"):
        write_bytes(tmp_path / name, b"text\n")
    config = input_of(tmp_path)
    files, _ = find_inputs(config, Store(config.path))
    assert [csv_delimiter(file, config) for file in files] == [",", "\t"]
    assert [csv_delimiter(file, input_of("x", delimiter="|")) for file in files] == ["|", "|"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["000", "12"], pa.string()),
        (["2024-01-31", "2024-02-01"], pa.string()),
        ([1, None], pa.int64()),
        ([1, 2.5], pa.float64()),
        ([2**64 - 1, 0], pa.uint64()),
        ([True, None], pa.bool_()),
        ([None, None], pa.string()),
        ([[], []], pa.list_(pa.string())),
        ([["2024-01-31"], None], pa.list_(pa.string())),
        ([{"a": None, "day": "2024-01-31"}], pa.struct([("a", pa.string()), ("day", pa.string())])),
        (["a", "b", 1], pa.string()),
        ([1, 2, "a"], pa.string()),
        ([1, True], pa.string()),
        ([0.5, False], pa.string()),
        ([None, 1, 0.5, False], pa.string()),
        ([2**63, 1.5, -1], pa.float64()),
        ([1.5, 2**64 - 1], pa.string()),
        ([2**53 + 1, 1.5], pa.string()),
        ([2**53, 1.5], pa.float64()),
        ([2**64, 1], pa.string()),
        ([2**64 - 1, -1], pa.string()),
        ([True, 1, "a", None, [], {}], pa.string()),
        ([{"a": 1}, {"a": "x"}, {"a": 2}], pa.string()),
        ([[1, "x"], [2]], pa.string()),
        ([{"hash": 2**64 - 1}], pa.string()),
        ([[], [1]], pa.list_(pa.int64())),
    ],
)
def test_sample_gives_the_type_that_json_has(tmp_path: Path, values: list, expected: pa.DataType) -> None:
    found = types_of([{"text": "a", "column": value} for value in values], tmp_path / "a.jsonl")
    assert found["column"] == expected
    assert found["text"] == pa.string()


def test_sample_with_column_types_follows_them(tmp_path: Path) -> None:
    rows = [{"text": "a", "year": 2024, "id": 5}]
    found = types_of(rows, tmp_path / "a.jsonl", column_types={"year": "int16", "score": "float32"})
    assert found == {"text": pa.string(), "year": pa.int16(), "id": pa.int64(), "score": pa.float32()}


def test_sample_joins_the_columns_of_several_files(tmp_path: Path) -> None:
    for index in range(20):
        write_jsonl(tmp_path / f"{index:02}.jsonl", [{"text": "a", "common": index}])
    write_jsonl(tmp_path / "00.jsonl.gz", [{"text": "a", "extra": 1.5}])
    config = input_of(tmp_path)
    schema = infer_column_types(find_inputs(config, Store(config.path))[0], config, Store(config.path))
    assert schema.field("common").type == pa.int64()


@pytest.mark.parametrize(
    ("values", "known", "others", "expected"),
    [
        ([1, None, 2**53], pa.int64(), pa.float64(), pa.float64()),
        ([1, 2**53 + 1], pa.int64(), pa.float64(), pa.string()),
        ([1, -(2**60)], pa.int64(), pa.float32(), pa.string()),
        ([1, 2**64 - 1], pa.uint64(), pa.float64(), pa.string()),
        ([[1], [2**53]], pa.list_(pa.int64()), pa.list_(pa.float64()), pa.list_(pa.field("element", pa.float64()))),
        ([[1], [2**60]], pa.list_(pa.int64()), pa.list_(pa.float64()), pa.string()),
        ([{"a": 2**60}], pa.struct([("a", pa.int64())]), pa.struct([("a", pa.float64())]), pa.string()),
        ([2**31 - 1], pa.int32(), pa.float32(), pa.float64()),
        ([datetime(2020, 1, 1)], pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("ns")),
        ([datetime(9999, 12, 31)], pa.timestamp("us"), pa.timestamp("ns"), pa.string()),
        ([datetime(9999, 12, 31)], pa.timestamp("ms"), pa.timestamp("us"), pa.timestamp("us")),
        ([2**63 - 1], pa.int64(), pa.decimal128(10, 2), pa.decimal128(38, 2)),
        ([2**63 - 1], pa.int64(), pa.decimal128(38, 30), pa.string()),
        ([Decimal("12345678.91")], pa.decimal128(10, 2), pa.float32(), pa.string()),
        ([Decimal("12345678.91")], pa.decimal128(10, 2), pa.float64(), pa.string()),
    ],
)
def test_parquet_columns_of_several_types_have_one_that_keeps_every_value(
    tmp_path: Path, values: list, known: pa.DataType, others: pa.DataType, expected: pa.DataType
) -> None:
    """Beyond 2**53, doubles leave integers out; timestamp[ns] ends in 2262."""
    write_parquet(tmp_path / "a.parquet", pa.table({"text": ["a"] * len(values), "column": pa.array(values, known)}))
    write_parquet(tmp_path / "b.parquet", pa.table({"text": ["a"], "column": pa.nulls(1, others)}))
    config = input_of(tmp_path)
    files, _ = find_inputs(config, Store(config.path))
    assert infer_column_types(files, config, Store(config.path)).field("column").type == expected
    result = read_path(tmp_path)
    assert len(result.documents) == len(values) + 1


def test_json_integers_that_no_double_holds_are_text_beside_doubles(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [{"text": "a", "id": 1.5, "size": 1.5}])
    rows = [{"text": "a", "id": 2**60 + 1, "size": 2**53}]
    found = types_of(rows, tmp_path / "b.jsonl")
    assert (found["id"], found["size"]) == (pa.int64(), pa.int64())
    config = input_of(tmp_path)
    schema = infer_column_types(find_inputs(config, Store(config.path))[0], config, Store(config.path))
    assert (schema.field("id").type, schema.field("size").type) == (pa.string(), pa.float64())


def test_parquet_columns_without_statistics_may_have_any_value(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "id": [1]}), tmp_path / "a.parquet", write_statistics=False)
    write_parquet(tmp_path / "b.parquet", [{"text": "a", "id": 1.5}])
    config = input_of(tmp_path)
    schema = infer_column_types(find_inputs(config, Store(config.path))[0], config, Store(config.path))
    assert schema.field("id").type == pa.string()


def test_one_of_many_parquet_files_with_another_type_is_seen(tmp_path: Path) -> None:
    for index in range(20):
        write_parquet(tmp_path / f"{index:02}.parquet", [{"text": "a", "id": "x" if index == 3 else index}])
    config = input_of(tmp_path)
    schema = infer_column_types(find_inputs(config, Store(config.path))[0], config, Store(config.path))
    assert schema.field("id").type == pa.string()


def test_sample_of_a_text_column_with_other_values_is_text(tmp_path: Path) -> None:
    assert types_of([{"text": 1}, {"text": 2}, {"text": "a"}], tmp_path / "a.jsonl")["text"] == pa.string()


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.jsonl.bz2"])
@pytest.mark.parametrize("num_broken", [1, 12, 19])
def test_sample_with_truncated_files_is_one_of_the_others(tmp_path: Path, name: str, num_broken: int) -> None:
    """A file that cannot be read is quarantined when it is its turn."""
    for index, text in enumerate(real_documents(20)):
        write_jsonl(tmp_path / f"{index:02}-{name}", [{"text": text, "number": index}])
    for path in sorted(tmp_path.iterdir())[:num_broken]:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    config = input_of(tmp_path)
    files, _ = find_inputs(config, Store(config.path))
    assert infer_column_types(files, config, Store(config.path)) == pa.schema([("text", pa.string()), ("number", pa.int64())])
    assert sample_columns(files, config, Store(config.path))[0][0] in files[num_broken:]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.parquet", "a.csv.gz"])
def test_columns_of_files_of_which_none_can_be_read_name_the_first_of_them(tmp_path: Path, name: str) -> None:
    for index in range(3):
        (tmp_path / f"{index}-{name}").write_bytes(b"something else" * 10)
    config = input_of(tmp_path)
    with pytest.raises(UnreadableInput, match=f"0-{name} (cannot be read|is named).*2 others"):
        sample_columns(find_inputs(config, Store(config.path))[0], config, Store(config.path))


@pytest.mark.parametrize("name", ["a.parquet", "a.csv.gz"])
def test_columns_of_files_of_which_the_first_cannot_be_read_are_those_of_the_next(tmp_path: Path, name: str) -> None:
    (tmp_path / f"0-{name}").write_bytes(b"something else" * 10)
    write = write_parquet if "parquet" in name else write_csv
    write(tmp_path / f"1-{name}", [{"text": "a", "id": "x"}])
    config = input_of(tmp_path)
    files, _ = find_inputs(config, Store(config.path))
    ((seen, schema),) = sample_columns(files, config, Store(config.path))
    assert (schema.names, seen) == (["text", "id"], files[1])


def test_nulls_without_a_type_become_text_at_any_depth() -> None:
    inferred = pa.struct([("days", pa.list_(pa.null())), ("none", pa.null()), ("n", pa.int64())])
    expected = pa.struct([("days", pa.list_(pa.string())), ("none", pa.string()), ("n", pa.int64())])
    assert text_for_null(inferred) == expected
