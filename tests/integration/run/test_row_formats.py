"""Each format of typed rows through all commands, which agree about it; folders of `datasets`; WARC files of pages."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from jobs.config import JobConfig
from jobs.maintenance.verify import verify
from tests.support.corpora import real_documents, warc_record, wet_records, write_arrow
from tests.support.invariant import check_exactly_once
from tests.support.reading_path import write_rows
from tests.support.running import command, job_settings, keys, make_job, write_job_file
from tests.support.serial_chain import run_serially

TEXTS = real_documents(60, seed=4)
RENAMED = ("output.label_name=predicted",)  # the data have a column `label`


@pytest.mark.parametrize("name", ["a.arrow", "a.feather", "a.orc", "a.avro", "a.warc.wet.gz"])
def test_all_commands_agree_about_a_file(model: Path, tmp_path: Path, name: str) -> None:
    path = write_rows(tmp_path / "in" / name, [{"id": str(row), "text": text} for row, text in enumerate(TEXTS)])
    job_file = tmp_path / "job.yaml"
    found = command("init", tmp_path / "in", "--model", model, "--job", job_file, "--output", tmp_path / "out")
    assert (found.code, found.result["text_column"], found.result["documents_estimate"]) == (0, "text", 60)
    planned = command("plan", job_file)
    assert (planned.code, planned.result["work"]["documents"], planned.result["work"]["counted"]) == (0, 60, True)
    job = JobConfig.model_validate(yaml.safe_load(job_file.read_text()))
    assert run_serially(job, quiet=True, limit=25).documents == 25
    check_exactly_once(f"{job.output.path}-trial", keys(path, 25))
    job = make_job(tmp_path / "in", model, job.output.path, "compute.unit_bytes=3000")
    result = run_serially(job, quiet=True)
    assert (result.complete, result.documents) == (True, 60)
    labeled, _ = check_exactly_once(job.output.path, keys(path, 60))
    assert dict(zip(labeled["source_row"].to_pylist(), labeled["text"].to_pylist(), strict=True)) == dict(enumerate(TEXTS))
    report = verify(job, deep=True)
    assert (report["ok"], report["documents"]) == (True, 60), report
    shown = command("show", job.output.path, "--limit", 100)
    assert sorted(json.loads(line)["source_row"] for line in shown.stdout.split("\n") if line) == [*range(60)]


def test_damaged_file_is_quarantined_from_the_damage_on_and_the_rest_labeled(model: Path, tmp_path: Path) -> None:
    sources = [
        write_rows(tmp_path / "in" / name, [{"id": str(row), "text": text} for row, text in enumerate(TEXTS)])
        for name in ("a.arrow", "b.avro", "c.wet", "d.feather")
    ]
    for path in sources[:3]:
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    result = run_serially(make_job(tmp_path / "in", model, tmp_path / "out"), quiet=True)
    assert not result.complete
    failures = [json.loads(failure.read_text()) for failure in (tmp_path / "out" / "_failed").glob("*.json")]
    starts = {piece["path"]: piece["start_row"] for failure in failures for piece in failure["pieces"]}
    assert starts.keys() == {str(path) for path in sources[:3]}
    assert all(20 < start < 60 for start in starts.values())
    expected = [key for path in sources for key in keys(path, starts.get(str(path), 60))]
    labeled, _ = check_exactly_once(tmp_path / "out", expected)
    for row, text in zip(labeled["source_row"].to_pylist(), labeled["text"].to_pylist(), strict=True):
        assert text == TEXTS[row]


def test_warc_of_pages_alone_is_a_mistake_that_names_the_remedy(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "in" / "a.warc.gz"
    source.parent.mkdir()
    page = warc_record("response", b"HTTP/1.1 200 OK\r\n\r\n<html></html>")
    source.write_bytes(b"".join(map(gzip.compress, [wet_records([])[0], page])))
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(source, model, tmp_path / "out"))
    finished = command("run", job_file)
    assert finished.code == 2
    (line,) = finished.error_lines
    assert "a record of type response" in line
    assert "give the WET files" in line


def save_to_disk(folder: Path, texts: list[str]) -> Path:
    """What datasets.Dataset.save_to_disk writes."""
    path = write_arrow(
        folder / "data-00000-of-00001.arrow", pa.table({"text": texts, "label": [0] * len(texts)}), batch_rows=10
    )
    features = {"text": {"dtype": "string", "_type": "Value"}, "label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}
    info = {"citation": "", "description": "", "features": features, "homepage": "", "license": ""}
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=2))
    state = {"_data_files": [{"filename": path.name}], "_fingerprint": "0f1", "_format_columns": None, "_split": None}
    (folder / "state.json").write_text(json.dumps(state, indent=2))
    return path


@pytest.mark.parametrize("splits", [("",), ("train", "test")])
def test_folder_of_save_to_disk_is_its_rows_alone(model: Path, tmp_path: Path, splits: tuple[str, ...]) -> None:
    source = tmp_path / "in"
    paths = [save_to_disk(source / split if split else source, TEXTS[:30]) for split in splits]
    if len(splits) > 1:
        (source / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    metadata = 2 * len(splits) + (len(splits) > 1)
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(source, model, tmp_path / "out", *RENAMED))
    planned = command("plan", job_file)
    assert (planned.result["files"], planned.result["files_passed_over"]) == (len(splits), metadata)
    assert "metadata" in planned.stderr
    result = run_serially(make_job(source, model, tmp_path / "out", *RENAMED), quiet=True)
    assert (result.complete, result.rejected) == (True, 0)
    labeled, _ = check_exactly_once(tmp_path / "out", [key for path in paths for key in keys(path, 30)])
    assert sorted(labeled["text"].to_pylist()) == sorted(TEXTS[:30] * len(splits))
