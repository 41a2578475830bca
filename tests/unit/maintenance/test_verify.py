"""Counting the documents of an input without what labeling recorded, and comparing the two."""

import json
from pathlib import Path

import numpy as np
import pytest

from jobs.config import JobConfig, check_config
from jobs.maintenance.verify import count_documents, verify
from pipeline_ops.inputs.listing import find_inputs
from pipeline_ops.models.heads import Head
from pipeline_ops.output.commit_log import commit_unit, read_ledger
from pipeline_ops.output.failed_units import quarantine
from pipeline_ops.reading.reader import read_units
from pipeline_ops.schema.failures import Failure
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.storage.store import Store
from pipeline_ops.writing.commit_record import Commit
from pipeline_ops.writing.postprocessing import ModelOutputs, label_documents
from pipeline_ops.writing.unit_files import write_unit
from tests.support.corpora import real_documents, write_bytes, write_csv, write_jsonl, write_parquet
from tests.support.reading_path import input_of, prepare, read_path, spans_of, try_path


def job_of(folder: Path) -> JobConfig:
    paths = {"input": {"path": str(folder / "in")}, "model": {"path": "none"}, "output": {"path": str(folder / "out")}}
    return check_config(JobConfig, paths)


def label_all(folder: Path, unit_bytes: int = 2000) -> list[Commit]:
    """Labels `in` into `out` with made-up logits, all units."""
    files, settings = prepare(folder / "in", unit_bytes=unit_bytes)
    output, commits = OutputConfig(path=str(folder / "out")), []
    ledger = read_ledger(Store(output.path))
    for done in read_units(spans_of(files), settings):
        assert not isinstance(done, Failure)
        unit, documents, rejects = done
        count = documents.num_rows
        logits = np.tile(np.array([0.5, -0.5], np.float32), (count, 1))
        classified = ModelOutputs(logits, np.ones(count, np.int32), np.zeros(count, bool))
        labeled = label_documents(documents, classified, head=Head(("A", "B"), "softmax"), output=output)
        commit = write_unit(Store(output.path), unit, labeled, rejects, output, metadata={}, padded_tokens=count)
        assert commit_unit(Store(output.path), ledger, commit)
        commits.append(commit)
    return commits


@pytest.fixture
def labeled(tmp_path: Path) -> Path:
    """A folder with a labeled corpus of 42 documents, 2 of them rejects, in several units."""
    write_jsonl(tmp_path / "in" / "a.jsonl.gz", [{"text": text[:500]} for text in real_documents(30)])
    write_bytes(tmp_path / "in" / "b.jsonl", b'broken\n\n{"text": null}\n' + b'{"text": "a"}\n' * 10)
    assert len(label_all(tmp_path)) > 2
    return tmp_path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.zst", "a.csv", "a.tsv.gz", "a.txt", "a.txt.bz2", "a.parquet"])
def test_count_of_documents_is_what_reading_gives(tmp_path: Path, name: str) -> None:
    rows = [{"id": row, "text": text} for row, text in enumerate(real_documents(30))]
    if "csv" in name:
        write_csv(tmp_path / name, rows)
    elif "parquet" in name:
        write_parquet(tmp_path / name, rows)
    elif "json" in name:
        write_jsonl(tmp_path / name, [*rows, {"id": 5}, {"text": 7}])
    else:
        write_bytes(tmp_path / name, b"text\tid\na\t1\n\t\n\n \r\n\xff\nlast")
    config = input_of(tmp_path)
    ((file,), _) = find_inputs(config, Store(config.path))
    result = read_path(tmp_path)
    assert count_documents(file, config, Store(config.path)) == len(result.documents) + len(result.rejects)


def test_verify_of_a_finished_output_is_ok(labeled: Path) -> None:
    report = verify(job_of(labeled))
    assert report["ok"]
    assert (report["documents"], report["labeled"], report["rejected"]) == (42, 40, 2)
    assert not any(report[kind] for kind in ("missing", "doubled", "unreferenced", "broken", "removed"))


def test_verify_without_one_commit_names_the_missing_rows_and_the_files_without_one(labeled: Path) -> None:
    commit = sorted((labeled / "out" / "_commits").iterdir())[0]
    commit.unlink()
    report = verify(job_of(labeled))
    assert not report["ok"]
    assert any("rows" in line for line in report["missing"])
    assert any(commit.stem in line for line in report["unreferenced"])


def test_verify_without_one_file_names_it(labeled: Path) -> None:
    path = next((labeled / "out").glob("label=*/*.parquet"))
    path.unlink()
    report = verify(job_of(labeled))
    assert not report["ok"]
    assert any(path.name in line for line in report["broken"])


@pytest.mark.parametrize("change", ["cut off", "same size"])
def test_verify_of_a_damaged_file_names_it(labeled: Path, change: str) -> None:
    path = next((labeled / "out").glob("label=*/*.parquet"))
    data = path.read_bytes()
    path.write_bytes(data[:-10] if change == "cut off" else bytes(len(data)))
    report = verify(job_of(labeled))
    assert not report["ok"]
    assert any(path.name in line for line in report["broken"])


def test_verify_of_a_changed_input_names_it(labeled: Path) -> None:
    write_bytes(labeled / "in" / "b.jsonl", b'{"text": "new"}\n')
    report = verify(job_of(labeled))
    assert not report["ok"]
    what = "has changed since it was labeled and not been labeled again (all rows); `run` labels them"
    assert report["missing"] == [f"{labeled}/in/b.jsonl: {what}"]


def test_verify_lists_each_file_once_with_all_of_its_rows(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": "x" * 90}] * 50)
    places = [commit.pieces[0] for commit in label_all(tmp_path, 1000)]
    gone = [places[0], places[2], places[4]]
    for commit in (tmp_path / "out" / "_commits").iterdir():
        if json.loads(commit.read_text())["pieces"][0]["start_row"] in [piece.start_row for piece in gone]:
            commit.unlink()
    rows = [f"{piece.start_row} to {'the end' if piece.last else piece.stop_row - 1}" for piece in gone]
    report = verify(job_of(tmp_path))
    assert report["missing"] == [f"{path}: not labeled yet (rows {', '.join(rows)}); `run` labels them"]
    label_all(tmp_path, 1500)
    (doubled,) = verify(job_of(tmp_path))["doubled"]
    assert doubled.startswith(f"{path}: rows ")
    assert doubled.count(" to ") > 1


def test_deep_verify_lists_a_committed_file_once(labeled: Path) -> None:
    missing, cut, *_ = sorted((labeled / "out").glob("label=*/*.parquet"))
    missing.unlink()
    cut.write_bytes(cut.read_bytes()[:-10])
    broken = verify(job_of(labeled), deep=True)["broken"]
    assert sorted(line.partition(": ")[0] for line in broken) == [f"label=A/{missing.name}", f"label=A/{cut.name}"]


def test_verify_of_a_new_input_names_it(labeled: Path) -> None:
    write_jsonl(labeled / "in" / "c.jsonl", [{"text": "new"}])
    report = verify(job_of(labeled))
    assert not report["ok"]
    assert any("c.jsonl" in line for line in report["missing"])


def test_verify_of_an_output_with_failed_units_names_them(labeled: Path) -> None:
    path = write_jsonl(labeled / "in" / "c.jsonl.gz", [{"text": "a"}])
    path.write_bytes(path.read_bytes()[:-9])
    (failure,) = try_path(labeled / "in").failures
    quarantine(Store(str(labeled / "out")), failure, "run")
    report = verify(job_of(labeled))
    assert not report["ok"]
    assert (len(report["failed"]), len(report["missing"])) == (1, 1)
    assert all(str(path) in line for line in [*report["failed"], *report["missing"]])
    assert not any(report[kind] for kind in ("doubled", "unreferenced", "broken", "removed"))


def test_verify_of_a_removed_input_reports_it_and_is_ok(labeled: Path) -> None:
    (labeled / "in" / "b.jsonl").unlink()
    report = verify(job_of(labeled))
    assert report["ok"]
    assert [line for line in report["removed"] if "b.jsonl" in line]


def test_verify_of_doubled_rows_names_them(labeled: Path) -> None:
    label_all(labeled, unit_bytes=10**9)
    report = verify(job_of(labeled))
    assert not report["ok"]
    assert report["doubled"]


def test_verify_of_an_output_that_does_not_exist_names_all_inputs(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": "a"}])
    report = verify(job_of(tmp_path))
    assert (report["ok"], report["documents"], report["labeled"]) == (False, 1, 0)
    assert any("a.jsonl" in line for line in report["missing"])
