"""Threads of a training: a thread per core that other programs leave free, chosen anew as they come and go."""

from collections import namedtuple
from collections.abc import Iterator

import psutil
import pytest
import torch

from jobs.start import training_threads
from jobs.start.training_threads import CHECK_SECONDS, Threads

CORES = 4
OWN = 0.25  # cores that the training itself uses
Times = namedtuple("Times", ["user", "idle"])


class Machine:
    """Cores of which other programs use as many as the test says, and this one OWN; stands for the module `time` as well."""

    def __init__(self) -> None:
        self.now, self.others, self._used = 100.0, 0.0, 50.0

    def monotonic(self) -> float:
        return self.now

    def process_time(self) -> float:
        return OWN * self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self._used += (self.others + OWN) * seconds

    def cpu_times(self, percpu: bool) -> list[Times]:
        return [Times(self._used / CORES, self.now - self._used / CORES)] * CORES


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    before, machine = torch.get_num_threads(), Machine()
    monkeypatch.setattr(training_threads, "time", machine)
    monkeypatch.setattr(psutil, "cpu_times", machine.cpu_times)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(CORES)))
    monkeypatch.setattr(training_threads, "usable_cores", lambda: CORES)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    yield machine
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
def test_threads_are_the_cores_that_others_leave(machine: Machine, others: float, said: str) -> None:
    machine.others = others
    assert Threads(print).choose().startswith(said)
    assert torch.get_num_threads() == int(said[0])


def test_threads_follow_what_other_programs_do_and_say_so(machine: Machine) -> None:
    lines: list[str] = []
    threads = Threads(lines.append)
    threads.choose()
    for cores, expected in ((3.0, 1), (3.0, 1), (0.0, 4)):
        machine.others = cores
        machine.sleep(CHECK_SECONDS)
        threads.check()
        assert torch.get_num_threads() == expected
    changes = [line for line in lines if line.startswith("from here on")]
    assert [line.split(":")[0] for line in changes] == ["from here on 1 thread", "from here on 4 threads"]


def test_training_that_is_starved_says_once_what_to_do(machine: Machine) -> None:
    lines: list[str] = []
    threads = Threads(lines.append)
    machine.others = 4.0
    threads.choose()
    for _ in range(3):
        machine.sleep(CHECK_SECONDS)
        threads.check()
    (line,) = lines
    assert line.startswith("slow: this training gets 0.")
    assert "end them, or train on another machine" in line


def test_omp_num_threads_stays(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    torch.set_num_threads(2)
    machine.others = 4.0
    threads = Threads(print)
    assert threads.choose() == "2 threads (OMP_NUM_THREADS)"
    machine.sleep(CHECK_SECONDS)
    threads.check()
    assert torch.get_num_threads() == 2
