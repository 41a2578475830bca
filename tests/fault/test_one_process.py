"""Small inputs are labeled by one process, without Ray: what it writes, and what comes of it when it is killed."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from transformers import AutoTokenizer, BertConfig

from cluster.session import this_machine
from jobs.executors.one_process import MOST_THREADS
from tests.models import tiny
from tests.models.strange_weights import weights_with_nan
from tests.support.corpora import real_documents, write_jsonl, write_parquet
from tests.support.invariant import Key, check_exactly_once
from tests.support.reference_answers import check_answers, pipeline_of
from tests.support.running import (
    Finished,
    command_in_own_process,
    commit_paths,
    job_settings,
    keys,
    running_command,
    wait_for,
    write_job_file,
)

TIMEOUT_S = 120
UNITS = ("compute.unit_bytes=2000",)  # about sixty
MANY_UNITS = ("compute.unit_bytes=300",)  # about two hundred, so that there is time to interrupt it


@pytest.fixture
def texts() -> list[str]:
    return [text[:300] for text in real_documents(400)]


@pytest.fixture
def corpus(tmp_path: Path, texts: list[str]) -> list[Key]:
    lines = write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": text} for text in texts[:200]])
    groups = write_parquet(tmp_path / "in" / "b.parquet", [{"text": text} for text in texts[200:]], row_group_size=20)
    return keys(lines, 200) + keys(groups, 200)


def job_file(tmp_path: Path, model: Path, *overrides: str) -> Path:
    """Of a job that names no pools."""
    settings: dict[str, Any] = job_settings(tmp_path / "in", model, tmp_path / "out", *overrides)
    for pool in ("tokenizers", "classifiers"):
        del settings["compute"][pool]
    return write_job_file(tmp_path / "job.yaml", settings)


def workers_of(driver: int) -> list[psutil.Process]:
    """Python processes below a command; a terminal's guard is a shell."""
    return [child for child in psutil.Process(driver).children() if child.name().startswith("python")]


def test_small_input_is_labeled_like_pipeline_without_ray(model: Path, tmp_path: Path, texts: list[str], corpus: list[Key]):
    job = job_file(tmp_path, model, *UNITS, "output.scores=true")
    planned = command_in_own_process("plan", job)
    assert planned.result["runs_on"] == "one process"
    assert "in one process, without Ray" in planned.stderr
    finished = command_in_own_process("run", job, "--no-report")
    assert finished.code == 0, finished.stderr
    labeled, _ = check_exactly_once(tmp_path / "out", corpus)
    assert (finished.result["ran_on"], finished.result["classifiers"]) == (
        "one process",
        min(this_machine().cores, MOST_THREADS),
    )
    expected = dict(zip(corpus, pipeline_of(model)(texts), strict=True))
    rows = zip(labeled["source_file"].to_pylist(), labeled["source_row"].to_pylist(), strict=True)
    check_answers(labeled, [expected[row] for row in rows], ("NEGATIVE", "POSITIVE"))


@pytest.mark.slow
def test_ray_labels_what_a_killed_process_has_left(model: Path, tmp_path: Path, corpus: list[Key]):
    with running_command("run", job_file(tmp_path, model, *MANY_UNITS), "--no-report") as process:
        wait_for(lambda: bool(commit_paths(tmp_path / "out")), "a commit", TIMEOUT_S)
        (worker,) = workers_of(process.pid)
        worker.kill()
        stdout, stderr = process.communicate(timeout=TIMEOUT_S)
    finished = Finished(process.returncode, stdout, stderr, 0.0)
    assert finished.code == 0, stderr
    assert "the process that labels has ended (killed by SIGKILL); Ray labels what is left" in stderr
    check_exactly_once(tmp_path / "out", corpus)
    assert finished.result["labeled"] == len(corpus)


@pytest.mark.slow
def test_document_that_kills_the_process_costs_its_unit_alone(tmp_path: Path):
    """And on the Ray that follows, where the driver counts; on a cluster an actor does: tests/fault/test_poison.py."""
    texts = [text[:300] for text in real_documents(20, seed=3)]
    texts[7] = f"a text with {tiny.KILLING_WORD} in it"
    source = write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": text} for text in texts])
    poisonous = tiny.make_poisonous_model(tmp_path / "model", tmp_path / "cured")
    job = job_file(tmp_path, poisonous, "model.trust_remote_code=true", "compute.unit_bytes=1")
    finished = command_in_own_process("run", job, "--no-report", timeout_s=2 * TIMEOUT_S)
    assert finished.code == 1, finished.stderr
    assert "killed by SIGSEGV" in finished.stderr
    (why,) = finished.result["failed"]
    assert "died 3 times" in why
    check_exactly_once(tmp_path / "out", [key for key in keys(source, 20) if key[1] != 7])
    (tmp_path / "cured").touch()
    assert command_in_own_process("run", job, "--retry-failed", "--no-report", timeout_s=TIMEOUT_S).code == 0
    check_exactly_once(tmp_path / "out", keys(source, 20))


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_process_ends_with_the_command_and_the_next_run_continues(
    model: Path, tmp_path: Path, corpus: list[Key], stop: signal.Signals
):
    job = job_file(tmp_path, model, *MANY_UNITS)
    with running_command("run", job, "--quiet", "--no-report") as process:
        wait_for(lambda: bool(commit_paths(tmp_path / "out")), "a commit", TIMEOUT_S)
        (worker,) = workers_of(process.pid)
        os.killpg(process.pid, stop)  # as a terminal does; the process is in no group of the terminal's
        process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[stop]
        wait_for(lambda: not worker.is_running(), "the end of the process", TIMEOUT_S)
    finished = command_in_own_process("run", job, "--no-report", timeout_s=TIMEOUT_S)
    assert finished.code == 0, finished.stderr
    assert 0 < finished.result["documents_run"] < len(corpus), "it was stopped in the middle"
    check_exactly_once(tmp_path / "out", corpus)


@pytest.mark.slow
def test_mistake_is_one_line_and_leaves_no_process(model: Path, tmp_path: Path, corpus: list[Key]):
    job = job_file(tmp_path, model, "input.text_column=body")
    with running_command("run", job, "--quiet") as process:
        wait_for(lambda: bool(workers_of(process.pid)) or process.poll() is not None, "the process", TIMEOUT_S)
        workers = workers_of(process.pid)
        _, stderr = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 2
    assert len(stderr.splitlines()) == 1, stderr
    assert "body" in stderr
    assert workers
    assert not any(worker.is_running() for worker in workers)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_model_that_only_loading_shows_to_be_broken_is_one_line(model: Path, tmp_path: Path, corpus: list[Key]):
    broken = weights_with_nan(shutil.copytree(model, tmp_path / "broken"))
    finished = command_in_own_process("run", job_file(tmp_path, broken), "--quiet")
    assert finished.code == 2, finished.stderr
    assert len(finished.error_lines) == 1, finished.stderr
    assert "nan" in finished.stderr.lower()
    assert commit_paths(tmp_path / "out") == []


@pytest.mark.slow
def test_large_input_of_a_job_without_pools_is_labeled_on_ray(model: Path, tmp_path: Path):
    """Large by its bytes, of which a model that is not so small reads next to nothing."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    shape: dict[str, Any] = {"hidden_size": 2048, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **shape)
    wide = tiny.save_classifier(tmp_path / "wide", config, tokenizer, ("NEGATIVE", "POSITIVE"), 0, None, real_documents(9))
    words = " ".join(text for text in real_documents(50)).replace("\n", " ")
    text = (words + " ") * (4_000_000 // len(words))
    source = write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": f"{number} {text}"} for number in range(10)])
    finished = command_in_own_process("run", job_file(tmp_path, wide), "--no-report", timeout_s=TIMEOUT_S)
    assert finished.code == 0, finished.stderr
    assert finished.result["ran_on"] == "Ray"
    check_exactly_once(tmp_path / "out", keys(source, 10))
