"""How many threads a training may use: cores that this process may use, less those that other programs keep busy.

Threads of one operation wait for each other, so a thread that shares its core with another program holds up all of them: two
threads on two cores of which one is busy are several times slower than one thread.
"""

import os
import time
from collections.abc import Callable

import psutil

from cluster.session import sleeping_threads, usable_cores
from jobs.number_format import counted, number

SHORTEST_SAMPLE_S = 0.5
CHECK_SECONDS = 20.0  # between checks in a training
TOLERATED = 0.3  # of a core: what other programs may use of the last one
STARVED = 0.5  # of a core: a training waits for nothing, so it gets less than this only where others take the rest


class Threads:
    """The number of threads, chosen anew while the training goes on.

    A number set by OMP_NUM_THREADS stays.
    """

    def __init__(self, say: Callable[[str], None]):
        """Begin to measure.

        Args:
            say: shows a line to the user.
        """
        self._say = say
        self._fixed = sleeping_threads()
        self._warned = False
        self.count = 0
        self._begin()

    def choose(self) -> str:
        """Set torch's threads by the time since the start; returns them in words, with the reason where a core stays unused."""
        import torch

        if torch.cuda.is_available():
            return "the GPU"
        if self._fixed:
            self.count = torch.get_num_threads()
            return f"{counted(self.count, 'thread')} (OMP_NUM_THREADS)"
        time.sleep(max(0.0, SHORTEST_SAMPLE_S - (time.monotonic() - self._since)))
        others, _ = self._measure()
        self.count = self._fitting(others)
        torch.set_num_threads(self.count)
        return f"{counted(self.count, 'thread')}{self._reason(others)}"

    def check(self) -> None:
        """Choose again if it is time to; says so if the number changes, or if hardly anything of a core is left."""
        import torch

        if self.count == 0 or time.monotonic() - self._since < CHECK_SECONDS:
            return
        others, own = self._measure()
        fitting = self.count if self._fixed else self._fitting(others)
        if fitting != self.count:
            self.count = fitting
            torch.set_num_threads(fitting)
            self._say(f"from here on {counted(fitting, 'thread')}{self._reason(others)}")
        if not self._warned and own < STARVED:
            self._warned = True
            fewer = "set OMP_NUM_THREADS=1, " if self.count > 1 else ""
            self._say(
                f"slow: this training gets {number(own)} of a core, other programs use {number(others)}; {fewer}end them, or"
                " train on another machine"
            )

    def _begin(self) -> None:
        self._since, self._own, self._all = time.monotonic(), time.process_time(), _busy_seconds()

    def _measure(self) -> tuple[float, float]:
        """Cores that other programs and this one have used since the last call, on average."""
        since, own, all_programs = self._since, self._own, self._all
        self._begin()
        seconds = self._since - since
        used = (self._own - own) / seconds
        return max(0.0, (self._all - all_programs) / seconds - used), used

    def _fitting(self, others: float) -> int:
        spare = int(len(_cores()) - others + TOLERATED)
        return max(1, min(usable_cores(), spare))

    def _reason(self, others: float) -> str:
        """Why it is not a thread per usable core."""
        if self.count == usable_cores():
            return ""
        return f": other programs use {number(others)} of {counted(len(_cores()), 'core')}"


def _cores() -> list[int]:
    """Numbers of the cores that this process may run on."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [*range(os.cpu_count() or 1)]


def _busy_seconds() -> float:
    """CPU seconds that all programs together have used on these cores since the machine was started."""
    times = psutil.cpu_times(percpu=True)
    return sum(
        sum(times[core]) - times[core].idle - getattr(times[core], "iowait", 0.0) for core in _cores() if core < len(times)
    )
