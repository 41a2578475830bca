"""Hundreds of sleeping classifiers on a machine that cannot hold a process for each: one process answers for several.

Its calls sleep side by side, in threads, as many at a time as there are classifiers in it, and the others wait with their rows
as they would at a classifier of their own. So the driver has as many units in work and in flight, as many blocks, tasks and
commits as with a process each. What it does per actor, it does for fewer: keeping the pool, choosing an actor by load, Ray's
own records; the notes of the result say so.
"""

import threading
from collections.abc import Sequence
from dataclasses import replace
from math import ceil

from jobs.executors.ray_executor import RayExecutor
from pipeline_ops.classifying.classify import UnitLogits
from pipeline_ops.planning.forecast import (
    DRIVER_CORES,
    DRIVER_CORES_PER_CLASSIFIER,
    DRIVER_SECONDS_PER_UNIT,
    DRIVER_SHARE,
)
from pipeline_ops.stages.classifier import ClassifyActor
from pipeline_ops.tokenizing.batching import TokenBatches

GPUS = 1024


def many_in_one(executor: RayExecutor, count: int) -> RayExecutor:
    """The executor with `count` sleeping classifiers in each process of that stage."""
    actor: type[ClassifyActor] = executor.classify_actor

    class ManyClassifyActor(actor):
        def __init__(self, **arguments: object):
            self.idle = threading.Semaphore(count)
            super().__init__(**arguments)  # pyright: ignore[reportArgumentType]

        def forward(self, batches: Sequence[TokenBatches]) -> tuple[list[UnitLogits], list[float]]:
            with self.idle:
                return super().forward(batches)

    ManyClassifyActor.__name__ = ManyClassifyActor.__qualname__ = actor.__name__
    return replace(executor, classify_actor=ManyClassifyActor, classifiers_per_process=count)


def jobs_for(gpus: int, units_per_gpu: float) -> int:
    """Into how many jobs to split an input, so that no driver is busier than DRIVER_SHARE of a core (forecast.py).

    Args:
        units_per_gpu: that one takes in a second.
    """
    per_gpu = DRIVER_CORES_PER_CLASSIFIER + units_per_gpu * DRIVER_SECONDS_PER_UNIT
    return ceil(gpus * per_gpu / (DRIVER_SHARE - DRIVER_CORES))


def note_on_processes(count: int) -> str:
    return (
        f"one process answers for {count} classifiers: the driver has the units, tasks and commits of all, but one actor for"
        f" {count} of them; what each actor costs it is not measured"
    )


def note_on_many_gpus(gpu_bytes_per_second: float) -> str:
    """Into how many jobs 1,024 GPUs want an input split, by the forecast's costs of a driver.

    Args:
        gpu_bytes_per_second: of text, that one takes.
    """
    needs = []
    for size in (32, 8):
        rate = gpu_bytes_per_second / (size * 2**20)
        jobs = jobs_for(GPUS, rate)
        needs.append(f"with units of {size} MiB {GPUS * rate:,.0f} units/s: `split` into {jobs} jobs of {GPUS // jobs} GPUs")
    return (
        f"{GPUS:,} such GPUs take, by a driver's costs in the forecast, up to {DRIVER_SHARE:.0%} of a core: {'; '.join(needs)}"
    )
