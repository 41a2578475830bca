"""Units through all stages in one process: each as a whole in a thread, as many at a time as there are threads."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
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

WrittenUnit = tuple[int, dict[str, Any]]  # the number of a read task, and the write stage's row


def written_units(
    tasks: Sequence[str],
    context: StageContext,
    tokenizers: Sequence[Definition],
    attempts: ProgressAttempts,
    classify_actor: type[ClassifyActor] = ClassifyActor,
    threads: int = 1,
) -> Iterator[WrittenUnit]:
    """Yields each unit as soon as it is written, with the first read task that has units which have not been yielded before.

    Args:
        tasks, tokenizers: see UnitStream.
        threads: that work on a unit each, with models of their own. A pass with as many threads, which wait for each other in
            each layer, took 1.17 times as long on two cores.
    """
    actors = _load(context, tokenizers, attempts, classify_actor, threads)
    stages = _Stages(tasks, context, attempts, actors)
    with ThreadPoolExecutor(len(actors), thread_name_prefix="unit") as pool:
        waiting = {pool.submit(stages.next_unit) for _ in actors}
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for unit in done:
                written = unit.result()
                if written is not None:
                    number, row = written
                    yield stages.first_in_work(), row
                    stages.end(number)
                    waiting.add(pool.submit(stages.next_unit))


Actors = tuple[TokenizeActor, ClassifyActor]


def _load(
    context: StageContext,
    tokenizers: Sequence[Definition],
    attempts: ProgressAttempts,
    classify_actor: type[ClassifyActor],
    threads: int,
) -> list[Actors]:
    """The actors of each thread, all before the first pass: loading changes defaults of the whole process for its time."""
    import torch

    first = classify_actor(context, attempts)
    if not first.may_run_beside_others():
        if not context.use_gpu:
            torch.set_num_threads(threads)
        threads = 1
    classifiers = [first, *[classify_actor(context, attempts, first) for _ in range(threads - 1)]]
    return [(TokenizeActor(context, attempts, tokenizers), classify) for classify in classifiers]


class _Stages:
    """The stages, for several threads. Units are read one after the other."""

    def __init__(self, tasks: Sequence[str], context: StageContext, attempts: ProgressAttempts, actors: list[Actors]):
        self._context, self._attempts = context, attempts
        self._read = (
            (number, row)
            for number, task in enumerate(tasks)
            for row in read_task(pa.table({"task": [task]}), context, attempts)
        )
        self._lock = threading.Lock()
        self._in_work: list[int] = []  # the read tasks that the units are of
        self._idle = actors

    def next_unit(self) -> WrittenUnit | None:
        """Reads, labels and writes the next unit; None if there is none."""
        with self._lock:
            number, row = next(self._read, (0, None))
            if row is None:
                return None
            self._in_work.append(number)
            tokenize, classify = self._idle.pop()
        written = write_task(classify(tokenize(row)), self._context, self._attempts).to_pylist()[0]
        with self._lock:
            self._idle.append((tokenize, classify))
        return number, written

    def first_in_work(self) -> int:
        """The first read task of units that are in work, or written and not ended."""
        with self._lock:
            return min(self._in_work)

    def end(self, number: int) -> None:
        """A unit of this read task is where no end of the process can undo it."""
        with self._lock:
            self._in_work.remove(number)


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
    """A read task has begun and not ended while its units are in later stages, but mostly the process does not read then."""
    reads = not any(count for stage, count in activity.busy.items() if stage != "read")
    return activity if reads else replace(activity, busy={**activity.busy, "read": 0})


def results_of(function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
    """As Executor.run_tasks, one call after the other in this process."""
    return ((number, function(*arguments)) for number, arguments in enumerate(calls))
