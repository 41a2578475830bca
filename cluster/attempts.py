"""What worker processes are about to do, remembered in an actor that outlives them.

Ray runs again what a dead process was at work on, for ever: a unit that kills its worker would stop a job without a word. Each
stage says when it begins and ends a unit; what has begun several times and never ended is given up by the stage itself. Only
the unit that a process was at work on counts, not those that waited in its queue.
"""

from collections import Counter
from typing import Any


class AttemptCounts:
    """The counts; runs as an actor. Keys that have ended are forgotten, so it stays as small as what is going on."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()

    def begin(self, key: str) -> int:
        self._begun[key] += 1
        return self._begun[key] - 1

    def end(self, key: str) -> None:
        del self._begun[key]


class Attempts:
    """The counts as the stages use them, from any process of the cluster; lives as long as the run that made it."""

    def __init__(self) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        # it takes no CPU from the pools, and stays with the driver, whose end is the end of the run
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        lasting = {"num_cpus": 0, "scheduling_strategy": here, "max_restarts": -1, "max_task_retries": -1}
        self._counts: Any = ray.remote(AttemptCounts).options(**lasting).remote()

    def begin(self, key: str) -> int:
        """Says that work on `key` begins; returns how often it has begun without ending."""
        return self._call("begin", key)

    def end(self, key: str) -> None:
        """Says that the work has ended, well or not: this process lives."""
        self._call("end", key)

    def _call(self, method: str, key: str) -> Any:
        import ray

        return ray.get(getattr(self._counts, method).remote(key))
