"""Threads of a training: a thread per core that other programs leave free, chosen anew as they come and go."""

import time
from collections import namedtuple
from collections.abc import Callable, Iterator

import psutil
import pytest
import torch

from jobs.start import training_threads
from jobs.start.training_threads import Threads

CORES = 4
Times = namedtuple("Times", ["user", "idle"])


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], None]]:
    """A machine of four cores, of which other programs use as many as the test says."""
    before, cores, used, since = torch.get_num_threads(), [0.0], 0.0, time.monotonic()

    def use(count: float) -> None:
        nonlocal used, since
        used += cores[0] * (time.monotonic() - since)
        since, cores[0] = time.monotonic(), count

    def cpu_times(percpu: bool) -> list[Times]:
        use(cores[0])
        total = time.monotonic()
        own = time.process_time()
        return [Times((used + own) / CORES, total - (used + own) / CORES)] * CORES

    monkeypatch.setattr(psutil, "cpu_times", cpu_times)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(CORES)))
    monkeypatch.setattr(training_threads, "usable_cores", lambda: CORES)
    monkeypatch.setattr(training_threads, "SHORTEST_SAMPLE_S", 0.05)
    monkeypatch.setattr(training_threads, "CHECK_SECONDS", 0.05)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    yield use
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("others", "said"),
    [
        (0.0, "4 threads"),
        (0.2, "4 threads"),
        (1.0, "3 threads: other programs use "),
        (9.0, "1 thread: other programs use "),
    ],
)
def test_threads_are_the_cores_that_others_leave(busy: Callable[[float], None], others: float, said: str) -> None:
    busy(others)
    assert Threads(print).choose().startswith(said)
    assert torch.get_num_threads() == int(said[0])


def test_threads_follow_what_other_programs_do_and_say_so(busy: Callable[[float], None]) -> None:
    lines: list[str] = []
    threads = Threads(lines.append)
    threads.choose()
    for cores, expected in ((3.0, 1), (3.0, 1), (0.0, 4)):
        busy(cores)
        time.sleep(0.06)
        threads.check()
        assert torch.get_num_threads() == expected
    changes = [line for line in lines if line.startswith("from here on")]
    assert [line.split(":")[0] for line in changes] == ["from here on 1 thread", "from here on 4 threads"]


def test_training_that_is_starved_says_once_what_to_do(busy: Callable[[float], None]) -> None:
    lines: list[str] = []
    threads = Threads(lines.append)
    busy(4.0)
    threads.choose()
    for _ in range(3):
        time.sleep(0.06)  # this process uses no core meanwhile
        threads.check()
    (line,) = lines
    assert line.startswith("slow: this training gets 0.")
    assert "end them, or train on another machine" in line


def test_omp_num_threads_stays(busy: Callable[[float], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    torch.set_num_threads(2)
    busy(4.0)
    threads = Threads(print)
    assert threads.choose() == "2 threads (OMP_NUM_THREADS)"
    time.sleep(0.06)
    threads.check()
    assert torch.get_num_threads() == 2
