"""Rows out of a Ray Data chain while it runs, in a way that can be given up in the middle; results of single tasks.

`Dataset.iter_batches` takes blocks in a thread of its own (ray/data/_internal/block_batching/util.py, iter_threaded), which
nobody can wait for: when the consumer stops early and Ray is shut down meanwhile, its next call ends the whole process.
"""

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from cluster.ray_settings import root_cause

EXECUTOR_STOP_S = 30
WAIT_S = 10
RAY_DATA_THREADS = ("StreamingExecutor", "ray-data-metadata-prefetch")  # by the beginning of their names


def stream_rows(dataset: Any) -> Generator[dict[str, Any], None, None]:
    """Each row of a dataset of Arrow blocks, as soon as its block is done. Closing the generator stops the chain.

    Raises:
        Exception: what ends the chain.
    """
    import ray

    for bundle in dataset.iter_internal_ref_bundles():
        for block in ray.get(list(bundle.block_refs)):
            yield from block.to_pylist()


def run_tasks(
    function: Callable[..., Any],
    calls: Sequence[tuple[Any, ...]],
    *,
    num_gpus: float = 0,
    accelerator_type: str | None = None,
    on_wait: Callable[[], None] | None = None,
) -> Iterator[tuple[int, Any]]:
    """(number of the call, what it returned) of a task per call, of a CPU and so many GPUs, each as soon as it is done.

    Args:
        on_wait: called every WAIT_S seconds in which none is done.

    Raises:
        Exception: what a call raised.
    """
    import ray

    needs: dict[str, Any] = {"accelerator_type": accelerator_type} if accelerator_type else {}
    task = ray.remote(num_cpus=1, num_gpus=num_gpus, **needs)(function)
    waiting = {task.remote(*arguments): number for number, arguments in enumerate(calls)}
    while waiting:
        done, _ = ray.wait(list(waiting), num_returns=1, timeout=WAIT_S)
        if not done:
            if on_wait is not None:
                on_wait()
            continue
        ready = done[0]
        try:
            yield waiting.pop(ready), ray.get(ready)
        except ray.exceptions.RayTaskError as error:
            raise root_cause(error) from None


def wait_for_executors() -> None:
    """Waits until Ray Data has stopped what was left unfinished: Ray ends the process when that calls it after its shutdown.

    Ray Data waits itself, but only two seconds for one thread and five for the other (StreamingExecutor.shutdown).
    """
    for thread in threading.enumerate():
        if thread.name.startswith(RAY_DATA_THREADS):
            thread.join(EXECUTOR_STOP_S)
