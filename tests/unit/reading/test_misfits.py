"""Values that do not fit the type of their column: the document is read whatever stands there, no value is lost or changed."""

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline_ops.reading import input_schema
from tests.support.corpora import write_bytes, write_csv, write_jsonl, write_parquet
from tests.support.reading_path import prepare, read_path, read_spans, spans_of, try_path

LONE = "\ud83e"


def any_value(rng: random.Random, depth: int = 0) -> Any:
    kinds = [
        lambda: None,
        lambda: rng.random() < 0.5,
        lambda: rng.randrange(-300, 300),
        lambda: rng.choice([2**31, -(2**31) - 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**400]),
        lambda: rng.choice([0.5, -0.0, 1e300, 5.0, 1e-320, 123456789.125, math.nan, math.inf]),
        lambda: rng.choice(["", "text", "n/a", "12", "1.5", "true", "null", "2024-01-31", "ü🤗", "\u0000", LONE]),
        lambda: {rng.choice("abcz"): any_value(rng, depth + 1) for _ in range(rng.randrange(3))},
        lambda: [any_value(rng, depth + 1) for _ in range(rng.randrange(3))],
    ]
    return rng.choice(kinds[: 6 if depth > 2 else 8])()


def usual_value(rng: random.Random, kind: str) -> Any:
    """A value of a column that has one kind of them."""
    return {
        "bool": lambda: rng.random() < 0.5,
        "int": lambda: rng.randrange(-1000, 1000),
        "large": lambda: rng.choice([2**63, 2**64 - 1, 7]),
        "double": lambda: rng.choice([0.5, 7, -3.25]),
        "string": lambda: rng.choice(["a", "2024-01-31", ""]),
        "object": lambda: {"a": rng.randrange(9), "b": rng.choice(["x", None]), "c": {"z": [0.5]}},
        "list": lambda: [rng.randrange(9) for _ in range(rng.randrange(3))],
        "objects": lambda: [{"a": rng.random()} for _ in range(rng.randrange(3))],
        "null": lambda: None,
    }[kind]()


KINDS = ("bool", "int", "large", "double", "string", "object", "list", "objects", "null")


def is_same(found: Any, value: Any, data_type: pa.DataType) -> bool:
    """Whether a column has a JSON value: a string has what is no string as JSON, an object has null in each field it lacks."""
    if value is None or found is None:
        return found is value
    if pa.types.is_string(data_type) and not isinstance(value, str):
        return isinstance(found, str) and repr(json.loads(found)) == repr(value)
    if pa.types.is_struct(data_type):
        names = {field.name for field in data_type}
        return (
            isinstance(value, dict)
            and value.keys() <= names
            and all(is_same(found[field.name], value.get(field.name), field.type) for field in data_type)
        )
    if pa.types.is_list(data_type):
        pairs = zip(found, value, strict=True) if isinstance(value, list) and len(value) == len(found) else [(0, None)]
        return all(is_same(one, other, data_type.value_type) for one, other in pairs)
    if isinstance(found, float) and isinstance(value, float):
        return repr(found) == repr(value)
    return (
        isinstance(value, bool) == isinstance(found, bool)
        and isinstance(value, str) == isinstance(found, str)
        and found == value
    )


@pytest.mark.parametrize("seed", range(12))
def test_read_of_random_json_keeps_each_document_and_each_value(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(input_schema, "TYPE_SAMPLE_BYTES", 3000)
    kinds = {f"{kind}_{number}": kind for number, kind in enumerate(rng.sample(KINDS, 6))}
    rows = []
    for number in range(250):
        row = {"text": f"document {number}"}
        for name, kind in kinds.items():
            if rng.random() < 0.9:
                row[name] = any_value(rng) if number > 60 and rng.random() < 0.15 else usual_value(rng, kind)
        if number > 100 and rng.random() < 0.1:
            row[rng.choice(["late", "later"])] = any_value(rng)
        rows.append(row)
    path = write_bytes(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    result = read_path(path, unit_bytes=rng.choice([2000, 20_000, 10**9]))
    assert result.rejected == []
    assert result.column("text") == [row["text"] for row in rows]
    misfits = {(row, name): json.loads(value) for row, name, value in result.misfits}
    assert len(misfits) == len(result.misfits)
    read = [(document, table.schema) for table in result.tables for document in table.to_pylist()]
    for number, (row, (document, schema)) in enumerate(zip(rows, read, strict=True)):
        assert row.keys() <= document.keys()
        for name in document.keys() - {"source_file", "source_row", "label_corpus:misfits"}:
            if (number, name) in misfits:
                assert (document[name], repr(misfits.pop((number, name)))) == (None, repr(row[name]))
            else:
                assert is_same(document[name], row.get(name), schema.field(name).type), (number, name)
    assert misfits == {}


@pytest.mark.parametrize("seed", range(4))
def test_read_of_random_json_does_not_depend_on_how_it_is_cut(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(input_schema, "TYPE_SAMPLE_BYTES", 1000)
    rows = [
        {"text": "a", "n": any_value(rng) if number > 60 else 1, "m": any_value(rng) if number > 60 else {"a": 0.5, "z": "x"}}
        for number in range(200)
    ]
    path = write_bytes(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    whole, parts = (read_path(path, unit_bytes=size) for size in (10**9, 500))
    assert len(parts.units) > 10
    assert sorted(parts.misfits) == sorted(whole.misfits)
    assert [document["n"] for document in parts.documents] == [document["n"] for document in whole.documents]


@pytest.mark.parametrize(
    ("late", "sampled", "misfits"),
    [
        (False, 0.5, ["false"]),
        (2**63, -1, ["9223372036854775808"]),
        (-1, 2**63, ["-1"]),
        (0.5, 2**63, ["0.5"]),
        (2**53 + 1, 0.5, ["9007199254740993"]),
        (2**63, 0.5, []),
        (2**64 - 1, 0.5, ["18446744073709551615"]),
        ({"a": 2**53 + 1}, {"a": 0.5}, ['{"a": 9007199254740993}']),
        ([2**53 + 1], [0.5], ["[9007199254740993]"]),
        ({"a": 1}, [1], ['{"a": 1}']),
        ([], {"a": 1}, ["[]"]),
        ("n/a", 1, ['"n/a"']),
        (LONE, "text", ['"\\ud83e"']),
        ({LONE: 1}, {"a": 1}, ['{"\\ud83e": 1}']),
        (5.0, 1, ["5.0"]),
        (10**400, 0.5, ["1" + "0" * 400]),
    ],
)
def test_read_of_a_late_value_keeps_it_and_its_neighbors(late: Any, sampled: Any, misfits: list[str], tmp_path: Path) -> None:
    rows = [{"text": "x" * 1000, "n": sampled, "s": "y"} for _ in range(1200)] + [{"text": "a", "n": late, "s": "z"}]
    result = read_path(write_bytes(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)).encode()), unit_bytes=10**9)
    assert result.rejected == []
    assert [value for _, _, value in result.misfits] == misfits
    *others, last = result.documents
    assert all(document["n"] == sampled for document in others)
    assert (last["n"], last["s"]) == (None if misfits else late, "z")


def test_read_of_an_object_with_a_key_twice_in_another_column_keeps_both(tmp_path: Path) -> None:
    lines = [b'{"text": "a", "meta": {"n": 1}, "s": "x"}', b'{"text": "b", "meta": {"n": 1, "n": 2}, "s": {"n": 1, "n": 2}}']
    files, settings = prepare(write_bytes(tmp_path / "a.jsonl", b"\n".join(lines)))
    types = pa.schema([("text", pa.string()), ("meta", pa.struct([("n", pa.int64())])), ("s", pa.string())])
    result = read_spans(spans_of(files), replace(settings, column_types=types))
    assert (result.rejected, result.misfits) == ([], [(1, "meta", '{"n": 1, "n": 2}')])
    assert (result.column("meta"), result.column("s")) == ([{"n": 1}, None], ["x", '{"n": 1, "n": 2}'])


def test_read_of_a_value_nested_too_deep_for_arrow_keeps_the_document(tmp_path: Path) -> None:
    deep = "[" * 900 + "1" + "]" * 900
    lines = ['{"text": "a", "n": 1}', f'{{"text": "b", "n": {deep}}}', f'{{"text": "c", "wide": [{deep}{", [[]]" * 4000}]}}']
    result = read_path(write_bytes(tmp_path / "a.jsonl", "\n".join(lines).encode()))
    assert (result.column("text"), result.rejected) == (["a", "b", "c"], [])
    assert [(row, value) for row, _, value in result.misfits] == [(1, deep)]


@pytest.mark.parametrize("data_type", [pa.string(), pa.float64(), pa.struct([("a", pa.string())]), pa.list_(pa.int8())])
def test_read_of_parquet_files_with_other_types_keeps_each_value(data_type: pa.DataType, tmp_path: Path) -> None:
    """As a later run reads them, in which the types are settled."""
    values = {
        pa.string(): ["7", "x", None],
        pa.float64(): [7.0, 0.5, None],
        pa.struct([("a", pa.string())]): [{"a": "x"}, {"a": None}, None],
        pa.list_(pa.int8()): [[1], [], None],
    }[data_type]
    files, settings = prepare(
        write_parquet(tmp_path / "a.parquet", pa.table({"text": ["a"] * 3, "n": pa.array(values, data_type)}))
    )
    types = pa.schema([("text", pa.string()), ("n", pa.int16())])
    result = read_spans(spans_of(files), replace(settings, column_types=types))
    misfits = {row: json.loads(value) for row, _, value in result.misfits}
    assert result.rejected == []
    assert [misfits.get(row, found) for row, found in enumerate(result.column("n"))] == [
        int(value) if value in ("7", 7.0) else value for value in values
    ]


def test_read_of_dates_that_python_lacks_keeps_them(tmp_path: Path) -> None:
    dates = pa.array([316_516_680_000, 0, None], pa.timestamp("s"))
    table = pa.table(
        {"text": ["a"] * 3, "at": dates, "list": pa.array([[316_516_680_000], [0], None], pa.list_(pa.timestamp("s")))}
    )
    files, settings = prepare(write_parquet(tmp_path / "a.parquet", table))
    types = pa.schema([("text", pa.string()), ("at", pa.bool_()), ("list", pa.string())])
    result = read_spans(spans_of(files), replace(settings, column_types=types))
    assert len(result.misfits) == 2
    assert result.misfits[0][2].startswith('"12000-')
    assert result.documents[0]["list"].startswith('["12000-')


def test_read_of_csv_with_a_null_spelling_gives_null_and_keeps_the_rest(tmp_path: Path) -> None:
    rows = [{"text": "a", "n": value} for value in ("1", " 2 ", "NA", "", "three", "70000")]
    result = read_path(write_csv(tmp_path / "a.csv", rows), column_types={"n": "int16"})
    assert (result.column("n"), result.rejected) == ([1, 2, None, None, None, None], [])
    assert result.misfits == [(4, "n", '"three"'), (5, "n", '"70000"')]


def test_read_of_a_column_with_the_reserved_name_says_so(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"text": "a", "label_corpus:misfits": "x"}])
    write_csv(tmp_path / "b.csv", [{"text": "a", "label_corpus:misfits": "x"}])
    failures = try_path(tmp_path).failures
    assert [(failure.error, "reserved" in failure.message) for failure in failures] == [("UserError", True)] * 2


def test_read_of_texts_that_are_all_null_says_so(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", pa.table({"text": pa.nulls(2), "id": [1, 2]}))
    write_jsonl(tmp_path / "b.jsonl", [{"text": None}, {"other": 1}])
    write_parquet(tmp_path / "c.parquet", [{"text": "a", "id": 1}])
    result = read_path(tmp_path)
    assert result.rejected == [(0, "null_text"), (1, "null_text")] * 2


def test_read_of_tensors_gives_lists(tmp_path: Path) -> None:
    storage = pa.array([[1, 2, 3, 4, 5, 6], None], pa.list_(pa.int32(), 6))
    tensors = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.int32(), [2, 3], permutation=[1, 0]), storage)
    nested = pa.StructArray.from_arrays([tensors], ["tensor"])
    result = read_path(write_parquet(tmp_path / "a.parquet", pa.table({"text": ["a", "b"], "tensor": tensors, "in": nested})))
    assert result.column("tensor") == [[1, 2, 3, 4, 5, 6], None]
    assert result.column("in") == [{"tensor": [1, 2, 3, 4, 5, 6]}, {"tensor": None}]


def test_read_of_json_objects_without_what_parquet_has_in_each_row(tmp_path: Path) -> None:
    item = pa.field("item", pa.int64(), nullable=False)
    object_type = pa.struct([pa.field("a", pa.int64(), nullable=False), pa.field("l", pa.list_(item), nullable=False)])
    schema = pa.schema([pa.field("text", pa.string(), nullable=False), pa.field("meta", object_type, nullable=False)])
    write_parquet(tmp_path / "a.parquet", pa.table({"text": ["a"], "meta": [{"a": 1, "l": [2]}]}, schema))
    write_jsonl(tmp_path / "b.jsonl", [{"text": "b", "meta": {"a": 3}}, {"text": "c", "meta": {"l": [None]}}, {"text": "d"}])
    result = read_path(tmp_path)
    assert (result.rejected, result.misfits) == ([], [])
    assert result.column("meta") == [{"a": 1, "l": [2]}, {"a": 3, "l": None}, {"a": None, "l": [None]}, None]
