"""The executor of a run that is given none: Ray, or for work that is small for this machine one process."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from cluster import session
from cluster.resources import (
    BYTES_PER_TOKEN,
    CORE_FLOPS,
    GPU_FLOPS,
    TOKEN_FLOPS,
    ComputeConfig,
    Machines,
)
from cluster.session import this_machine
from jobs.executors.executor import Executor, UnitStream, Work, ignored
from jobs.executors.one_process import OneProcessExecutor, for_one_process
from jobs.executors.ray_executor import RayExecutor
from pipeline_ops.planning.work_plan import LARGEST_UNIT

# of work for which there is one process. With a GPU, or where it leaves cores unused, Ray is as fast from about there on, as it
# takes 10 s to start. Where one process uses all cores Ray is never faster; but on Ray a process that dies costs its unit alone
SMALL_SECONDS = 20.0
SMALL_SECONDS_ON_ALL_CORES = 600.0


class AutoExecutor:
    """Chooses when it is connected, as then the work is known. What takes time to start does so before, see starting().

    Args:
        compute: a job that names its pools is for Ray.
    """

    def __init__(self, compute: ComputeConfig):
        self._compute = compute
        self._process: OneProcessExecutor | None = None
        self._start_ray: Callable[[int], None] = ignored
        self._chosen: Executor = RayExecutor()

    @contextmanager
    def starting(self) -> Iterator[Self]:
        """In the block, Ray or the one process starts while the job is checked; what is not used ends with the block."""
        with session.starting() as self._start_ray:
            if _may_do_without_ray(self._compute):
                self._process = OneProcessExecutor(self._compute)
            else:
                self._start_ray(self._largest_unit)
            try:
                yield self
            finally:
                self._end_process()

    def expect(self, num_bytes: int) -> None:
        """Starts Ray as soon as the listing is known to be large, whatever the model.

        Args:
            num_bytes: of the input that has been listed and may have to be labeled, about.
        """
        listed = Work(text_bytes=num_bytes, token_flops=0)
        if self._process is not None and not _is_small(listed, self._compute, this_machine()):
            self._end_process()
            self._start_ray(self._largest_unit)

    @property
    def name(self) -> str:
        return self._chosen.name

    @contextmanager
    def connected(self, work: Work = Work(), notify: Callable[[str], None] = ignored) -> Iterator[Machines]:
        if self._process is not None:
            if _is_small(work, self._compute, this_machine()):
                self._chosen = self._process
            else:
                self._end_process()
        with self._chosen.connected(work, notify) as machines:
            yield machines

    @property
    def _largest_unit(self) -> int:
        return LARGEST_UNIT if self._compute.unit_bytes == "auto" else self._compute.unit_bytes

    def _end_process(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None

    def stream_units(self, units: UnitStream) -> Generator[dict[str, Any], None, None]:
        return self._chosen.stream_units(units)

    def run_tasks(
        self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], **options: Any
    ) -> Iterator[tuple[int, Any]]:
        return self._chosen.run_tasks(function, calls, **options)


def in_one_process(work: Work, compute: ComputeConfig, machine: Machines) -> bool:
    """Whether the work is done in one process of `machine`, this one, and not on Ray."""
    return _may_do_without_ray(compute) and _is_small(work, compute, machine)


def _may_do_without_ray(compute: ComputeConfig) -> bool:
    """Whether a small input may be labeled without Ray: the job names no pools, and there is no Ray that it belongs to."""
    named = {"classifiers", "tokenizers", "accelerator_type"} & compute.model_fields_set
    gpus = compute.gpus_per_classifier
    return not named and (gpus == "auto" or gpus <= 1) and not session.has_ray()


def _is_small(work: Work, compute: ComputeConfig, machine: Machines) -> bool:
    """Whether the work takes one process of `machine` not too long."""
    on_gpu = machine.gpus and compute.gpus_per_classifier != 0
    threads = 1 if on_gpu else for_one_process(machine).cores
    flops = TOKEN_FLOPS if work.token_flops is None else work.token_flops
    per_token = 1 / work.tokens_per_core + flops / (GPU_FLOPS if on_gpu else CORE_FLOPS)
    seconds = work.text_bytes / BYTES_PER_TOKEN * per_token / threads
    return seconds <= (SMALL_SECONDS if on_gpu or threads < machine.cores else SMALL_SECONDS_ON_ALL_CORES)
