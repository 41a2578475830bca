"""`split`: jobs that label disjoint parts of an input, and one output of all of them."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
import yaml

from jobs import label_corpus
from jobs.config import load_job
from jobs.maintenance.split import split, split_lines
from jobs.maintenance.sweep import sweep_output
from jobs.maintenance.verify import verify
from jobs.report.publish import make_report
from jobs.results.evaluate import evaluate
from jobs.results.open_output import find_labeled, job_at
from jobs.results.show import Choice, find_rejects
from jobs.results.status import status
from pipeline_ops.output.commit_log import Ledger
from pipeline_ops.output.lease import LeaseError, hold_lease
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.store import Store
from tests.conftest import Bucket
from tests.support.corpora import real_documents, write_jsonl, write_parquet
from tests.support.invariant import Key, check_exactly_once
from tests.support.running import command, job_settings, keys, write_job_file
from tests.support.serial_chain import run_serially

FILES, ROWS, PARTS = 8, 5, 3
TEXTS = real_documents(FILES * ROWS, seed=5)


def write_file(folder: Path, number: int) -> Path:
    """Of ROWS documents, the first of every second file a reject."""
    path = folder / ("lang=en" if number % 2 else "") / f"f{number}.jsonl"
    texts = TEXTS[number % FILES * ROWS :][:ROWS]
    rows = [{"id": row, "text": text, "truth": "POSITIVE"} for row, text in enumerate(texts)]
    write_jsonl(path, [{**row, "text": None} if number % 2 and not row["id"] else row for row in rows])
    return path


@pytest.fixture
def job_file(model: Path, tmp_path: Path) -> Path:
    for number in range(FILES):
        write_file(tmp_path / "in", number)
    return write_job_file(tmp_path / "job.yaml", job_settings(tmp_path / "in", model, tmp_path / "out"))


def expected(folder: Path) -> list[Key]:
    return [key for path in sorted(folder.rglob("*.jsonl")) for key in keys(path, ROWS)]


def part_files(job_file: Path) -> list[str]:
    return [part["job"] for part in split(str(job_file), PARTS)["parts"].values()]


def label_all(job_file: Path) -> list[str]:
    """Splits the job and labels each part; returns the job files."""
    files = part_files(job_file)
    for file in files:
        assert run_serially(file, quiet=True).complete
    return files


def check_whole(folder: Path) -> None:
    """Each document of `in` is exactly once in the parts of `out` together, for a plain reader and for our own."""
    labeled, _ = check_exactly_once(folder / "out", expected(folder / "in"))
    frame = label_corpus.labels(str(folder / "out"))
    assert sorted(frame["source_file"] + frame["source_row"].astype(str)) == sorted(
        f"{file}{row}" for file, row in zip(*(labeled[name].to_pylist() for name in ("source_file", "source_row")), strict=True)
    )


def test_parts_label_each_document_once_and_are_read_as_one(job_file: Path, tmp_path: Path) -> None:
    files = label_all(job_file)
    check_whole(tmp_path)
    whole = tmp_path / "out"
    assert {path.name for path in whole.iterdir()} == {Path(file).stem for file in files}
    assert all(any((whole / Path(file).stem).glob("label=*/*.parquet")) for file in files), "no part is empty"

    report = verify(load_job(str(job_file)), deep=True)
    assert report["ok"], report
    assert (report["documents"], report["labeled"], report["rejected"], report["files"]) == (40, 36, 4, FILES)
    assert verify(job_at(str(whole)))["ok"]
    assert all(verify(load_job(file), deep=True)["ok"] for file in files)

    found = status(Store(str(whole)))
    assert (found["state"], found["documents"], found["rejected"], len(found["parts"])) == ("complete", 40, 4, PARTS)
    frame = label_corpus.labels(str(job_file), columns=["id", "label", "lang"])
    assert found["labels"] == frame["label"].value_counts().to_dict()
    assert Counter(frame["lang"].fillna("none")) == {"none": 20, "en": 16}

    labeled = find_labeled(str(whole))
    assert len(list(find_rejects(labeled, Choice(10, None, None, None, None, None, "input")))) == 4
    assert evaluate(labeled, "truth", quiet=True)["documents"] == 40
    page = Path(make_report(labeled, lambda text: None))
    assert page.parent.parent == whole
    assert all(file in page.read_text() for file in ("part-*", "f0.jsonl"))


@pytest.mark.slow
def test_files_that_arrive_later_are_labeled_by_one_part_each(job_file: Path, tmp_path: Path) -> None:
    files = label_all(job_file)
    for number in range(FILES, FILES + 6):
        write_file(tmp_path / "in", number)
    missing = verify(load_job(str(job_file)))["missing"]
    assert len(missing) == 6
    results = [run_serially(file, quiet=True) for file in files]
    assert sum(result.documents_run for result in results) == 6 * ROWS
    check_whole(tmp_path)
    assert verify(load_job(str(job_file)), deep=True)["ok"]


@pytest.mark.slow
def test_part_that_is_missing_is_an_error_for_readers_and_named_by_status_and_verify(job_file: Path, tmp_path: Path) -> None:
    files = label_all(job_file)
    gone = Path(files[1]).stem
    shutil.rmtree(tmp_path / "out" / gone)
    with pytest.raises(UserError, match=f"2 of 3 parts: {gone} has none yet"):
        label_corpus.labels(str(tmp_path / "out"))
    found = status(Store(str(tmp_path / "out")))
    assert (found["state"], found["parts"][gone]["state"]) == ("incomplete", "not started")
    shown = command("status", job_file).stderr
    assert f"{gone}: not started, 0 documents" in shown
    assert f"next: `label-corpus run` its job file, {gone}.yaml, where `split` wrote it" in shown
    report = verify(load_job(str(job_file)))
    assert not report["ok"]
    assert report["missing"]
    assert all(
        f"`run` of its part's job file, {gone}.yaml where `split` wrote it, labels" in line for line in report["missing"]
    )

    assert run_serially(files[1], quiet=True).complete
    check_whole(tmp_path)


def test_part_in_the_folder_of_another_is_an_error(job_file: Path, tmp_path: Path) -> None:
    files = label_all(job_file)
    first, second = (tmp_path / "out" / Path(file).stem for file in files[:2])
    shutil.rmtree(second)
    shutil.copytree(first, second)
    for look in (
        lambda: label_corpus.labels(str(job_file)),
        lambda: status(Store(str(tmp_path / "out"))),
        lambda: verify(load_job(str(job_file))),
        lambda: run_serially(files[1], quiet=True),
    ):
        with pytest.raises(UserError, match=r"part 0 of 3, .*part 1 of 3"):
            look()


@pytest.mark.slow
def test_parts_of_another_model_or_number_are_an_error(job_file: Path, tmp_path: Path, model_of) -> None:
    files = label_all(job_file)
    settings = yaml.safe_load(Path(files[2]).read_text())
    shutil.rmtree(tmp_path / "out" / Path(files[2]).stem)
    settings["model"]["path"], part = str(model_of("distilbert")), settings["output"]["path"]
    with pytest.raises(UserError, match=r"differ in .*model.weights"):
        run_serially(settings, quiet=True)
    assert not any(Path(part).glob("label=*/*"))
    shutil.rmtree(part, ignore_errors=True)
    settings["output"]["path"] = str(tmp_path / "elsewhere")
    assert run_serially(settings, quiet=True).complete
    (tmp_path / "elsewhere").rename(part)
    settings["output"]["path"] = part
    for look in (lambda: find_labeled(str(job_file)), lambda: status(Store(str(tmp_path / "out")))):
        with pytest.raises(UserError, match=r"part-00000-of-00003' and .*part-00002-of-00003' differ in .*model.weights"):
            look()

    settings["input"]["part"] = {"number": 0, "of": 2}
    with pytest.raises(UserError, match="holds labels of part 2 of 3, and this job is of part 0 of 2"):
        run_serially(settings, quiet=True)
    with pytest.raises(UserError, match="labels of a split into 3: with 2 "):
        split(str(job_file), 2, str(tmp_path / "others"))
    (tmp_path / "out" / "part-00000-of-00002").mkdir()
    with pytest.raises(UserError, match="parts of 2 and of 3"):
        find_labeled(str(job_file))


def test_job_that_was_split_labels_nothing_itself(job_file: Path, tmp_path: Path) -> None:
    files = part_files(job_file)
    run_serially(files[0], quiet=True)
    with pytest.raises(UserError, match="a job that was split into 3"):
        run_serially(str(job_file), quiet=True)
    with pytest.raises(UserError, match="is of part 0 of 3 of the input; try the job that was split"):
        run_serially(files[0], quiet=True, limit=3)
    assert run_serially(str(job_file), quiet=True, limit=3).documents == 3  # into out-trial


def test_labels_of_parts_beside_those_of_the_whole_are_an_error_for_all_that_read_or_write_them(
    job_file: Path, tmp_path: Path
) -> None:
    first, *_ = part_files(job_file)
    run_serially(first, quiet=True, report=False)
    aside, part = tmp_path / "aside", tmp_path / "out" / Path(first).stem
    part.rename(aside)
    run_serially(str(job_file), quiet=True, report=False)
    refused = command("run", first)
    assert refused.code == 2
    assert "/out' holds labels of the whole input, whose documents" in refused.error_lines[-1]
    assert "go on with the job that was not split" in refused.error_lines[-1]
    check_exactly_once(tmp_path / "out", expected(tmp_path / "in"))

    aside.rename(part)  # as a copy would do it
    for look in (
        lambda: label_corpus.labels(str(job_file)),
        lambda: find_labeled(str(tmp_path / "out")),  # show, evaluate, report, compare, join
        lambda: status(Store(str(tmp_path / "out"))),
        lambda: verify(load_job(str(job_file)), quiet=True),
        lambda: sweep_output(load_job(str(job_file))),
        lambda: split(str(job_file), PARTS),
        lambda: run_serially(str(job_file), quiet=True),
    ):
        with pytest.raises(
            UserError, match=r"whole input, and parts .*: documents are in both; delete .*part-\*-of-00003, or all"
        ):
            look()
    with pytest.raises(UserError, match="holds labels of the whole input, whose documents"):
        run_serially(first, quiet=True)


def test_part_is_refused_while_the_whole_is_being_labeled(job_file: Path, tmp_path: Path) -> None:
    files, store = part_files(job_file), Store(str(tmp_path / "out"))
    with hold_lease(store, 60, None, Ledger()), pytest.raises(LeaseError, match="/out'"):
        run_serially(files[0], quiet=True)
    assert not list((tmp_path / "out").glob("part-*"))


def test_whole_and_parts_without_labels_name_the_job_files_of_parts(job_file: Path) -> None:
    part_files(job_file)
    for name in ("status", "report"):
        assert "if it has been split, its parts' job files" in command(name, job_file).error_lines[-1]
    assert "N: 1 part; give 2 or more" in command("split", job_file, 1).error_lines[-1]


def test_input_that_cannot_be_split_is_refused_in_a_line(job_file: Path, model: Path, tmp_path: Path) -> None:
    refused = command("split", job_file, 30)
    assert refused.code == 2
    assert "has 8 files" in refused.error_lines[-1]
    assert "is the most that works" in refused.error_lines[-1]
    assert not (tmp_path / "job-parts").exists()

    one = write_job_file(tmp_path / "one.yaml", job_settings(tmp_path / "in" / "f0.jsonl", model, tmp_path / "one"))
    assert "it cannot be split; cut its files into smaller ones" in command("split", one, 2).error_lines[-1]
    run_serially(str(one), quiet=True)
    labeled = write_job_file(tmp_path / "labeled.yaml", job_settings(tmp_path / "in", model, tmp_path / "one"))
    assert "holds labels already" in command("split", labeled, 2).error_lines[-1]


@pytest.mark.slow
def test_split_says_how_uneven_the_parts_are(job_file: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "large.jsonl", [{"id": row, "text": TEXTS[row % 40]} for row in range(400)])
    finished = command("split", job_file, 2, "model.max_length=32", "-o", tmp_path / "jobs")
    assert finished.code == 0, finished.stderr
    result = finished.result
    assert result["largest_file"]["path"] == str(tmp_path / "in" / "large.jsonl")
    assert sum(part["files"] for part in result["parts"].values()) == result["files"] == FILES + 1
    first = load_job(result["parts"]["part-00000-of-00002"]["job"])
    assert first.model is not None
    assert first.model.max_length == 32
    assert first.output.path == f"{tmp_path}/out/part-00000-of-00002"
    assert "1.9 times the mean" in split_lines(result)[0] or "large.jsonl alone is" in split_lines(result)[0]


@pytest.mark.slow
def test_types_of_columns_are_the_same_in_all_parts(model: Path, tmp_path: Path) -> None:
    """A column that is whole numbers in the files of one part, and not in those of another, has one type in both."""
    for number in range(FILES):
        value = number if number % 2 else number + 0.5
        write_jsonl(tmp_path / "in" / f"{number}.jsonl", [{"text": text, "value": value} for text in TEXTS[:3]])
    write_parquet(tmp_path / "in" / "last.parquet", [{"text": "a", "value": 3}])
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(tmp_path / "in", model, tmp_path / "out"))
    files = label_all(job_file)
    types = {label_corpus.labels(f"{tmp_path}/out/{Path(file).stem}", "arrow").schema.field("value").type for file in files}
    assert [str(one) for one in types] == ["double"]


@pytest.mark.slow
def test_parts_on_s3_are_read_as_one(s3: Bucket, model: Path, tmp_path: Path) -> None:
    for number in range(4):
        lines = "".join(f'{{"text": "document {number} {row}"}}\n' for row in range(3))
        s3.filesystem.pipe_file(f"{s3.name}/in/{number}.jsonl", lines.encode())
    endpoint = f"storage.endpoint_url={s3.endpoint_url}"
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(f"{s3.url}/in", model, f"{s3.url}/out", endpoint))
    for part in split(str(job_file), 2)["parts"].values():
        assert run_serially(part["job"], quiet=True).complete
    check_exactly_once(f"{s3.name}/out", [(f"{s3.url}/in/{n}.jsonl", row) for n in range(4) for row in range(3)], s3.filesystem)
    assert verify(load_job(str(job_file)), deep=True)["ok"]
    storage = {"endpoint_url": s3.endpoint_url}
    assert len(label_corpus.labels(f"{s3.url}/out", storage=storage)) == 12
    assert status(load_job(str(job_file)).output_store)["documents"] == 12
