"""Streaming rows from a running Dataset, which the consumer may close early; results of independent tasks.

`Dataset.iter_batches` fetches blocks in a thread (ray/data/_internal/block_batching/util.py, iter_threaded) that cannot be
joined: if the consumer stops early and Ray is shut down, the thread's next call to Ray ends the whole process.
"""

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

from cluster.ray_settings import root_cause

EXECUTOR_STOP_S = 30
WAIT_S = 10
RAY_DATA_THREADS = ("StreamingExecutor", "ray-data-metadata-prefetch")  # by the beginning of their names


def stream_rows(dataset: Any) -> Generator[dict[str, Any], None, None]:
    """Yields each row of a dataset of Arrow blocks, as soon as its block is computed. Closing the generator stops the dataset.

    Raises:
        Exception: the error that ended the dataset's execution.
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
    """Runs a task per call; yields (number of the call, its result), each as soon as it has finished.

    Args:
        num_gpus: that a task requests, besides one CPU.
        on_wait: called every WAIT_S seconds in which none has finished.

    Raises:
        Exception: that of the first call that raised one.
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
    """Joins the threads of Ray Data's executors: one that calls Ray after its shutdown would end the process.

    Ray Data joins them itself, but only for two and five seconds (StreamingExecutor.shutdown).
    """
    for thread in threading.enumerate():
        if thread.name.startswith(RAY_DATA_THREADS):
            thread.join(EXECUTOR_STOP_S)
