"""Attempts that are counted in this process, and recorded by others, some of which are killed."""

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from cluster.attempts import Attempts, StageActivity, UnitProgress, counted
from cluster.prometheus_metrics import Meter
from tests.support.running import wait_for

SOON_S = 10
Counted = tuple[Attempts, Callable[[], StageActivity]]
# what a process does with its copy before it is killed by SIGKILL
KILLED = """
import os, pickle, signal, sys
attempts = pickle.load(sys.stdin.buffer)
attempts.begin("classify a")
attempts.end("classify a")
attempts.begin("classify b")
attempts.progress("classify b", 0.5, 10.0, 100.0)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def attempts() -> Iterator[Counted]:
    with counted(Meter("run", "out"), here=True) as found:
        yield found


def test_unit_that_kills_its_process_is_counted_and_those_it_had_ended_are_not(attempts: Counted) -> None:
    recorded, activity = attempts
    for _ in range(2):
        process = subprocess.run([sys.executable, "-c", KILLED], input=pickle.dumps(recorded), check=False)
        assert process.returncode == -9
    progress = {"b": UnitProgress(0.5, 10.0, 100.0)}
    wait_for(lambda: activity().units == progress, "what the killed process has sent", SOON_S)
    assert recorded.begin("classify b") == 2, "it has been begun twice without an end"
    assert recorded.begin("classify a") == 0
    found = activity()
    assert found.units == {}, "an attempt begins anew"
    assert (found.busy["classify"], found.ended["classify"], found.retries) == (2, 2, 2)
    recorded.end("classify b")
    assert recorded.begin("classify b") == 0


def test_threads_of_a_process_are_answered_each_for_its_own_unit(attempts: Counted) -> None:
    """As the calls of a classifier on a GPU, of which two run at a time."""
    recorded, activity = attempts

    def work(number: int) -> list[int]:
        key = f"classify {number}"
        begun = [recorded.begin(key) for _ in range(50)]
        recorded.end(key)
        return begun

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(8))) == [list(range(50))] * 8
    wait_for(lambda: activity().ended["classify"] == 8, "the end of eight units", SOON_S)
