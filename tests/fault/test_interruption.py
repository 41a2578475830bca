"""The command stopped in the middle, by Ctrl-C and by SIGKILL, and run again."""

import os
import re
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline_ops.output.labeled_output import open_labeled
from pipeline_ops.storage.store import Store
from tests.support.corpora import real_documents, write_bytes, write_jsonl, write_parquet
from tests.support.invariant import Key, check_exactly_once
from tests.support.running import (
    command,
    commit_paths,
    committed_files,
    job_settings,
    keys,
    make_job,
    running_command,
    snapshot,
    wait_for,
    write_job_file,
)
from tests.support.serial_chain import run_serially

FIRST_COMMIT_TIMEOUT_S = 180  # a local Ray starts in 5 s on an idle machine, and has two times 30
CTRL_C_TIMEOUT_S = 120  # 2 s on an idle machine
UNIT_BYTES = 6000
SOME = r"[\d,]+"


@pytest.fixture
def corpus(tmp_path: Path) -> list[Key]:
    """About fifty units in a compressed stream, a split file and row groups; keys of all documents."""
    folder = tmp_path / "in"
    texts = [text[:500] for text in real_documents(900)]
    stream = write_jsonl(folder / "a.jsonl.zst", [{"text": text} for text in texts[:300]])
    lines = write_bytes(folder / "b.txt", "".join(text.replace("\n", " ") + "\n" for text in texts[300:600]).encode())
    groups = write_parquet(folder / "c.parquet", [{"text": text} for text in texts[600:]], row_group_size=20)
    return keys(stream, 300) + keys(lines, 300) + keys(groups, 300)


@pytest.fixture
def gone_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The trace of a Ray cluster that was started on this machine and is gone: the command still starts one of its own."""
    with tempfile.TemporaryDirectory(prefix="t") as folder:  # a short name: Ray's sockets are below it
        trace = Path(folder) / "ray" / "ray_current_cluster"
        trace.parent.mkdir()
        trace.write_text("127.0.0.1:1")
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield


def documents_of(output: Path) -> int:
    return sum(commit.documents for commit in open_labeled(Store(str(output))).commits)


@pytest.mark.slow
@pytest.mark.usefixtures("gone_cluster")
@pytest.mark.parametrize(
    ("stop", "unit_bytes_after"),
    [(signal.SIGKILL, UNIT_BYTES), (signal.SIGINT, 32 * UNIT_BYTES)],  # how the rest is cut may change in between
    ids=["killed", "ctrl-c"],
)
def test_run_stopped_in_the_middle_is_continued_exactly_once(
    model: Path,
    tmp_path: Path,
    corpus: list[Key],
    stop: signal.Signals,
    unit_bytes_after: int,
    capsys: pytest.CaptureFixture[str],
):
    source, output = tmp_path / "in", tmp_path / "out"
    settings = job_settings(source, model, output, f"compute.unit_bytes={UNIT_BYTES}")
    job_file = write_job_file(tmp_path / "job.yaml", settings)
    with running_command("run", job_file, "--quiet") as process:
        wait_for(lambda: bool(commit_paths(output)) or process.poll() is not None, "a commit", FIRST_COMMIT_TIMEOUT_S)
        assert process.poll() is None, process.communicate()[1]
        if stop == signal.SIGKILL:
            process.kill()  # the driver alone: Ray's processes are left to themselves
            process.wait()
        else:
            os.killpg(process.pid, stop)  # as a terminal does
            last_line = process.communicate(timeout=CTRL_C_TIMEOUT_S)[1].splitlines()[-1]
            labeled = f"{documents_of(output):,} of about {SOME} documents are labeled; `label-corpus run {job_file}` continues"
            assert re.fullmatch(f"label-corpus: interrupted: {labeled}", last_line), last_line
            assert process.returncode == 130
    labeled_before = documents_of(output)
    status = command("status", output)
    assert status.result["state"] == ("killed" if stop == signal.SIGKILL else "interrupted")
    assert re.search(f"{labeled_before:,}( of about {SOME})? documents are labeled", status.stderr), status.stderr
    stamps, num_committed = snapshot(output), len(commit_paths(output))
    committed = {str(path): stamps[str(path)] for path in committed_files(output)}  # the records themselves may be packed
    summary = run_serially(make_job(source, model, output, f"compute.unit_bytes={unit_bytes_after}"))
    said = capsys.readouterr().err
    assert re.search(f"continuing: {labeled_before:,} of about {SOME} documents are labeled", said), said
    assert ("did not end properly" in said) == (stop == signal.SIGKILL), "a clean end is no crash"
    check_exactly_once(output, corpus)
    assert 0 < num_committed == summary.units_skipped < summary.units, "it was stopped in the middle"
    assert 0 < summary.documents_run < summary.documents == summary.labeled + summary.rejected == len(corpus)
    assert committed.items() <= snapshot(output).items(), "what was committed is not labeled again"
    assert command("verify", job_file).code == 0
