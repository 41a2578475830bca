"""JSON files that are no JSON Lines: every command finds the elements as documents, with the index as the row."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.maintenance.verify import verify
from pipeline_ops.reading.spans import Span
from pipeline_ops.schema.units import Range
from tests.conftest import Bucket
from tests.support.corpora import real_documents, write_bytes, write_jsonl
from tests.support.invariant import check_exactly_once
from tests.support.reading_path import prepare, read_spans, spans_of, try_path
from tests.support.running import by_key, command, job_settings, keys, labeled_of, make_job, write_job_file
from tests.support.serial_chain import run_serially

ROWS: list[dict[str, Any]] = [
    {
        "id": 2**60 + row,
        "text": text,
        "ratio": row / 7,
        "day": "2024-01-31",
        "tags": [text[:2]],
        "facts": {"n": row, "code": "007"},
    }
    for row, text in enumerate(text or "-" for text in real_documents(60, seed=5))
]


def per_line(rows: list[dict[str, Any]]) -> str:
    return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n"


LAYOUTS: dict[str, Callable[[list[dict[str, Any]]], str]] = {
    "one_line.json": json.dumps,
    "compressed.json.gz": json.dumps,
    "per_line.jsonl": per_line,
    "indented.json": lambda rows: json.dumps(rows, indent=2, ensure_ascii=False),
    "wrapped.json": lambda rows: json.dumps({"version": 1, "data": rows, "next": {"page": [2]}}, indent=2),
    "objects.json.zst": lambda rows: "".join(json.dumps(row, indent=2) + "\n" for row in rows),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_elements_have_the_labels_and_types_of_the_same_json_lines(model: Path, tmp_path: Path, name: str) -> None:
    path = write_bytes(tmp_path / "in" / name, LAYOUTS[name](ROWS).encode())
    lines = write_jsonl(tmp_path / "lines" / "a.jsonl", ROWS)
    for source in (path, lines):
        job = make_job(source, model, tmp_path / f"out-{source.name}", "compute.unit_bytes=4000")
        result = run_serially(job, quiet=True)
        assert (result.complete, result.documents, result.rejected) == (True, 60, 0)
        assert result.units > 3
        check_exactly_once(job.output.path, keys(source, 60))
        report = verify(job, deep=True)
        assert (report["ok"], report["documents"]) == (True, 60), report
    found, expected = (labeled_of(tmp_path / f"out-{source.name}", source) for source in (path, lines))
    others = ["source_file", "score"]  # units are cut elsewhere, and their batches are others
    assert found.drop_columns(others).equals(expected.drop_columns(others))


@pytest.mark.parametrize("name", LAYOUTS)
def test_reading_continues_behind_a_piece(tmp_path: Path, name: str) -> None:
    path = write_bytes(tmp_path / name, LAYOUTS[name](ROWS).encode())
    files, settings = prepare(path, unit_bytes=4000)
    whole = read_spans(spans_of(files), settings)
    for piece in whole.pieces[:-1]:
        rest = read_spans([Span(files[0], (Range(piece.stop_row, None, piece.stop_byte),))], settings)
        assert [document["source_row"] for document in rest.documents] == [*range(piece.stop_row, 60)]
        assert rest.column("text") == [row["text"] for row in ROWS[piece.stop_row :]]


def test_the_commands_agree(model: Path, tmp_path: Path) -> None:
    write_bytes(tmp_path / "in" / "a.json", LAYOUTS["indented.json"](ROWS[:40]).encode())
    write_bytes(tmp_path / "in" / "b.json.gz", LAYOUTS["wrapped.json"](ROWS[40:]).encode())
    begun = command("init", tmp_path / "in", "--model", model, "--job", tmp_path / "job.yaml")
    assert begun.code == 0, begun.stderr
    assert (begun.result["documents_estimate"], begun.result["documents_counted"]) == (60, True)
    assert begun.result["text_column"] == "text"
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(tmp_path / "in", model, tmp_path / "out"))
    planned = command("plan", job_file, "--json")
    assert planned.code == 0, planned.stderr
    assert planned.result["work"]["documents"] == 60
    job = make_job(tmp_path / "in", model, tmp_path / "out")
    trial = run_serially(job, quiet=True, limit=45)
    assert (trial.documents, trial.complete) == (45, True)
    check_exactly_once(tmp_path / "out-trial", [*keys(tmp_path / "in" / "a.json", 40), *keys(tmp_path / "in" / "b.json.gz", 5)])
    run_serially(job, quiet=True)
    shown = command("show", job_file, "--json", "--limit", "100")
    assert {(row["source_row"], row["text"]) for row in map(json.loads, filter(None, shown.stdout.split("\n")))} == {
        (number if number < 40 else number - 40, row["text"]) for number, row in enumerate(ROWS)
    }
    verified = command("verify", job_file)
    assert verified.code == 0, verified.stdout


def test_a_file_that_was_cut_off_has_its_whole_elements_and_an_error(tmp_path: Path) -> None:
    text = json.dumps(ROWS)
    path = write_bytes(tmp_path / "a.json", text[: len(text) * 2 // 3].encode())
    result = try_path(path)
    (failure,) = result.failures
    stop = max(piece.stop_row for piece in result.pieces)
    assert result.column("text") == [row["text"] for row in ROWS[:stop]]
    assert stop > 20
    assert f"within the element with index {stop}" in failure.message
    assert [(piece.start_row, piece.last) for piece in failure.pieces] == [(stop, True)]


def test_elements_that_are_no_objects_are_rejected(tmp_path: Path) -> None:
    elements = b'{"text": "a"}, [{"text": "b"}], 1, null, "c", {"text": nope}, {"text": null}, {"text": "d"}'
    result = try_path(write_bytes(tmp_path / "a.json", b"[" + elements + b"]"))
    assert result.column("text") == ["a", "d"]
    assert result.rejected == [*((row, "broken_json") for row in range(1, 6)), (6, "null_text")]


@pytest.mark.slow
def test_arrays_on_s3(ray_address: str, s3: Bucket, model: Path, tmp_path: Path) -> None:
    for name, layout in LAYOUTS.items():
        path = write_bytes(tmp_path / name, layout(ROWS).encode())
        s3.filesystem.put(str(path), f"{s3.name}/in/{name}")
    settings = job_settings(f"{s3.url}/in", model, f"{s3.url}/out", f"storage.endpoint_url={s3.endpoint_url}")
    job_file = write_job_file(tmp_path / "job.yaml", settings)
    finished = command("run", job_file)
    assert finished.code == 0, finished.stderr
    expected = [key for name in LAYOUTS for key in keys(f"{s3.url}/in/{name}", 60)]
    labeled, rejects = check_exactly_once(f"{s3.name}/out", expected, s3.filesystem)
    assert rejects == []
    texts = by_key(labeled, ["text"])
    assert all(texts[file.rsplit("/", 1)[-1], row] == (ROWS[row]["text"],) for file, row in expected)
    assert command("verify", job_file).code == 0
