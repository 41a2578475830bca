"""Spans of time: what a process worked on, from when, for how long, and with how much CPU."""

import os
import time
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, NamedTuple


class ProcessTimes(NamedTuple):
    """What Linux knows of a process (proc(5), /proc/PID/stat)."""

    parent: int
    began: float  # seconds since the machine's start (CLOCK_BOOTTIME)
    cpu_seconds: float  # of all its threads


@dataclass(frozen=True)
class TimeSpan:
    """What a process worked on. Spans of one process, or of several, may overlap.

    Attributes:
        began: time.time() of the process's machine.
        seconds: wall-clock.
        cpu_seconds: of all threads of the process in that time.
    """

    name: str
    began: float
    seconds: float
    cpu_seconds: float

    def named(self, name: str) -> "TimeSpan":
        return replace(self, name=name)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Stopwatch:
    """Measures a span of this process, from now on."""

    def __init__(self) -> None:
        self._began, self._clock, self._cpu = time.time(), time.monotonic(), time.process_time()

    def span(self, name: str) -> TimeSpan:
        """From the stopwatch's creation to now."""
        return TimeSpan(name, self._began, time.monotonic() - self._clock, time.process_time() - self._cpu)


def process_times(process: int | str = "self") -> ProcessTimes:
    """The times of a process.

    Raises:
        OSError: there is no such process, or no /proc: it is not Linux.
    """
    with open(f"/proc/{process}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()  # behind the program's name, which may contain anything
    ticks = os.sysconf("SC_CLK_TCK")
    return ProcessTimes(int(fields[1]), int(fields[19]) / ticks, (int(fields[11]) + int(fields[12])) / ticks)


def process_began() -> float:
    """time.time() of this process's start; where there is no /proc, of now."""
    try:
        return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - process_times().began)
    except OSError:
        return time.time()


@cache
def start_of_process() -> TimeSpan:
    """From this process's start to the first call of this function: imports, and what else went before its first work."""
    began = process_began()
    return TimeSpan("start of the process", began, time.time() - began, time.process_time())
