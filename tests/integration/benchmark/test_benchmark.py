"""The benchmark command at its smallest: every contender really runs, labels everything, and the numbers fit together."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.support import REPOSITORY
from tests.support.corpora import real_documents, write_parquet
from tests.support.running import command, command_in_own_process, running_command, wait_for

TIMEOUT_S = 280
SMALLEST = ("benchmark", "--size", "tiny")
CONTENDERS = ("limit", "job", "job-on-ray")
TINY = (*SMALLEST, "--repeat", 1, "--dtype", "float32")


def is_close(value: float, other: float) -> bool:
    return value == pytest.approx(other, rel=0.01)


def processes_below(folder: Path) -> list[str]:
    """Command lines of processes that name `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    output = tmp_path_factory.mktemp("benchmark")
    contenders = [option for name in CONTENDERS for option in ("--contender", name)]
    finished = command_in_own_process(*TINY, *contenders, "--output", output, timeout_s=TIMEOUT_S)
    assert finished.code == 0, finished.stderr
    return finished.result, output


@pytest.mark.slow
def test_every_contender_labels_everything_alike(compared: tuple[dict[str, Any], Path]) -> None:
    result, _ = compared
    contenders = result["contenders"]
    assert contenders.keys() == {*CONTENDERS}
    assert contenders["job-on-ray"]["runs"][0]["ran_on"] == "Ray"
    check_alike(result)


def check_alike(result: dict[str, Any]) -> None:
    documents = result["corpus"]["documents"]
    for name, row in result["contenders"].items():
        (run,) = row["runs"]
        assert run["documents"] == documents, name
        assert row["steady"] > 0, name
        assert name == "limit" or 0 < row["whole"] <= documents / run["seconds"] * 1.01, name
        if name != "job-s3":
            # batches of other shapes are rounded differently, which shows in a tie
            ties = [other for other in row["disagreements"] if abs(other["job"][1] - 0.5) < 1e-3]
            assert round((1 - row["agreement"]) * documents) == len(ties), (name, row["disagreements"])


@pytest.mark.campaign
@pytest.mark.timeout(900)
def test_every_peer_labels_everything_alike() -> None:
    arguments = ("--size", "tiny", "--repeat", "1", "--dtype", "float32")
    finished = subprocess.run(
        [sys.executable, "-m", "tests.performance.peers", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT_S,
    )
    assert finished.returncode == 0, finished.stderr
    result = json.loads(finished.stdout.splitlines()[-1])
    contenders = result["contenders"]
    kinds = {"limit", "job", "job-s3", "pipeline-float32", "ray-data-float32"}
    assert kinds <= contenders.keys() <= kinds | {"pipeline-best-float32", "ray-data-best-float32"}
    check_alike(result)
    assert contenders["job"]["runs"][0]["units"] == contenders["job-s3"]["runs"][0]["units"] >= 6


@pytest.mark.slow
def test_ratios_and_facts_fit_together(compared: tuple[dict[str, Any], Path]) -> None:
    result, output = compared
    contenders = result["contenders"]
    for row in contenders.values():
        assert is_close(row["of_limit"], row["steady"] / contenders["limit"]["steady"])
        assert is_close(row["job_steady"], contenders["job"]["steady"] / row["steady"])
        assert row["whole"] is None or is_close(row["job_whole"], contenders["job"]["whole"] / row["whole"])
    corpus = result["corpus"]
    assert 0 < corpus["tokens_p50"] <= corpus["tokens_p90"] <= corpus["tokens_max"] <= 128
    assert 0 <= corpus["padding_share"] < 0.2
    assert result["model"]["parameters"] > 64_000
    assert result["hardware"]["cores"] >= 1
    assert json.loads((output / "benchmark.json").read_text()) == result
    assert (output / "benchmark.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.campaign
def test_own_corpus_and_model_are_used_as_they_are(tmp_path: Path, model: Path) -> None:
    texts = [f"{row} {text}" for row, text in enumerate(real_documents(200))]
    write_parquet(tmp_path / "in" / "texts.parquet", pa.table({"body": texts, "n": list(range(200))}), row_group_size=10)
    finished = command_in_own_process(
        *TINY,
        *("--model", model, "--corpus", tmp_path / "in", "--text-column", "body"),
        *("--contender", "limit", "--contender", "job"),
        timeout_s=TIMEOUT_S,
    )
    assert finished.code == 0, finished.stderr
    result = finished.result
    assert list(result["contenders"]) == ["limit", "job"]
    assert result["corpus"]["documents"] == 200
    assert result["contenders"]["limit"]["agreement"] == 1
    assert result["model"]["path"] == str(model)


@pytest.mark.campaign
def test_host_ceiling_compares_with_the_bare_tokenizer() -> None:
    finished = command_in_own_process(*SMALLEST, "--repeat", 1, "--host-ceiling", timeout_s=TIMEOUT_S)
    assert finished.code == 0, finished.stderr
    result = finished.result
    tokenizer, job = result["contenders"]["tokenizer"], result["contenders"]["job"]
    assert tokenizer["runs"][0]["documents"] == job["runs"][0]["documents"] == result["corpus"]["documents"]
    assert is_close(job["of_limit"], job["steady"] / tokenizer["steady"])
    bytes_each = result["corpus"]["text_bytes"] / result["corpus"]["documents"]
    assert is_close(job["megabytes_per_second_steady"], job["steady"] * bytes_each / 1e6)


@pytest.mark.campaign
def test_scaling_runs_the_job_with_sleeping_classifiers(tmp_path: Path) -> None:
    sleeping = ("--actors", 2, "--actors", 3, "--units", 24, "--unit-seconds", 0.5)
    finished = command_in_own_process(*SMALLEST, "--scaling", *sleeping, "--output", tmp_path, timeout_s=TIMEOUT_S)
    assert finished.code == 0, finished.stderr
    rows = finished.result["actors"]
    assert [(row["actors"], row["units"], row["sleep_seconds"]) for row in rows] == [(2, 24, 0.5), (3, 24, 0.5)]
    for row in rows:
        assert is_close(row["efficiency"], row["units_per_second"] * row["sleep_seconds"] / row["actors"])
        assert 0 < row["efficiency"] <= 1.01
        assert 0 < row["driver_cpu_seconds_per_unit"] <= row["machine_cpu_seconds_per_unit"]
        assert row["driver_bytes"] > 50 * 2**20
        # a file per label, a commit, and the lease's, of which a run has a few
        assert 3 <= row["puts_per_unit"] < 5
        assert row["seconds"] > row["forecast"]["seconds"] - 0.5 >= 24 / row["actors"] * 0.5
        assert abs(row["puts_per_unit"] - row["forecast"]["puts_per_unit"]) < 1
    assert (tmp_path / "benchmark.png").exists()


@pytest.mark.campaign
def test_scaling_pretends_a_machine_with_units_of_full_size(tmp_path: Path) -> None:
    machine = ("--actors", 1, "--cores", 16, "--units", 6, "--unit-seconds", 24, "--moved-bytes", 2**20)
    finished = command_in_own_process(*SMALLEST, "--scaling", *machine, "--output", tmp_path, timeout_s=TIMEOUT_S)
    assert finished.code == 0, finished.stderr
    (row,) = finished.result["actors"]
    assert finished.result["pretended"] == {"cores": 16, "moved_bytes": 2**20}
    assert row["tokenizers"] == 2, "one keeps up with it"
    assert 0 < row["classifiers_busy"] <= 1
    assert 0 < row["waiting_seconds"] < 24
    assert row["queued_classify"] > 0.5, "it has its next unit"
    # a unit's text and tokens at the least
    assert row["store_bytes"] == 2 * 2**30 > row["most_store_bytes"] > 2.2 * 2**20
    assert row["spilled_bytes"] == 0


@pytest.mark.parametrize("option", [("--actors", 0), ("--units", 0), ("--unit-seconds", 0), ("--cores", 0)])
def test_scaling_refuses_what_is_nothing(option: tuple[str, int]) -> None:
    assert command("benchmark", "--scaling", *option).code == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--cores", 4], "--cores: no effect without --scaling"),
        (
            ["--scaling", "--size", "tiny", "--actors", 6, "--per-process", 4],
            "--per-process: 6 classifiers are not a multiple of 4",
        ),
        (["--scaling", "--moved-bytes", 9], "--moved-bytes: no effect without --cores"),
        (["--tiny"], "--tiny: no effect without --gpu"),
        (["--gpu", "--tiny", "--repeat", 3], "--repeat: no effect with --gpu"),
        (["--gpu", "--tiny", "--size", "full"], "--size: no effect with --gpu"),  # though it is the default
        (["--gpu", "--scaling"], "--scaling: no effect with --gpu"),
        (["--scaling", "--model", "/nowhere"], "--model: no effect with --scaling"),
        (["--host-ceiling", "--contender", "job"], "--contender: no effect with --host-ceiling"),
    ],
)
def test_options_of_another_mode_are_refused(options: list[object], said: str) -> None:
    finished = command("benchmark", *options)
    assert finished.code == 2
    (line,) = finished.error_lines
    assert said in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "/nowhere/model"], "--model: '/nowhere/model'"),
        (["--corpus", "/nowhere/corpus"], "--corpus: '/nowhere/corpus'"),
        (["--contender", "spark"], "--contender: 'spark'"),
        (["--dtype", "int3"], "--dtype: 'int3'"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(arguments: list[str], said: str) -> None:
    finished = command("benchmark", *arguments)
    assert finished.code == 2
    assert len(finished.error_lines) == 1
    assert said in finished.error_lines[0]


def test_documents_without_text_are_refused(tmp_path: Path, model: Path) -> None:
    write_parquet(tmp_path / "in.parquet", pa.table({"text": ["a", None]}))
    finished = command("benchmark", "--model", model, "--corpus", tmp_path / "in.parquet")
    assert finished.code == 2
    assert "in.parquet: null_text" in finished.error_lines[-1]


@pytest.mark.slow
def test_interrupted_command_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # its child processes have files in there among their arguments
    with running_command(*TINY, "--contender", "job") as process:
        wait_for(lambda: any("jobs.cli run" in line for line in processes_below(tmp_path)), "the job runs", TIMEOUT_S)
        os.kill(process.pid, signal.SIGINT)
        process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    wait_for(lambda: processes_below(tmp_path) == [], "the end of the processes, which are killed", 60)
    assert list(tmp_path.glob("label-corpus-benchmark-*")) == []
