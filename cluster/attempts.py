"""Counts of unfinished attempts at units, and how far the classifiers are with theirs, in an actor that outlives the workers.

Ray retries a dead process's work without limit, so a unit that kills its worker would stall a job silently. Each stage reports
the begin and the end of a unit, and gives up a unit that has begun several times without an end. Only the unit that a process
was working on counts, not those in its queue.

How far a unit is, is for people only: it is reported without waiting for an answer, and what is lost is reported again.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from cluster.periodic import called_every
from cluster.prometheus_metrics import RETRIES, Meter

STAGES = {"task": "read", "tokenize": "tokenize", "classify": "classify", "write": "write"}  # by the first word of a key
POLL_S = 1
POLL_TIMEOUT_S = 5


@dataclass(frozen=True)
class UnitProgress:
    """How far a classifier is with a unit.

    Attributes:
        share: of its padded tokens that have been passed to the model, from 0 to 1.
        documents, tokens: of the unit, times `share`.
    """

    share: float
    documents: float
    tokens: float


@dataclass(frozen=True)
class StageActivity:
    """What the stages are working on."""

    busy: dict[str, int] = field(default_factory=dict)  # units in work by stage; for read: tasks
    retries: int = 0  # attempts so far that followed the death of a process
    units: dict[str, UnitProgress] = field(default_factory=dict)  # in the classifiers, by id
    ended: dict[str, int] = field(default_factory=dict)  # units by stage so far; for read: tasks


class AttemptCounts:
    """The counts by key; runs as an actor. It holds unfinished keys only, so its size is that of the work in progress."""

    def __init__(self, meter: Meter | None = None) -> None:
        self._begun: Counter[str] = Counter()
        self._progress: dict[str, UnitProgress] = {}
        self._ended: Counter[str] = Counter()
        self._retries = 0
        self._meter = meter

    def begin(self, key: str) -> int:
        self._progress.pop(key, None)  # an attempt starts anew
        self._begun[key] += 1
        deaths = self._begun[key] - 1
        stage = _stage(key)
        if deaths and stage is not None:
            self._retries += 1
            if self._meter is not None:
                # here, not in the worker: it may die before it has exported its counts
                self._meter.count(RETRIES, stage=stage)
        return deaths

    def progress(self, key: str, share: float, documents: float, tokens: float) -> None:
        if key in self._begun:
            self._progress[key] = UnitProgress(share, documents, tokens)

    def end(self, key: str) -> None:
        del self._begun[key]
        self._progress.pop(key, None)
        stage = _stage(key)
        if stage is not None:
            self._ended[stage] += 1

    def activity(self) -> StageActivity:
        busy = Counter(_stage(key) for key in self._begun)
        units = {key.partition(" ")[2]: done for key, done in self._progress.items()}
        busy, ended = ({stage: counts[stage] for stage in STAGES.values()} for counts in (busy, self._ended))
        return StageActivity(busy, self._retries, units, ended)


def _stage(key: str) -> str | None:
    """The stage of a key; None for the parts of a read task."""
    return STAGES.get(key.partition(" ")[0])


class Attempts:
    """A handle to the counts, for any process of the cluster; the actor lives as long as the run that created it."""

    def __init__(self, meter: Meter) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        # takes no CPU from the pools; runs on the driver's node, so that only the end of the run ends it
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        lasting = {"num_cpus": 0, "scheduling_strategy": here, "max_restarts": -1, "max_task_retries": -1}
        self._counts: Any = ray.remote(AttemptCounts).options(**lasting).remote(meter)

    def begin(self, key: str) -> int:
        """Records that work on `key` begins; returns how often it has begun before without ending."""
        return self._call("begin", key)

    def progress(self, key: str, share: float, documents: float, tokens: float) -> None:
        """Records how far the work on `key` is (UnitProgress); does not wait for the actor."""
        self._counts.progress.remote(key, share, documents, tokens)

    def end(self, key: str) -> None:
        """Records that the work has ended, with success or not: the process is alive."""
        self._call("end", key)

    def _call(self, method: str, key: str) -> Any:
        import ray

        return ray.get(getattr(self._counts, method).remote(key))

    def watched(self, on_activity: Callable[[StageActivity], None]) -> AbstractContextManager[None]:
        """While the block runs, calls `on_activity` every POLL_S seconds from another thread.

        Ray Data (2.60) has no public API for the activity of a running Dataset: its State API needs the dashboard, and the
        executor passed to DataContext.custom_execution_callback_classes does not expose its actors.
        """
        import ray

        def poll() -> None:
            on_activity(ray.get(self._counts.activity.remote(), timeout=POLL_TIMEOUT_S))

        return called_every(POLL_S, poll, "stage-activity", ray.exceptions.RayError)  # the actor may start or restart
