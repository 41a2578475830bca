"""Units through all stages, one after the other, in one process."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from cluster.attempts import POLL_S, AttemptCounts, StageActivity
from cluster.periodic import called_every
from pipeline_ops.stages.classifier import ClassifyActor, ProgressAttempts
from pipeline_ops.stages.context import StageContext
from pipeline_ops.stages.reader import read_task
from pipeline_ops.stages.tokenizer import TokenizeActor
from pipeline_ops.stages.writer import write_task
from pipeline_ops.tokenizing.sequences import Definition

WrittenUnit = tuple[int, dict[str, Any]]  # the number of the read task that it is of, and the write stage's row


def written_units(
    tasks: Sequence[str],
    context: StageContext,
    tokenizers: Sequence[Definition],
    attempts: ProgressAttempts,
    classify_actor: type[ClassifyActor] = ClassifyActor,
    threads: int = 1,
) -> Iterator[WrittenUnit]:
    """Yields each unit as soon as it is written.

    Args:
        tasks, tokenizers: see UnitStream.
        threads: that a model computes with at the most, where there is no GPU; an OMP_NUM_THREADS of the process limits them.
    """
    import torch

    threads = min(threads, torch.get_num_threads())
    tokenize, classify = TokenizeActor(context, attempts, tokenizers), classify_actor(context, attempts)
    if not context.use_gpu:
        torch.set_num_threads(threads)  # of a classifier among others it is one
    for number, task in enumerate(tasks):
        for row in read_task(pa.table({"task": [task]}), context, attempts):
            yield number, write_task(classify(tokenize(row)), context, attempts).to_pylist()[0]


def watched_units(
    tasks: Sequence[str],
    context: StageContext,
    tokenizers: Sequence[Definition],
    threads: int,
    on_activity: Callable[[StageActivity], None],
) -> Iterator[WrittenUnit]:
    """As written_units; calls `on_activity` every second, from another thread."""
    attempts = AttemptCounts()
    with called_every(POLL_S, lambda: on_activity(_of_one_process(attempts.activity())), "stage-activity"):
        yield from written_units(tasks, context, tokenizers, attempts, threads=threads)


def _of_one_process(activity: StageActivity) -> StageActivity:
    """A read task has begun and not ended while its units are in later stages, but the process does not read then."""
    reads = not any(count for stage, count in activity.busy.items() if stage != "read")
    return activity if reads else replace(activity, busy={**activity.busy, "read": 0})


def results_of(function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
    """As Executor.run_tasks, one call after the other in this process."""
    return ((number, function(*arguments)) for number, arguments in enumerate(calls))
