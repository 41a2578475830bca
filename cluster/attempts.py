"""What worker processes are about to do, remembered in an actor that outlives them.

Ray runs again what a dead process was at work on, for ever: a unit that kills its worker would stop a job without a word. Each
stage says when it begins and ends a unit; what has begun several times and never ended is given up by the stage itself. Only
the unit that a process was at work on counts, not those that waited in its queue.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from cluster.metrics import RETRIES, Meter

STAGES = {"task": "read", "tokenize": "tokenize", "classify": "classify", "write": "write"}  # by the first word of a key
LOOK_EVERY_S = 1
ANSWER_S = 5  # after which a look at the counts is given up


@dataclass(frozen=True)
class StageActivity:
    """What the stages are at work on."""

    busy: dict[str, int] = field(default_factory=dict)  # by stage: units; of read: tasks
    retries: int = 0  # units, so far, that the process at work on them had not survived


class AttemptCounts:
    """The counts; runs as an actor. Keys that have ended are forgotten, so it stays as small as what is going on."""

    def __init__(self, meter: Meter | None = None) -> None:
        self._begun: Counter[str] = Counter()
        self._begun_again = 0
        self._meter = meter

    def begin(self, key: str) -> int:
        self._begun[key] += 1
        deaths = self._begun[key] - 1
        stage = _stage(key)
        if deaths and stage is not None:
            self._begun_again += 1
            if self._meter is not None:
                # here, not in the process that has begun: that may die before it has sent what it has counted
                self._meter.count(RETRIES, stage=stage)
        return deaths

    def end(self, key: str) -> None:
        del self._begun[key]

    def at_work(self) -> StageActivity:
        busy = Counter(_stage(key) for key in self._begun)
        return StageActivity({stage: busy[stage] for stage in STAGES.values()}, self._begun_again)


def _stage(key: str) -> str | None:
    """None: it is a part of a task of the reader."""
    return STAGES.get(key.partition(" ")[0])


class Attempts:
    """The counts as the stages use them, from any process of the cluster; lives as long as the run that made it."""

    def __init__(self, meter: Meter) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        # it takes no CPU from the pools, and stays with the driver, whose end is the end of the run
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        lasting = {"num_cpus": 0, "scheduling_strategy": here, "max_restarts": -1, "max_task_retries": -1}
        self._counts: Any = ray.remote(AttemptCounts).options(**lasting).remote(meter)

    def begin(self, key: str) -> int:
        """Says that work on `key` begins; returns how often it has begun without ending."""
        return self._call("begin", key)

    def end(self, key: str) -> None:
        """Says that the work has ended, well or not: this process lives."""
        self._call("end", key)

    def _call(self, method: str, key: str) -> Any:
        import ray

        return ray.get(getattr(self._counts, method).remote(key))

    @contextmanager
    def watched(self, tell: Callable[[StageActivity], None]) -> Iterator[None]:
        """While the block runs, `tell` hears every second what the stages are at work on, from a thread of its own.

        Ray Data says it of no running Dataset in a public way (2.60): its State API needs the dashboard, and what
        DataContext.custom_execution_callback_classes are given, the executor, keeps actors and their number to itself.
        """
        import ray

        over = threading.Event()

        def look() -> None:
            while not over.wait(LOOK_EVERY_S):
                try:
                    at_work: Any = ray.get(self._counts.at_work.remote(), timeout=ANSWER_S)
                except ray.exceptions.RayError:  # it starts, or starts again; what is shown can wait, the run cannot
                    continue
                tell(at_work)

        thread = threading.Thread(target=look, name="at-work", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
