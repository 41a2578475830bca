"""An executor without Ray: the same stages on the same rows, one unit after the other, in the tests' process.

For tests of what is read, labeled, committed and swept, which take twenty times as long in Ray's processes. How Ray runs the
stages is the subject of the tests that ask for `ray_address`.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, ClassVar

import pyarrow as pa

from cluster.attempts import StageActivity
from cluster.prometheus_metrics import Meter
from cluster.resources import Machines, Pools
from jobs.label_corpus import run
from pipeline_ops.models.flops import DocumentFlops
from pipeline_ops.stages.classifier import ClassifyActor
from pipeline_ops.stages.context import StageContext
from pipeline_ops.stages.reader import read_task
from pipeline_ops.stages.tokenizer import TokenizeActor
from pipeline_ops.stages.writer import write_task
from pipeline_ops.tokenizing.sequences import Definition


class NoDeaths:
    """Attempts of a process that does not die, or takes the test with it."""

    def begin(self, key: str) -> int:
        return 0

    def progress(self, key: str, share: float, documents: float, tokens: float) -> None:
        pass

    def end(self, key: str) -> None:
        pass


class SerialClassifyActor(ClassifyActor):
    """Counts the FLOPs of an architecture once per process: tracing it takes longer than labeling a small corpus."""

    counted: ClassVar[dict[tuple[str, int, tuple[str, ...]], DocumentFlops | None]] = {}

    def count_flops(self) -> list[DocumentFlops | None]:
        keys = [
            (
                passes.model.config.to_json_string(),
                model.facts.max_length,
                () if passes.trunk is None else tuple(passes.trunk.names),
            )
            for passes, model in zip(self.passes, self.context.models, strict=True)
        ]
        if not self.counted.keys() >= {*keys}:
            self.counted.update(zip(keys, super().count_flops(), strict=True))
        return [self.counted[key] for key in keys]


class SerialExecutor:
    """A jobs.executors.executor.Executor."""

    def connected(self, unit_bytes: int = 0) -> AbstractContextManager[Machines]:
        return nullcontext(Machines(cpus=4, cores=2, gpus=0, here=True))

    def stream_units(
        self,
        tasks: Sequence[str],
        context: StageContext,
        tokenizers: Sequence[Definition],
        pools: Pools,
        meter: Meter,
        on_activity: Callable[[StageActivity], None] | None,
    ) -> Generator[dict[str, Any], None, None]:
        attempts = NoDeaths()
        tokenize, classify = TokenizeActor(context, attempts, tokenizers), SerialClassifyActor(context, attempts)
        for task in tasks:
            for row in read_task(pa.table({"task": [task]}), context, attempts):
                yield write_task(classify(tokenize(row)), context, attempts).to_pylist()[0]

    def run_tasks(
        self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], **needs: Any
    ) -> Iterator[tuple[int, Any]]:
        return ((number, function(*arguments)) for number, arguments in enumerate(calls))


run_serially = partial(run, executor=SerialExecutor(), report=False)  # drawing the report takes longer than all else
