"""An executor without Ray: the same stages on the same rows, one unit after the other, in the tests' process.

For tests of what is read, labeled, committed and swept, which take twenty times as long in Ray's processes. How Ray runs the
stages is the subject of the tests that ask for `ray_address`.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from cluster.attempts import AttemptCounts
from cluster.resources import Machines
from jobs.executors.executor import UnitStream, Work, ignored
from jobs.executors.unit_threads import results_of, written_units
from jobs.label_corpus import run
from pipeline_ops.models.flops import DocumentFlops
from pipeline_ops.stages.classifier import ClassifyActor


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


@dataclass(frozen=True)
class SerialExecutor:
    """A jobs.executors.executor.Executor.

    Attributes:
        threads: that label a unit each at the same time.
    """

    threads: int = 1

    @property
    def name(self) -> str:
        return "the tests' process"

    def connected(self, work: Work = Work(), notify: Callable[[str], None] = ignored) -> AbstractContextManager[Machines]:
        return nullcontext(Machines(cpus=4, cores=2, gpus=0, here=True))

    def stream_units(self, units: UnitStream) -> Generator[dict[str, Any], None, None]:
        arguments = units.tasks, units.context, units.tokenizers, AttemptCounts()
        for _, row in written_units(*arguments, SerialClassifyActor, self.threads):
            yield row

    def run_tasks(
        self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], **needs: Any
    ) -> Iterator[tuple[int, Any]]:
        return results_of(function, calls)


run_serially = partial(run, executor=SerialExecutor(), report=False)  # drawing the report takes longer than all else
run_in_two_threads = partial(run, executor=SerialExecutor(threads=2), report=False)
