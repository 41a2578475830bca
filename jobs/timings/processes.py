"""The processes that this one starts, and theirs, sampled from Linux's /proc: what they are, and the CPU that they take."""

import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cluster.periodic import called_every
from pipeline_ops.schema.time_spans import ProcessTimes, process_times

SAMPLE_SECONDS = 0.2  # until the first commit; a sample takes 2 ms of CPU beside 150 processes
LATER_SAMPLE_SECONDS = 2
DRIVER = "driver"
RAY = "ray::"
IDLE = "ray::IDLE"  # the title of a worker of Ray's between two tasks
TITLE = re.compile(r"ray::(?:MapWorker\()?(?:MapBatches\()?(?:\w+:)?(\w+)")  # a named actor's has its name first
IMPORTED = re.compile(r"\bfrom ([\w.]+) import ")  # in a program on the command line, as multiprocessing and our worker have
OWN = {"jobs.executors.worker_process": "worker process"}  # names of ours, by module
LINUX = os.path.exists("/proc/self/stat")


def process_name(command_line: Sequence[str]) -> str:
    """What a process is, by its command line: a worker of Ray's by its actor or task, one of Python's by its script or module.

    ray::MapWorker(MapBatches(ClassifyActor)) is ray::ClassifyActor; python -u …/log_monitor.py --x is log_monitor.py.
    """
    program, *arguments = [argument.strip() for argument in command_line] or [""]
    title = TITLE.match(program)
    if title is not None:
        return f"ray::{title[1]}"
    name = os.path.basename(program.split(" ")[0])
    if not name.startswith("python"):
        return name
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if before == "-m":
            return argument
        if before == "-c":
            module = IMPORTED.search(argument)
            return OWN.get(module[1], module[1]) if module is not None else f"{name} -c"
        if not argument.startswith("-") and before not in ("-X", "-W"):
            return os.path.basename(argument)
    return name


@dataclass
class SampledProcess:
    """A process, as it was seen last."""

    began: float  # seconds since the command's start
    cpu_seconds: float = 0.0
    cpu_to_first_commit: float | None = None  # None: it began later, or there is no commit yet
    names: dict[str, None] = field(default_factory=dict)  # the latest last

    def see(self, cpu_seconds: float, name: str) -> None:
        self.cpu_seconds = cpu_seconds
        if name:  # none: it has ended, but is not waited for yet
            self.names.pop(name, None)
            self.names[name] = None

    @property
    def name(self) -> str:
        """Of a worker of Ray's what it has worked on; of others the last name: a child has its parent's until it executes."""
        work = sorted(name for name in self.names if name.startswith(RAY) and name != IDLE)
        return RAY + ", ".join(name.removeprefix(RAY) for name in work) if work else next(reversed(self.names), "?")


class ProcessSampler:
    """Samples this process and its descendants during a with block, on Linux only; one that lives shorter may not be seen."""

    def __init__(self, elapsed: Callable[[], float]):
        """
        Args:
            elapsed: seconds since the command's start.
        """
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._processes: dict[tuple[int, float], SampledProcess] = {}  # by id and start: ids are used again
        self._others = set[int]()  # that are not this one's descendants
        self._totals = [(0.0, 0.0)]  # (seconds since the command's start, CPU seconds of all processes until then)
        self._before_first_commit = True
        self._sampled = 0.0  # seconds since the command's start
        self._sampling = called_every(SAMPLE_SECONDS, self._sample_again, "process-sampler")

    def __enter__(self) -> "ProcessSampler":
        self._sampling.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._sampling.__exit__(None, None, None)

    def sample(self, *, in_totals: bool = True) -> None:
        """Updates the processes.

        Args:
            in_totals: cpu_seconds goes by this moment too.
        """
        with self._lock:
            self._sampled = now = self._elapsed()
            since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
            for process, times in self._own_processes().items():
                seen = self._processes.setdefault(
                    (process, times.began), SampledProcess(max(0.0, now - (since_boot - times.began)))
                )
                seen.see(times.cpu_seconds, DRIVER if process == os.getpid() else _name_of(process))
            if in_totals:
                self._totals.append((now, sum(process.cpu_seconds for process in self._processes.values())))

    def mark_first_commit(self) -> None:
        """Keeps each process's CPU so far; samples are rarer from now on."""
        self.sample()
        with self._lock:
            self._before_first_commit = False
            for process in self._processes.values():
                process.cpu_to_first_commit = process.cpu_seconds

    def cpu_seconds(self, began: float, ended: float) -> float:
        """Of all processes between two moments, in seconds since the command's start."""
        return round(self._cpu_until(ended) - self._cpu_until(began), 2)

    def to_dict(self) -> list[dict[str, Any]]:
        """The processes by name, in the order of their start; times in seconds.

        Returns:
            name, processes (how many), began (the first), cpu_seconds_to_first_commit (None: there was none), cpu_seconds.
        """
        with self._lock:
            by_name: dict[str, list[SampledProcess]] = {}
            for process in sorted(self._processes.values(), key=lambda process: process.began):
                by_name.setdefault(process.name, []).append(process)
        return [
            {
                "name": name,
                "processes": len(several),
                "began": round(several[0].began, 2),
                "cpu_seconds_to_first_commit": None
                if self._before_first_commit
                else round(sum(process.cpu_to_first_commit or 0.0 for process in several), 2),
                "cpu_seconds": round(sum(process.cpu_seconds for process in several), 2),
            }
            for name, several in by_name.items()
        ]

    def _sample_again(self) -> None:
        if self._before_first_commit or self._elapsed() - self._sampled >= LATER_SAMPLE_SECONDS:
            self.sample(in_totals=self._before_first_commit)

    def _own_processes(self) -> dict[int, ProcessTimes]:
        """This process, its descendants, and those of them that have lost their parent."""
        listed = {int(name) for name in os.listdir("/proc") if name.isdigit()}
        self._others &= listed
        found = dict(_times_of(listed - self._others))
        children: dict[int, list[int]] = {}
        for process, times in found.items():
            children.setdefault(times.parent, []).append(process)
        known = [process for process, began in self._processes if process in found and found[process].began == began]
        own, waiting = dict[int, ProcessTimes](), [os.getpid(), *known]
        while waiting:
            process = waiting.pop()
            if process not in own and process in found:
                own[process] = found[process]
                waiting += children.get(process, ())
        self._others |= found.keys() - own.keys()
        return own

    def _cpu_until(self, moment: float) -> float:
        """By interpolation between two samples."""
        times, totals = zip(*self._totals, strict=True)
        return float(np.interp(moment, times, totals))


def _times_of(processes: Iterable[int]) -> Iterator[tuple[int, ProcessTimes]]:
    for process in processes:
        with suppress(OSError):  # it has ended
            yield process, process_times(process)


def _name_of(process: int) -> str:
    try:
        with open(f"/proc/{process}/cmdline", "rb") as file:
            return process_name(file.read().decode(errors="replace").rstrip("\0").split("\0"))
    except OSError:
        return ""
