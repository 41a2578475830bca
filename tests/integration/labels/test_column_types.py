"""One type per column of an output, whatever formats and types its input has, for any reader and over later runs."""

import base64
import hashlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.label_corpus import labels, run
from jobs.results.labels import _read_files
from jobs.results.open_output import find_labeled
from pipeline_ops.output.labeled_output import schema_of
from pipeline_ops.schema.errors import UserError
from pipeline_ops.writing.commit_record import schema_id
from pipeline_ops.writing.unit_files import parquet_bytes
from tests.support.corpora import real_documents, write_bytes, write_csv, write_jsonl, write_parquet, write_text
from tests.support.invariant import check_exactly_once, read_misfits
from tests.support.running import command, commit_paths, job_settings, keys, make_job, write_job_file
from tests.support.serial_chain import run_serially

IN_DUCKDB = "SELECT {columns} FROM read_parquet({files}, hive_partitioning = true) ORDER BY source_file, source_row"


def columns_of(output: Path) -> dict[str, set[pa.DataType]]:
    """{column: types} of the labeled files, of which each has every column."""
    schemas = [pq.read_schema(path).remove_metadata() for path in output.glob("label=*/*.parquet")]
    assert len({tuple(schema.names) for schema in schemas}) == 1
    return {name: {schema.field(name).type for schema in schemas} for name in schemas[0].names}


def read_by_all(output: Path, columns: list[str]) -> list[dict]:
    """The rows in the order of the input, which are the same in pandas, pyarrow and DuckDB whatever file comes first."""
    frame = labels(str(output)).sort_values(["source_file", "source_row"])[columns]
    rows = labels(str(output), "arrow").to_table().sort_by([("source_file", "ascending"), ("source_row", "ascending")])
    expected = rows.select(columns).to_pylist()
    assert json.loads(frame.astype(object).where(frame.notna(), None).to_json(orient="records")) == expected
    files = sorted(map(str, output.glob("label=*/*.parquet")))
    for first in files:
        ordered = [first, *(file for file in files if file != first)]
        found = duckdb.execute(IN_DUCKDB.format(columns=", ".join(columns), files=ordered)).fetchall()
        assert [dict(zip(columns, row, strict=True)) for row in found] == expected
    assert len(pd.read_parquet(output)) == len(expected)
    return expected


@pytest.mark.parametrize(
    "executor", [pytest.param(run_serially, id="serially"), pytest.param(run, id="on Ray", marks=pytest.mark.slow)]
)
def test_columns_that_the_formats_have_in_several_types_are_text_for_every_reader(
    executor: Callable, request: pytest.FixtureRequest, model: Path, tmp_path: Path
) -> None:
    if executor is run:
        request.getfixturevalue("ray_address")
    source, output, texts = tmp_path / "in", tmp_path / "out", real_documents(12)
    parquet = [{"text": text, "id": number, "size": number, "views": number} for number, text in enumerate(texts)]
    write_parquet(source / "a.parquet", pa.Table.from_pylist(parquet))
    narrow = pa.Table.from_pylist(parquet).cast(
        pa.schema([("text", pa.large_string()), ("id", pa.int32()), ("size", pa.int16()), ("views", pa.float32())])
    )
    write_parquet(source / "b.parquet", narrow)
    write_jsonl(source / "c.jsonl", [{"text": text, "id": number, "tags": [1]} for number, text in enumerate(texts)])
    write_csv(source / "d.csv", [{"id": f"0{number}", "text": text} for number, text in enumerate(texts)])
    write_text(source / "e.txt", [" ".join(text.split()) for text in texts])
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(source, model, output, "compute.unit_bytes=2000"))

    note = "column 'id' is int64 or int32 in Parquet, int64 in JSON Lines, text in CSV: written as string;"
    planned = command("plan", job_file)
    assert planned.code == 0
    assert note in " ".join(planned.stderr.split())
    started = command("init", source, "--model", model, "--job", tmp_path / "new.yaml")
    assert "'id' string" in started.stderr
    assert note in started.stderr
    assert note in (tmp_path / "new.yaml").read_text()

    executor(make_job(source, model, output, "compute.unit_bytes=2000"))

    check_exactly_once(output, [(str(path), row) for path in sorted(source.iterdir()) for row in range(12)])
    types = columns_of(output)
    assert types["id"] == {pa.string()}
    assert types["size"] == {pa.int64()}
    assert types["views"] == {pa.float64()}
    assert [tags.value_type for tags in types["tags"]] == [pa.int64()]
    assert all(len(found) == 1 for found in types.values())
    rows = read_by_all(output, ["id", "size", "views"])
    assert [row["id"] for row in rows] == [*itertools.chain(map(str, range(12)), map(str, range(12)), map(str, range(12)))] + [
        f"0{number}" for number in range(12)
    ] + [None] * 12
    assert [row["size"] for row in rows] == [*range(12), *range(12)] + [None] * 36


def test_run_says_which_columns_become_text_and_column_types_decides_otherwise(model: Path, tmp_path: Path, capsys) -> None:
    source = tmp_path / "in"
    write_parquet(source / "a.parquet", [{"text": "one", "id": 1}])
    numbers = write_csv(
        source / "b.csv", [{"text": "two", "id": "2"}, {"text": "three", "id": "none"}, {"text": "four", "id": ""}]
    )
    note = "column 'id' is int64 in Parquet, text in CSV: written as string; input.column_types decides otherwise"
    run_serially(make_job(source, model, tmp_path / "text"))
    assert note in " ".join(capsys.readouterr().err.split())

    run_serially(make_job(source, model, tmp_path / "numbers", "input.column_types={id: int32}"))
    assert "written as" not in capsys.readouterr().err
    _, rejects = check_exactly_once(tmp_path / "numbers", [(str(source / "a.parquet"), 0), *keys(numbers, 3)])
    assert columns_of(tmp_path / "numbers")["id"] == {pa.int32()}
    assert rejects == []
    assert read_misfits(tmp_path / "numbers") == {(str(numbers), 1): {"id": '"none"'}}
    assert sorted(labels(str(tmp_path / "numbers"), "arrow").to_table()["id"].to_pylist(), key=str) == [1, 2, None, None]


@pytest.mark.parametrize("recorded", ["settled", "of an earlier version"])
def test_types_of_the_first_run_hold_for_later_ones(model: Path, tmp_path: Path, capsys, recorded: str) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    job = make_job(source, model, output)
    write_parquet(source / "a.parquet", [{"text": "one", "id": 1, "day": None}, {"text": "two", "id": 2, "day": "x"}])
    write_jsonl(source / "b.jsonl", [{"text": "three", "id": 3}])
    run_serially(job, quiet=True)
    if recorded != "settled":
        record = json.loads((output / "_job.json").read_text())
        lines = pa.schema([("text", pa.string()), ("id", pa.int64())])
        record["line_types"] = pa_base64(lines)
        del record["column_types"]
        (output / "_job.json").write_text(json.dumps(record))

    narrow = pa.schema([("text", pa.string()), ("id", pa.int32()), ("day", pa.int64()), ("new", pa.float64())])
    later = [
        write_parquet(source / "c.parquet", pa.table({"text": ["four"], "id": [4], "day": [31], "new": [1.5]}).cast(narrow)),
        write_parquet(source / "d.parquet", pa.table({"text": ["a", "b", "c"], "id": [5.0, float("nan"), 6.5]})),
        write_jsonl(source / "e.jsonl", [{"text": "six", "id": 6, "new": 2}, {"text": "seven", "id": "seven"}]),
    ]
    capsys.readouterr()
    run_serially(job)
    said = " ".join(capsys.readouterr().err.split())
    assert "column 'id' is int32 or double in Parquet, int64 or string in JSON Lines, and int64 in the output so far" in said
    run_serially(job, quiet=True)

    expected = [(str(source / "a.parquet"), 0), (str(source / "a.parquet"), 1), (str(source / "b.jsonl"), 0)]
    _, rejects = check_exactly_once(
        output, [*expected, *((str(path), row) for path, count in zip(later, (1, 3, 2), strict=True) for row in range(count))]
    )
    assert rejects == []
    assert read_misfits(output) == {(str(later[1]), 2): {"id": "6.5"}, (str(later[2]), 1): {"id": '"seven"'}}
    found = labels(str(output), "arrow").to_table()
    assert {name: found.schema.field(name).type for name in ("id", "day", "new")} == {
        "id": pa.int64(),
        "day": pa.string(),
        "new": pa.float64(),
    }
    rows = found.sort_by([("source_file", "ascending"), ("source_row", "ascending")]).select(["id", "day", "new"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        (1, None, None),
        (2, "x", None),
        (3, None, None),
        (4, "31", 1.5),
        (5, None, None),
        (None, None, None),
        (None, None, None),
        (6, None, 2.0),
        (None, None, None),
    ]


def test_columns_behind_the_sample_have_one_type_in_all_runs(model: Path, tmp_path: Path) -> None:
    """Beyond what the sample has, a column is text, also for a later run that samples it."""
    source, output = tmp_path / "in", tmp_path / "out"
    job = make_job(source, model, output)
    early = [{"text": "x" * 2000}] * 600
    write_jsonl(source / "a.jsonl", [*early, {"text": "a", "late": 1}, {"text": "b", "late": {"deep": []}}])
    run_serially(job, quiet=True)
    write_jsonl(source / "b.jsonl", [{"text": "c", "late": 2}])
    run_serially(job, quiet=True)
    assert len([*commit_paths(output)]) > 2
    found = labels(str(output), "arrow").to_table().sort_by([("source_file", "ascending"), ("source_row", "ascending")])
    assert found.schema.field("late").type == pa.string()
    assert found["late"].to_pylist()[-3:] == ["1", '{"deep": []}', "2"]


def test_numbers_above_64_bits_and_mixed_values_lose_no_document(model: Path, tmp_path: Path, capsys) -> None:
    values = [1, 2**63, 2**64 - 1, 2**70, -1, 1.5, "x", True, None, {"a": 2**65}, [1, "x"]]
    hashes = [2**64 - 1, 0] * 5 + [None]
    lines = [{"text": f"text {n}", "any": value, "hash": hashes[n]} for n, value in enumerate(values)]
    source = write_bytes(tmp_path / "in" / "a.jsonl", "\n".join(map(json.dumps, lines)).encode())
    run_serially(make_job(source, model, tmp_path / "out"))
    said = " ".join(capsys.readouterr().err.split())
    assert "column 'any' is int64 or double or string or bool or object or list in JSON Lines: written as string" in said
    _, rejects = check_exactly_once(tmp_path / "out", keys(source, len(values)))
    assert rejects == []
    found = labels(str(tmp_path / "out"), "arrow").to_table().sort_by("source_row")
    assert found["any"].to_pylist() == [value if value in ("x", None) else json.dumps(value) for value in values]
    assert (found["hash"].type, found["hash"].to_pylist()) == (pa.uint64(), hashes)


def test_output_with_two_types_of_a_column_is_read_with_texts(model: Path, tmp_path: Path) -> None:
    """Earlier versions wrote such outputs."""
    source, output = tmp_path / "in", tmp_path / "out"
    job = make_job(source, model, output)
    for name, value, recorded in (("a", 1, None), ("b", "x", pa.string()), ("c", [1], pa.list_(pa.int64()))):
        if recorded is not None:
            record = json.loads((output / "_job.json").read_text())
            record["column_types"] = pa_base64(pa.schema([("text", pa.string()), ("id", recorded)]))
            (output / "_job.json").write_text(json.dumps(record))
        write_jsonl(source / f"{name}.jsonl", [{"text": name, "id": value}])
        run_serially(job, quiet=True)
        if name == "b":
            assert {row["text"]: row["id"] for row in labels(str(output)).to_dict("records")} == {"a": "1", "b": "x"}
    with pytest.raises(UserError, match=r"column 'id' is .*int64.* and .*list.*, which do not go together"):
        labels(str(output))
    assert len(labels(str(output), columns=["text", "label"])) == 3


TEXT_TYPES = (pa.dictionary(pa.int32(), pa.string()), pa.large_string(), pa.string_view(), pa.binary(), pa.string())


def test_texts_of_several_types_are_read_as_text(model: Path, tmp_path: Path) -> None:
    """Earlier versions wrote dictionaries."""
    source, output = tmp_path / "in", tmp_path / "out"
    job = make_job(source, model, output, "output.partition_by=[]")
    for number in range(len(TEXT_TYPES)):
        write_jsonl(source / f"{number}.jsonl", [{"text": f"é {number}"}, {"text": "é"}])
        run_serially(job, quiet=True)
    expected = sorted(labels(str(output))["text"])
    for path, data_type in zip(sorted(commit_paths(output)), TEXT_TYPES, strict=True):
        commit = json.loads(path.read_text())
        file = output / commit["files"][0]["path"]
        table = pq.read_table(file)
        texts = table["text"].dictionary_encode() if pa.types.is_dictionary(data_type) else table["text"].cast(data_type)
        content = parquet_bytes(table.set_column(table.schema.get_field_index("text"), "text", texts)).to_pybytes()
        file.write_bytes(content)
        commit["files"][0] |= {"bytes": len(content), "md5": hashlib.md5(content).hexdigest()}
        path.write_text(json.dumps({**commit, "schema": schema_id(pa.schema([("text", data_type)]))}))
    assert sorted(labels(str(output), "arrow", columns=["text"]).to_table()["text"].to_pylist()) == expected
    found = find_labeled(str(output))
    numbers, schema = pa.table({"file": [*range(len(found.files))]}), schema_of(found, ["text"])
    tables = _read_files(numbers, found.store, found.files, schema, found.partition_types)
    assert sorted(text for table in tables for text in table["text"].to_pylist()) == expected
    assert sorted(labels(str(output), columns=["text"])["text"]) == expected
    assert sorted(labels(str(output), "polars", columns=["text"])["text"]) == expected


def test_categories_are_written_as_plain_values(model: Path, tmp_path: Path) -> None:
    """pandas gives each file a dictionary of its own, whose int8 index cannot count the categories of all files."""
    source, output = tmp_path / "in", tmp_path / "out"
    job = make_job(source, model, output)
    for number in range(3):
        categories = [f"{number}-{row}" for row in range(100)]
        encoded = pa.array(categories).dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string()))
        tags = pa.array([[{"tag": category}] for category in categories])
        tags = tags.cast(pa.list_(pa.struct([("tag", encoded.type)])))
        text = pa.array(["good", "bad"] * 50).dictionary_encode()
        write_parquet(source / f"{number}.parquet", pa.table({"text": text, "category": encoded, "tags": tags}))
        run_serially(job, quiet=True)
        if number == 0:  # as an earlier version has recorded it
            record = json.loads((output / "_job.json").read_text())
            record["column_types"] = pa_base64(
                pa.schema([("text", text.type), ("category", encoded.type), ("tags", tags.type)])
            )
            (output / "_job.json").write_text(json.dumps(record))
    _, rejects = check_exactly_once(output, [(str(path), row) for path in sorted(source.iterdir()) for row in range(100)])
    assert rejects == []
    types = columns_of(output)
    assert types["text"] == types["category"] == {pa.string()}
    assert [tags.value_type for tags in types["tags"]] == [pa.struct([("tag", pa.string())])]
    rows = read_by_all(output, ["category", "tags"])
    assert [row["category"] for row in rows] == [f"{number}-{row}" for number in range(3) for row in range(100)]


def pa_base64(schema: pa.Schema) -> str:
    return base64.b64encode(schema.serialize().to_pybytes()).decode()
