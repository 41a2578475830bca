"""One process in place of Ray, for what it takes no longer for: small inputs, and on few cores larger ones.

The process imports torch while the job is still being checked. If it dies, which a document or a full memory can bring about,
Ray does what is left: there a unit that ends its process costs that unit alone.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from cluster.resources import ComputeConfig, Machines, resolve_pools
from cluster.session import WORKER_ENVIRONMENT, this_machine
from jobs.executors.executor import UnitStream, Work, ignored
from jobs.executors.ray_executor import RayExecutor
from jobs.executors.unit_threads import results_of, watched_units
from jobs.executors.worker_process import WorkerDied, WorkerProcess, post

# what every classifier needs; most of the seconds until the first label
MODULES = ("torch", "transformers.modeling_utils", "jobs.executors.unit_threads")
ENVIRONMENT: dict[str, str | None] = {**WORKER_ENVIRONMENT, "TOKENIZERS_PARALLELISM": "true", "OMP_WAIT_POLICY": "PASSIVE"}
MOST_THREADS = 4  # that classify: they run Python between the layers, one at a time


def for_one_process(machine: Machines) -> Machines:
    """What the pools of one process are sized by: a classifier for each core, or for a GPU, whatever the other stages take."""
    cores = min(machine.cores, MOST_THREADS)
    return replace(machine, cpus=4 * cores, cores=cores, gpus=min(machine.gpus, 1), one_process=True)


def _threads(units: UnitStream, text_bytes: int) -> int:
    """One for each classifier, but not more than there are units, about."""
    sizes = units.context.unit_sizes
    num_units = len(sizes.shares(text_bytes, -(-text_bytes // sizes.largest)))
    return max(min(units.pools.classifiers, num_units), 1)


class OneProcessExecutor:
    """An Executor; see the module. Its process starts when it is made."""

    def __init__(self, compute: ComputeConfig) -> None:
        self.name = "one process"
        self._compute = compute
        self._process = WorkerProcess(MODULES, ENVIRONMENT)
        self._ray = RayExecutor()
        self._work, self._notify = Work(), ignored

    def close(self) -> None:
        """Ends the process."""
        self._process.close()

    @contextmanager
    def connected(self, work: Work = Work(), notify: Callable[[str], None] = ignored) -> Iterator[Machines]:
        self._work, self._notify = work, notify
        try:
            yield for_one_process(this_machine())
        finally:
            self.close()

    def stream_units(self, units: UnitStream) -> Generator[dict[str, Any], None, None]:
        reached = 0
        threads = _threads(units, self._work.text_bytes)
        arguments = (units.tasks, units.context, units.tokenizers, threads, post)
        try:
            for number, row in self._process.run(watched_units, *arguments, on_news=units.on_activity or ignored):
                reached = number
                yield row
            return
        except WorkerDied as death:
            self._notify(f"{death}; Ray labels what is left")
        self.name = "one process, then Ray"
        with self._ray.connected(self._work) as machines:
            tasks = units.tasks[reached:]  # units of the first that have a commit are labeled once more: their commit stands
            pools = resolve_pools(self._compute, machines, self._work.token_flops, self._work.tokens_per_core, len(tasks))
            yield from self._ray.stream_units(replace(units, tasks=tasks, pools=pools))

    def run_tasks(
        self,
        function: Callable[..., Any],
        calls: Sequence[tuple[Any, ...]],
        *,
        on_wait: Callable[[], None] | None = None,
        **needs: Any,
    ) -> Iterator[tuple[int, Any]]:
        if not calls:  # the process may still be importing
            return
        done = 0
        try:
            for number, result in self._process.run(results_of, function, calls, on_wait=on_wait):
                done = number + 1
                yield number, result
            return
        except WorkerDied as death:
            self._notify(f"{death}; Ray does what is left")
        with self._ray.connected(self._work):
            for number, result in self._ray.run_tasks(function, calls[done:], on_wait=on_wait, **needs):
                yield done + number, result
