"""Timings: wall-clock and CPU seconds of a run from its command's start, by phase, stage and process."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from jobs.timings.processes import LINUX, ProcessSampler
from pipeline_ops.schema.time_spans import Stopwatch, TimeSpan, process_began

IMPORTS = "imports"
JOB_FILE = "reading the job file"
PLANNING = "planning"
FIRST_UNIT = "first unit"
COMMIT = "commit"
START = ": start of the process"  # of a stage
ONE_START = "start of the process that labels"  # of all stages


@dataclass(frozen=True)
class Phase:
    """What the driver does from `began` until the next phase begins.

    Attributes:
        began: seconds since the command's start.
        driver_cpu: CPU seconds of this process until then.
    """

    name: str
    began: float
    driver_cpu: float


class Timings:
    """Measures a run while it goes on.

    The phases of the driver follow each other without a gap, from the command's start to now. The stages of the first unit
    work in another process, or on Ray in several at a time, where their spans overlap. A phase costs microseconds; processes
    are sampled only while the object is used as a context manager, if it has a sampler.
    """

    def __init__(self, phase: str, began: float | None = None, *, sampled: bool = False):
        """
        Args:
            phase: what the driver does now.
            began: time.time() of the command's start, which is the process's; None: now, and CPU seconds count from now.
            sampled: also measure the processes that this one starts, if it is on Linux.
        """
        self.began = time.time() if began is None else began
        self._clock = time.monotonic() - (time.time() - self.began)
        self._cpu = time.process_time() if began is None else 0.0
        self._phases = [Phase(phase, 0.0, 0.0)]
        self._ended: Phase | None = None
        self._received: Stopwatch | None = None
        self._first_unit: list[TimeSpan] = []
        self.on_cluster = False  # the stages' processes are not this command's
        self.first_commit: float | None = None  # seconds since the command's start
        self.sampler = ProcessSampler(self.elapsed) if sampled and LINUX else None

    def __enter__(self) -> "Timings":
        if self.sampler is not None:
            self.sampler.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._ended = self._mark("")
        if self.sampler is not None:
            self.sampler.__exit__(kind, error, traceback)

    def elapsed(self) -> float:
        """Seconds since the command's start."""
        return time.monotonic() - self._clock

    def begin(self, phase: str) -> None:
        """Ends the phase before; of the same phase twice, the second time is part of the first."""
        if phase != self._phases[-1].name:
            self._phases.append(self._mark(phase))

    def unit_received(self, spans: Iterable[Mapping[str, Any]]) -> None:
        """Takes the spans of a unit that has been written; of those until the first commit, the last unit's are kept."""
        if self.first_commit is None:
            self._received = Stopwatch()
            self._first_unit = [TimeSpan(**span) for span in spans]

    def unit_committed(self, next_phase: str) -> None:
        """Marks the first commit, at which `next_phase` begins; later calls are ignored."""
        if self.first_commit is None:
            if self._received is not None:
                self._first_unit.append(self._received.span(COMMIT))
            self.begin(next_phase)
            self.first_commit = self._phases[-1].began
            if self.sampler is not None:
                self.sampler.mark_first_commit()

    def to_dict(self) -> dict[str, Any]:
        """The `timings` of a run's record and of its JSON line; times in seconds.

        Returns:
            seconds: from the command's start to its end, or to now. first_commit: when it was, since the command's start.
            phases: of the driver: name, began, seconds, driver_cpu_seconds, cpu_seconds (of all processes; None: not sampled).
            first_unit: the stages of the unit that was committed first: name, began, seconds, cpu_seconds (of its process).
            processes: see ProcessSampler.to_dict; None: not sampled.
        """
        ended = self._ended or self._mark("")
        return {
            "seconds": round(ended.began, 3),
            "first_commit": None if self.first_commit is None else round(self.first_commit, 3),
            "phases": [
                {
                    "name": phase.name,
                    "began": round(phase.began, 3),
                    "seconds": round(after.began - phase.began, 3),
                    "driver_cpu_seconds": round(after.driver_cpu - phase.driver_cpu, 3),
                    "cpu_seconds": self._cpu_seconds(phase, after),
                }
                for phase, after in zip(self._phases, [*self._phases[1:], ended], strict=True)
            ],
            "first_unit": [
                {
                    "name": span.name,
                    "began": round(span.began - self.began, 3),
                    "seconds": round(span.seconds, 3),
                    "cpu_seconds": round(span.cpu_seconds, 3),
                }
                for span in self._distinct()
            ],
            "processes": None if self.sampler is None else self.sampler.to_dict(),
        }

    def _mark(self, phase: str) -> Phase:
        if self.sampler is not None:
            self.sampler.sample()
        return Phase(phase, self.elapsed(), time.process_time() - self._cpu)

    def _cpu_seconds(self, phase: Phase, after: Phase) -> float | None:
        """Of all processes; the samples come from a coarser clock than this one's, and may fall short of it."""
        if self.sampler is None:
            return None
        return max(self.sampler.cpu_seconds(phase.began, after.began), round(after.driver_cpu - phase.driver_cpu, 3))

    def _distinct(self) -> list[TimeSpan]:
        """The first unit's spans in the order of their begin; the start of a process that did several stages once."""
        spans = {(span.began, span.seconds): span for span in reversed(self._first_unit)}
        starts = [key for key, span in spans.items() if span.name.endswith(START)]
        if len(starts) == 1:
            spans[starts[0]] = spans[starts[0]].named(ONE_START)
        return sorted(spans.values(), key=lambda span: (span.began, span.seconds))


def timings_of_command(*, sampled: bool) -> Timings:
    """Timings of the command that this process is, from the process's start on."""
    return Timings(IMPORTS, process_began(), sampled=sampled)
