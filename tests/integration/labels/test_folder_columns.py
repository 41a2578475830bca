"""Columns in the names of the input's folders: `lang=en/year=2020/part.parquet`."""

import json
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.label_corpus import labels
from tests.support.corpora import one_line, real_documents, write_bytes, write_csv, write_jsonl, write_parquet, write_text
from tests.support.invariant import check_exactly_once, read_misfits
from tests.support.running import command, job_settings, keys, make_job, write_job_file
from tests.support.serial_chain import run_serially

TEXTS = [one_line(text) or "empty" for text in real_documents(12)]


def write_corpus(folder: Path) -> list[tuple[str, int]]:
    """Files of all formats in hive folders, and one beside them; returns the keys of their documents."""
    rows = [{"text": text, "id": f"n{number}"} for number, text in enumerate(TEXTS)]
    paths = [
        write_parquet(folder / "lang=en" / "year=2020" / "part.parquet", rows),
        write_jsonl(folder / "lang=d%2Fe +%C3%A9" / "year=2021" / "part.jsonl.gz", rows),
        write_csv(folder / "lang=__HIVE_DEFAULT_PARTITION__" / "year=2021" / "part.csv", rows),
        write_text(folder / "lang=en" / "year=" / "part.txt", TEXTS),
        write_jsonl(folder / "part.jsonl", rows),
    ]
    return [key for path in paths for key in keys(path, len(TEXTS))]


EXPECTED = {
    "part.parquet": ("en", "2020"),
    "part.jsonl.gz": ("d/e +é", "2021"),
    "part.csv": (None, "2021"),
    "part.txt": ("en", ""),
    "part.jsonl": (None, None),
}


def test_folders_are_text_columns_of_every_format_and_null_elsewhere(model: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    expected = write_corpus(source)
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(source, model, output, "compute.unit_bytes=2000"))

    planned = command("plan", job_file)
    assert planned.result["folder_columns"] == ["lang", "year"]
    assert "columns from folders: lang, year" in planned.stderr
    started = command("init", source, "--model", model, "--job", tmp_path / "new.yaml")
    assert started.result["columns"] == {"text": "string", "id": "string", "lang": "string", "year": "string"}
    assert started.result["text_column"] == "text"

    run_serially(make_job(source, model, output, "compute.unit_bytes=2000"))

    labeled, _ = check_exactly_once(output, expected)
    found = {(Path(row["source_file"]).name, row["lang"], row["year"]) for row in labeled.to_pylist()}
    assert found == {(name, *values) for name, values in EXPECTED.items()}
    frame = labels(str(output))
    assert set(frame["lang"].dropna()) == {"en", "d/e +é"}
    assert command("show", job_file, "-n", "1", "--source", "part.csv").result["year"] == "2021"
    assert command("verify", job_file, "--deep").code == 0


def test_folder_columns_can_be_chosen_typed_and_partitioned_by(model: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    expected = write_corpus(source)
    settings = ("output.columns=[lang, year]", "output.partition_by=[lang]", "input.column_types={year: int32}")
    (source / "lang=en" / "year=" / "part.txt").unlink()  # "" is no number
    expected = [key for key in expected if not key[0].endswith(".txt")]
    run_serially(make_job(source, model, output, *settings))

    labeled, _ = check_exactly_once(output, expected)
    assert {path.name for path in output.iterdir() if "=" in path.name} == {
        "lang=en",
        "lang=d%2Fe%20%2B%C3%A9",
        "lang=__HIVE_DEFAULT_PARTITION__",
    }
    assert "id" not in labeled.column_names
    years = {row["year"] for row in labeled.to_pylist()}
    assert years == {2020, 2021, None}
    rows = duckdb.execute(
        f"SELECT lang, count(*) FROM read_parquet('{output}/lang=*/*.parquet', hive_partitioning = true) GROUP BY lang"
    ).fetchall()
    assert dict(rows)["en"] == len(TEXTS)


def test_a_folders_value_that_has_not_the_given_type_is_null_and_kept(model: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    expected = write_corpus(source)
    run_serially(make_job(source, model, output, "input.column_types={year: int32}"))
    _, rejects = check_exactly_once(output, expected)
    assert rejects == []
    assert {(Path(path).name, *values.items()) for (path, _), values in read_misfits(output).items()} == {
        ("part.txt", ("year", '""'))
    }


def test_values_in_the_file_stay_and_the_folders_value_takes_the_place_of_its_nulls(model: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    table = pa.table({"text": TEXTS[:3], "year": pa.array([2020, 1999, None], pa.int32())})
    paths = [
        write_parquet(source / "year=2020" / "own.parquet", table),
        write_parquet(source / "year=2021" / "without.parquet", table.select(["text"])),
        write_parquet(source / "year=none" / "other.parquet", table),
    ]
    run_serially(make_job(source, model, output))
    labeled, _ = check_exactly_once(output, [key for path in paths for key in keys(path, 3)][:6] + keys(paths[2], 3))
    assert labeled.schema.field("year").type == pa.int32()
    found = {(Path(row["source_file"]).name, row["source_row"]): row["year"] for row in labeled.to_pylist()}
    assert [found["own.parquet", row] for row in range(3)] == [2020, 1999, 2020]
    assert [found["without.parquet", row] for row in range(3)] == [2021, 2021, 2021]
    assert [found["other.parquet", row] for row in range(3)] == [2020, 1999, None]


@pytest.mark.parametrize("unit_bytes", [60, 100_000])
def test_json_lines_have_the_folders_value_where_a_line_has_none_however_they_are_cut(
    unit_bytes: int, model: Path, tmp_path: Path
) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    rows = [{"text": text, **({"lang": "xx"} if number == 5 else {})} for number, text in enumerate(TEXTS)]
    path = write_jsonl(source / "lang=en" / "a.jsonl", rows)
    run_serially(make_job(source, model, output, f"compute.unit_bytes={unit_bytes}"))
    labeled, _ = check_exactly_once(output, keys(path, len(TEXTS)))
    assert {row["source_row"]: row["lang"] for row in labeled.to_pylist()} == {
        number: "xx" if number == 5 else "en" for number in range(len(TEXTS))
    }


def test_an_empty_file_in_a_folder_is_no_file_without_a_text_column(model: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    paths = [
        write_bytes(source / "lang=de" / "a.csv.gz", b""),
        write_bytes(source / "lang=de" / "a.jsonl.gz", b""),
        write_csv(source / "lang=en" / "b.csv", [{"text": text} for text in TEXTS]),
        write_jsonl(source / "lang=en" / "b.jsonl", [{"text": text} for text in TEXTS]),
    ]
    job = job_settings(source, model, output, "output.columns=[lang]")
    planned = command("plan", write_job_file(tmp_path / "job.yaml", job))
    assert (planned.code, planned.result["remarks"]) == (0, [])
    assert run_serially(job).complete
    check_exactly_once(output, [key for path in paths[2:] for key in keys(path, len(TEXTS))])


def test_a_folder_is_no_text(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    write_jsonl(source / "text=here" / "a.jsonl", [{"body": text} for text in TEXTS])
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(source, model, tmp_path / "out"))
    planned = command("plan", job_file)
    assert planned.code == 2
    assert "there is no column 'text'" in planned.stderr


def test_only_folders_below_the_input_are_columns_and_of_a_glob_those_from_its_first_wildcard_on(
    model: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "run=1"
    write_parquet(corpus / "lang=en" / "year=2020" / "a.parquet", [{"text": text} for text in TEXTS])
    for path, expected in {
        corpus: ["lang", "year"],
        corpus / "lang=en": ["year"],
        corpus / "lang=*" / "*" / "*.parquet": ["lang", "year"],
        corpus / "lang=en" / "**" / "*.parquet": ["year"],
        corpus / "lang=en" / "year=2020" / "a.parquet": [],
    }.items():
        job_file = write_job_file(tmp_path / "job.yaml", job_settings(path, model, tmp_path / "out"))
        assert command("plan", job_file).result["folder_columns"] == expected


def test_a_folder_with_the_name_of_an_added_column_is_renamed_by_init_and_is_the_truth(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    for label in ("POSITIVE", "NEGATIVE"):
        write_text(source / f"label={label}" / "a.txt", TEXTS)
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(source, model, tmp_path / "out"))
    planned = command("plan", job_file)
    assert planned.code == 2
    assert "output.label_name: the input has a column 'label' of its own" in planned.stderr
    started = command("init", source, "--model", model, "--job", tmp_path / "new.yaml", f"output.path={tmp_path}/out")
    assert started.result["renamed"] == {"label_name": "predicted_label"}
    assert started.result["truth_columns"] == ["label"]
    run_serially(str(tmp_path / "new.yaml"))
    assert command("evaluate", tmp_path / "new.yaml", "--truth", "label").code == 0


def test_an_output_that_was_begun_without_folder_columns_goes_on_without_them(model: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    rows = [{"text": text} for text in TEXTS]
    first = write_parquet(source / "lang=en" / "a.parquet", rows)
    job = make_job(source, model, output)
    # as earlier versions began it: files and record without the column
    moved = first.rename(tmp_path / "a.parquet")
    (source / "b").mkdir(parents=True)
    moved.rename(source / "b" / "a.parquet")
    run_serially(job)
    record = json.loads((output / "_job.json").read_text())
    del record["folder_columns"]
    (output / "_job.json").write_text(json.dumps(record))

    for number in range(2):  # what the second run records holds for the third one
        added = write_parquet(source / "lang=de" / f"{number}.parquet", rows)
        result = run_serially(job)
        assert result.complete
        assert result.documents_run == len(TEXTS)
        assert "lang" not in pq.read_schema(next(output.glob("label=*/*.parquet"))).names
        files = [source / "b" / "a.parquet", *(source / "lang=de").iterdir()]
        check_exactly_once(output, [key for path in files for key in keys(path, len(TEXTS))])
        assert added in files
    schemas = {tuple(pq.read_schema(path).names) for path in output.glob("label=*/*.parquet")}
    assert len(schemas) == 1
    assert "folder_columns" not in json.loads((output / "_job.json").read_text())
    planned = command("plan", write_job_file(tmp_path / "job.yaml", job_settings(source, model, output)))
    assert planned.result["folder_columns"] == []


def test_a_later_run_continues_with_the_folders_columns(model: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    rows = [{"text": text} for text in TEXTS]
    paths = [write_parquet(source / "lang=en" / "a.parquet", rows)]
    run_serially(make_job(source, model, output))
    paths.append(write_parquet(source / "lang=de" / "b.parquet", rows))
    paths.append(write_bytes(source / "c.jsonl", b"".join(json.dumps(row).encode() + b"\n" for row in rows)))
    result = run_serially(make_job(source, model, output))
    assert result.documents_run == 2 * len(TEXTS)
    labeled, _ = check_exactly_once(output, [key for path in paths for key in keys(path, len(TEXTS))])
    found = {(Path(row["source_file"]).name, row["lang"]) for row in labeled.to_pylist()}
    assert found == {("a.parquet", "en"), ("b.parquet", "de"), ("c.jsonl", None)}
