"""plan, verify and inspect through the command line, and what verify finds in a damaged output."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer, pipeline

from jobs.maintenance.verify import verify
from jobs.run.plan import plan
from tests.integration.conftest import FinishedJob
from tests.models.tiny import RAISING_WORD, make_poisonous_model
from tests.support.corpora import write_jsonl
from tests.support.running import command, commit_paths, committed_files, snapshot

PROBLEMS = ("missing", "doubled", "unreferenced", "broken")


@pytest.fixture
def damaged(finished_job: FinishedJob, tmp_path: Path) -> Path:
    """A copy of the finished output, to be damaged."""
    return shutil.copytree(finished_job.output, tmp_path / "out")


def problems(finished_job: FinishedJob, output: Path) -> dict[str, list[str]]:
    """The lists of `verify` that are not empty."""
    report = verify(finished_job.job(output))
    found = {kind: report[kind] for kind in PROBLEMS if report[kind]}
    assert report["ok"] == (not found)
    return found


def test_plan_of_a_new_output_says_what_would_run_and_writes_nothing(finished_job: FinishedJob, tmp_path: Path):
    finished = command("plan", finished_job.job_file, f"output.path={tmp_path / 'new'}", "compute.batch_tokens=512")
    sizes = [path.stat().st_size for path in finished_job.source.rglob("*") if path.is_file()]
    result = finished.result
    assert finished.code == 0
    assert (result["files"], result["files_done"], result["files_to_run"]) == (2, 0, 2)
    assert (result["bytes"], result["bytes_to_run"]) == (sum(sizes), sum(sizes))
    assert (result["units_done"], result["units_to_run"]) == (0, 2)
    assert result["settings"]["model.dtype"]["value"] == "float32"
    assert result["settings"]["model.max_length"]["value"] == 128
    assert result["settings"]["compute.batch_tokens"]["value"] == 512
    assert result["settings"]["compute.classifiers"]["value"] == 1
    assert list(tmp_path.iterdir()) == []


def test_plan_of_a_finished_job_has_nothing_to_run(finished_job: FinishedJob):
    before = snapshot(finished_job.output)
    result = plan(finished_job.job(finished_job.output))
    assert (result["files"], result["files_done"], result["files_to_run"]) == (2, 2, 0)
    assert (result["bytes_to_run"], result["units_to_run"]) == (0, 0)
    assert result["units_done"] == finished_job.result["units"]
    assert result["documents_done"] == finished_job.result["documents"]
    assert snapshot(finished_job.output) == before


def test_plan_of_changed_and_new_files_counts_them(finished_job: FinishedJob, tmp_path: Path):
    source, output = tmp_path / "in", tmp_path / "out"
    shutil.copytree(finished_job.source, source)
    shutil.copytree(finished_job.output, output)
    commits = commit_paths(output)
    for path in commits:  # the same files, elsewhere
        path.write_text(path.read_text().replace(str(finished_job.source), str(source)))
    write_jsonl(source / "more" / "second.jsonl.zst", [{"text": "changed"}])
    write_jsonl(source / "third.jsonl", [{"text": "new"}])
    job = finished_job.job(output, f"input.path={source}")
    result = plan(job)
    assert (result["files"], result["files_done"], result["files_changed"]) == (3, 1, 1)
    (source / "first.parquet").unlink()
    assert plan(job)["files_removed"] == 1


def test_verify_of_a_finished_job_exits_0_with_the_counts(finished_job: FinishedJob):
    finished = command("verify", finished_job.job_file)
    assert finished.code == 0
    for count in ("documents", "labeled", "rejected", "units"):
        assert finished.result[count] == finished_job.result[count]
    assert [finished.result[kind] for kind in PROBLEMS] == [[], [], [], []]


def test_verify_of_a_deleted_file_exits_1_and_names_it(finished_job: FinishedJob, damaged: Path):
    victim = committed_files(damaged)[0]
    victim.unlink()
    finished = command("verify", finished_job.job_file, f"output.path={damaged}")
    assert finished.code == 1
    assert [line.split(":")[0] for line in finished.result["broken"]] == [str(victim.relative_to(damaged))]


def test_verify_of_a_shortened_file_names_it(finished_job: FinishedJob, damaged: Path):
    victim = committed_files(damaged)[0]
    pq.write_table(pq.ParquetFile(victim).read().slice(1), victim)
    found = problems(finished_job, damaged)
    assert [line.split(":")[0] for line in found.pop("broken")] == [str(victim.relative_to(damaged))]
    assert found == {}


def test_verify_of_an_unreferenced_file_names_it(finished_job: FinishedJob, damaged: Path):
    victim = committed_files(damaged)[0]
    unit = victim.name.split("-")[0]
    stray = victim.with_name(f"{unit}-{'0' * 12}.parquet")
    shutil.copy(victim, stray)
    assert problems(finished_job, damaged) == {"unreferenced": [str(stray.relative_to(damaged))]}


def test_verify_of_a_deleted_commit_names_the_missing_rows_and_its_files(finished_job: FinishedJob, damaged: Path):
    victim = commit_paths(damaged)[0]
    record = json.loads(victim.read_text())
    victim.unlink()
    found = problems(finished_job, damaged)
    assert {line.split(":")[0] for line in found.pop("missing")} == {piece["path"] for piece in record["pieces"]}
    named = [file["path"] for file in [*record["files"], *filter(None, [record["rejects_file"]])]]
    assert sorted(found.pop("unreferenced")) == sorted(named)
    assert found == {}


def test_verify_of_a_doubled_commit_names_the_rows(finished_job: FinishedJob, damaged: Path):
    victim = commit_paths(damaged)[0]
    record = json.loads(victim.read_text())
    victim.with_name(f"{'0' * 24}.json").write_text(json.dumps(record | {"unit": "0" * 24}))
    found = problems(finished_job, damaged)
    assert {line.split(":")[0] for line in found["doubled"]} == {piece["path"] for piece in record["pieces"]}


def test_verify_of_a_changed_input_names_it(finished_job: FinishedJob, damaged: Path, tmp_path: Path):
    source = shutil.copytree(finished_job.source, tmp_path / "in")
    report = verify(finished_job.job(damaged, f"input.path={source}"))  # other files, as far as the commits know
    assert not report["ok"]
    assert {line.split(":")[0] for line in report["missing"]} == {str(path) for path in source.rglob("*") if path.is_file()}
    assert {str(path) for path in report["removed"]} == {path for path, _ in finished_job.expected}


def test_inspect_as_json_gives_each_step_and_the_pipelines_label(model: Path):
    text = "It is a pleasure to read. " * 100
    finished = command("inspect", text, "--model", model, "--json", "model.dtype=float32")
    steps = finished.result
    expected = pipeline("text-classification", model=str(model), device="cpu")(text, truncation=True)[0]
    assert finished.code == 0
    assert (steps["label"], steps["score"]) == (expected["label"], pytest.approx(expected["score"], abs=1e-5))
    assert (steps["truncated"], steps["max_length"], steps["num_tokens"]) == (True, 128, 128)
    assert len(steps["tokens"]) == len(steps["input_ids"]) == sum(steps["attention_mask"]) == 128
    assert (steps["tokens"][0], steps["tokens"][-1]) == ("[CLS]", "[SEP]")
    assert max(steps["logits"], key=steps["logits"].get) == max(steps["scores"], key=steps["scores"].get) == steps["label"]
    assert sum(steps["scores"].values()) == pytest.approx(1)


def test_inspect_of_a_pair_in_windows_shows_each_window_and_where_the_head_looks(model: Path):
    text, other = "It is a pleasure to read. " * 60, "Is it?"
    finished = command(
        *("inspect", text, "--pair", other, "--model", model, "--json", "--attention"),
        *("model.dtype=float32", "model.long_documents=windows", "model.max_length=64", "output.embedding=mean"),
    )
    assert finished.code == 0, finished.stderr
    steps = finished.result
    assert len(steps["windows"]) > 3
    tokenizer = AutoTokenizer.from_pretrained(model)
    read = tokenizer(text, other, truncation="only_first", max_length=64, return_overflowing_tokens=True)
    assert [sum(window["attention_mask"]) for window in steps["windows"]] == [len(ids) for ids in read["input_ids"]]
    for window, ids, types in zip(steps["windows"], read["input_ids"], read["token_type_ids"], strict=True):
        assert window["input_ids"][: len(ids)] == ids
        assert window["token_type_ids"][: len(ids)] == types
        assert sum(window["attention"]) == pytest.approx(1, abs=1e-4)
        assert [share for token, share in zip(window["tokens"], window["attention"], strict=True) if token == "[SEP]"] == [0, 0]
    assert len(steps["embedding"]) == 32
    shown = command("inspect", "A pleasure to read", "--attention", "--model", model, "model.dtype=float32", "output.top_k=2")
    assert shown.code == 0, shown.stderr
    assert "pleasure to read" in shown.stdout.split("attention of the token that the head reads")[1]


def test_inspect_of_a_text_that_the_model_raises_for_exits_2_with_one_line(tmp_path: Path):
    poisonous = make_poisonous_model(tmp_path / "poisonous", tmp_path / "cured")
    finished = command("inspect", RAISING_WORD, "--model", poisonous, "model.trust_remote_code=true")
    assert finished.code == 2
    assert "cannot read this text" in finished.stderr.splitlines()[-1]
    assert "Traceback" not in finished.stderr


def test_inspect_with_a_mistake_exits_2_with_one_line(model: Path):
    finished = command("inspect", "a text", "--model", model, "output.scores=true")
    assert (finished.code, len(finished.error_lines)) == (2, 1), finished.stderr
    assert "output.scores: unknown key" in finished.error_lines[0]
