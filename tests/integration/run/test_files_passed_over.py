"""What lies beside the documents in other people's folders is left out, and init, plan and run say so alike."""

from pathlib import Path

import pytest

from jobs.maintenance.verify import verify
from jobs.run.plan import plan
from tests.conftest import Bucket
from tests.support.corpora import write_bytes, write_parquet
from tests.support.invariant import check_exactly_once
from tests.support.running import command, job_settings, keys, make_job, write_job_file
from tests.support.serial_chain import run_serially

ROWS = [{"text": f"a film {number}"} for number in range(5)]
MARKERS = "names that begin with _ or ."


def write_snapshot(folder: Path) -> Path:
    """A snapshot of a data set on the hub, with markers of Spark."""
    write_parquet(folder / "data" / "train-00000-of-00001.parquet", ROWS)
    write_bytes(folder / "dataset_infos.json", b'{"default": {"description": "films", "text": "no document"}}')
    for name in (
        "README.md",
        "LICENSE.txt",
        ".gitattributes",
        "data/_SUCCESS",
        "data/.train-00000.parquet.crc",
        "data/_metadata",
    ):
        write_bytes(folder / name, b"no documents\n")
    return folder


def expected_summary(root: str) -> dict:
    return {
        "unknown suffix": {"files": 1, "first": [f"{root}/README.md"]},
        "metadata of the data set": {"files": 2, "first": [f"{root}/LICENSE.txt", f"{root}/dataset_infos.json"]},
        MARKERS: {
            "files": 4,
            "first": [f"{root}/.gitattributes", f"{root}/data/.train-00000.parquet.crc", f"{root}/data/_SUCCESS"],
        },
    }


def test_init_plan_and_run_name_the_same_files(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    source = write_snapshot(tmp_path / "in")
    job = make_job(source, model, tmp_path / "out")
    summary = expected_summary(str(source))
    begun = command("init", "in", "--model", model, "--job", "new.yaml")
    assert (begun.result["passed_over"], begun.result["files_passed_over"]) == (summary, 7), begun.stderr
    planned = plan(job)
    assert (planned["passed_over"], planned["files_passed_over"], planned["files"]) == (summary, 7, 1)
    result = run_serially(job)
    assert (result.passed_over, result.files_passed_over, result.documents) == (summary, 7, 5)
    shown = command("plan", write_job_file(tmp_path / "job.yaml", job_settings(source, model, tmp_path / "new")))
    for said in (begun.stderr, shown.stderr, capfd.readouterr().err):
        (line,) = [line for line in said.splitlines() if "skipped: " in line]
        assert "in/README.md (unknown suffix); in/LICENSE.txt, in/dataset_infos.json (metadata of the data set); " in line
        assert f"in/data/_SUCCESS and 1 more ({MARKERS})" in line
    check_exactly_once(tmp_path / "out", keys(source / "data" / "train-00000-of-00001.parquet", 5))


@pytest.mark.parametrize("drop", ["false", "true"])
def test_a_file_that_is_labeled_stays_an_input_whatever_is_put_beside_it(tmp_path: Path, model: Path, drop: str) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    readme = write_bytes(source / "readme.txt", b"a document\n")
    expected = keys(readme, 1) + keys(write_bytes(source / "b.txt", b"another\n"), 1)
    job = make_job(source, model, output, f"output.drop_removed={drop}")
    assert run_serially(job, quiet=True).labeled == 2
    expected += keys(write_bytes(source / "c.csv", b"text\nthird\n"), 1)
    paper = write_bytes(source / "license.txt", b"no document\n")
    for _ in range(2):
        result = run_serially(job, quiet=True)
        assert (result.labeled, result.removed, result.complete) == (3, [], True)
        assert result.passed_over == {"metadata of the data set": {"files": 1, "first": [str(paper)]}}
    check_exactly_once(output, expected)
    report = verify(job, quiet=True)
    assert (report["ok"], report["removed"], report["documents"]) == (True, [], 3)
    readme.unlink()
    assert run_serially(job, quiet=True).removed == [str(readme)]
    check_exactly_once(output, expected[1:] if drop == "true" else expected)


@pytest.mark.parametrize("name", ["README.txt", "README.md.txt", "license.txt", "dataset_info.json"])
def test_the_only_file_of_a_folder_is_its_data_whatever_its_name(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_bytes(tmp_path / "in" / name, b'{"text": "a film"}\n')
    begun = command("init", "in", "--model", model, "--job", "new.yaml")
    assert (begun.code, begun.result["files"], begun.result["files_passed_over"]) == (0, 1, 0), begun.stderr
    result = run_serially(make_job(tmp_path / "in", model, tmp_path / "out"), quiet=True)
    assert (result.labeled, result.files_passed_over) == (1, 0)
    check_exactly_once(tmp_path / "out", keys(path, 1))


def test_the_same_on_s3_by_one_listing(s3: Bucket, tmp_path: Path, model: Path) -> None:
    write_snapshot(tmp_path / "in")
    s3.filesystem.put(str(tmp_path / "in"), f"{s3.name}/", recursive=True)
    endpoint = f"storage.endpoint_url={s3.endpoint_url}"
    result = run_serially(make_job(f"{s3.url}/in", model, tmp_path / "out", endpoint), quiet=True)
    assert (result.passed_over, result.documents) == (expected_summary(f"{s3.url}/in"), 5)
    assert len(s3.journal.requests("ListObjects")) == 1  # the output is on disk
