"""The process that calls functions for its parent: what it gives, raises and posts, and how either of the two ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from jobs.executors.worker_process import WorkerDied, WorkerProcess, post

LARGE = 20_000_000  # bytes: more than a socket holds


def numbers(count: int) -> Iterator[int]:
    post("on the way")
    yield from range(count)


def failing() -> Iterator[int]:
    yield 1
    raise ConnectionRefusedError("the store")


def unpicklable() -> Iterator[int]:
    class Own(Exception):
        pass

    raise Own("no way back")
    yield 1


def dying(size: int) -> Iterator[bytes]:
    """Dies in the middle of its message."""
    yield b"whole"
    if size:
        signal.signal(signal.SIGALRM, lambda number, frame: os.kill(os.getpid(), signal.SIGKILL))
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        yield bytes(size)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def process() -> Iterator[WorkerProcess]:
    started = WorkerProcess((), {})
    yield started
    started.close()


def test_results_come_in_order_and_news_between_them(process: WorkerProcess):
    news: list[Any] = []
    assert list(process.run(numbers, 3, on_news=news.append)) == [0, 1, 2]
    assert list(process.run(numbers, 2, on_news=news.append)) == [0, 1]
    assert news == ["on the way"] * 2


def test_error_of_a_function_is_raised_with_the_traceback_and_is_no_death(process: WorkerProcess):
    results = process.run(failing)
    assert next(results) == 1
    with pytest.raises(ConnectionRefusedError, match="the store") as caught:
        next(results)
    assert "in failing" in caught.value.__notes__[0]
    with pytest.raises(RuntimeError, match="Own: no way back"):
        next(process.run(unpicklable))
    assert list(process.run(numbers, 1)) == [0]


@pytest.mark.parametrize("size", [0, LARGE])
def test_death_between_messages_and_within_one_is_told_from_an_error(process: WorkerProcess, size: int):
    results = process.run(dying, size)
    assert next(results) == b"whole"
    if size:
        time.sleep(0.6)  # the process is killed while it waits for this one to take its message
    with pytest.raises(WorkerDied, match="killed by SIGKILL"):
        next(results)


PARENT = """
import os, signal, sys, threading
from jobs.executors.worker_process import WorkerProcess
from tests.unit.executors.test_worker_process import numbers
process = WorkerProcess((), {})
os.kill(process._process.pid, signal.SIGSTOP)  # it takes nothing from the socket
print(process._process.pid, flush=True)
threading.Timer(0.3, lambda: (os.kill(process._process.pid, signal.SIGCONT), os.kill(os.getpid(), signal.SIGKILL))).start()
next(process.run(numbers, bytes(20_000_000)))
"""


def test_the_process_ends_with_a_parent_that_is_killed_within_a_message():
    parent = subprocess.run([sys.executable, "-c", PARENT], capture_output=True, text=True, timeout=60, check=False)
    assert parent.returncode == -signal.SIGKILL, parent.stderr
    pid = int(parent.stdout)
    deadline = time.monotonic() + 30
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the process goes on without its parent"
        time.sleep(0.05)
