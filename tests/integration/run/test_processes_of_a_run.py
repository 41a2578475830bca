"""The processes of a run on a Ray of its own: what they import, and that none is left, however the run ends."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.corpora import real_documents, write_jsonl
from tests.support.running import (
    job_settings,
    kill_group,
    start_command,
    wait_for,
    write_job_file,
)
from tests.support.watched_modules import MODULES

TIMEOUT_S = 240
MARK = "LABEL_CORPUS_TEST_PROCESSES"  # a variable that Ray's processes inherit

pytestmark = pytest.mark.slow


def marked_processes(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def names(processes: list[psutil.Process]) -> set[str]:
    found = set()
    for process in processes:
        try:
            found.add(process.name())
        except psutil.Error:
            continue
    return found


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[str]:
    """A value for MARK; what still runs with it is ended."""
    yield str(tmp_path)
    for process in marked_processes(str(tmp_path)):
        process.kill()


def test_process_of_each_stage_imports_what_the_stage_needs(model: Path, tmp_path: Path) -> None:
    """pandas is in all of them: ray.data imports it."""
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text[:300]} for text in real_documents(20)])
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(source, model, tmp_path / "out"))
    process = start_command("run", job_file, "--quiet", "--no-report", module="tests.support.watched_modules")
    try:
        _, stderr = process.communicate(timeout=TIMEOUT_S)
    finally:
        kill_group(process)
    assert process.returncode == 0, stderr
    found = {path.name: set(json.loads(path.read_text())) for path in (tmp_path / MODULES).iterdir()}
    assert found.keys() == {"read", "tokenize", "classify", "write"}
    for stage in ("read", "tokenize", "write"):
        assert not found[stage] & {"torch", "transformers"}, stage
    assert {"torch", "transformers"} <= found["classify"]
    for stage, modules in found.items():
        assert not modules & {"matplotlib", "sklearn"}, stage


BEGIN = """
import os, sys, time
from cluster.session import connected, starting
from jobs.console import signals

signals.install()

def say(line):
    print(line, flush=True)
"""
NOTEBOOK = """
import ray

try:
    with starting() as start:
        start(2**20)
        raise ValueError("a mistake in the job")
except ValueError:
    say("free")
with connected() as machines:
    assert machines.here
    assert ray.get(ray.remote(lambda: 7).remote()) == 7
assert not ray.is_initialized()
with starting() as start:
    start(2**20)
    with connected() as machines:
        assert machines.here
        assert ray.get(ray.remote(lambda: 8).remote()) == 8
assert not ray.is_initialized()
"""
MISTAKE = """
try:
    with starting() as start:
        start(2**20)
        say("free")
        sys.stdin.readline()
        raise ValueError("a mistake in the job")
except ValueError:
    os._exit(2)
"""
WAITING = """
try:
    with starting() as start:
        start(2**20)
        say("free")
        with connected():
            time.sleep(600)
except SystemExit as stop:
    os._exit(stop.code)
except KeyboardInterrupt:
    os._exit(signals.INTERRUPTED)
"""


def give_a_line(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.parametrize(
    ("script", "until", "act", "code"),
    [
        pytest.param(NOTEBOOK, "", None, 0, id="mistake-in-a-notebook"),
        pytest.param(MISTAKE, "raylet", give_a_line, 2, id="mistake-on-the-command-line"),
        pytest.param(WAITING, "gcs_server", lambda process: process.send_signal(signal.SIGTERM), 143, id="sigterm"),
        pytest.param(WAITING, "gcs_server", lambda process: process.send_signal(signal.SIGINT), 130, id="ctrl-c"),
    ],
)
def test_ray_that_has_begun_to_start_leaves_no_process(
    script: str, until: str, act: Callable[[subprocess.Popen[str]], None] | None, code: int, mark: str
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN + script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {MARK: mark},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "free\n", "nothing waits for Ray while it starts"
        if act is not None:
            wait_for(lambda: until in names(marked_processes(mark)), f"Ray's {until}", TIMEOUT_S)
            act(process)
        _, stderr = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
    assert process.returncode == code, stderr
    wait_for(lambda: not marked_processes(mark), "the end of Ray's processes", TIMEOUT_S)
