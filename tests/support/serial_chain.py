"""An executor without Ray: the same stages on the same rows, one unit after the other, in the tests' process.

For tests of what is read, labeled, committed and swept, which take twenty times as long in Ray's processes. How Ray runs the
stages is the subject of the tests that ask for `ray_address`.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import pyarrow as pa

from cluster.attempts import StageActivity
from cluster.metrics import Meter
from cluster.resources import Machines, Pools
from jobs.label_corpus import run
from jobs.run.chain import Stages
from pipeline_ops.reading.reader import Attempts
from pipeline_ops.stages.classifier import ClassifyActor
from pipeline_ops.stages.reader import read_task
from pipeline_ops.stages.tokenizer import TokenizeActor
from pipeline_ops.stages.writer import write_row


class NoDeaths:
    """Attempts of a process that does not die, or takes the test with it."""

    def begin(self, key: str) -> int:
        return 0

    def end(self, key: str) -> None:
        pass


class SerialExecutor:
    """A jobs.run.chain.Executor."""

    def connected(self) -> AbstractContextManager[Machines]:
        return nullcontext(Machines(cpus=4, cores=2, gpus=0, here=True))

    def stream_units(
        self,
        stages_with: Callable[[Attempts], Stages],
        pools: Pools,
        meter: Meter,
        on_activity: Callable[[StageActivity], None] | None,
    ) -> Generator[dict[str, Any], None, None]:
        stages = stages_with(NoDeaths())
        tokenize, classify = TokenizeActor(**stages.tokenize), ClassifyActor(**stages.classify)
        for task in stages.tasks:
            for row in read_task(pa.Table.from_pylist([task]), **stages.read):
                yield write_row(classify(tokenize(row)), **stages.write).to_pylist()[0]

    def run_tasks(
        self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], **needs: Any
    ) -> Iterator[tuple[int, Any]]:
        return ((number, function(*arguments)) for number, arguments in enumerate(calls))


run_serially = partial(run, executor=SerialExecutor(), report=False)  # drawing the report takes longer than all else
