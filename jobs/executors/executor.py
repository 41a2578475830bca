"""What an executor does for a run."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from cluster.attempts import StageActivity
from cluster.prometheus_metrics import Meter
from cluster.resources import Machines, Pools
from pipeline_ops.stages.context import StageContext
from pipeline_ops.tokenizing.sequences import Definition


class Executor(Protocol):
    """Where the work of a run is done."""

    def connected(self, unit_bytes: int = 0) -> AbstractContextManager[Machines]:
        """The machines to work on, connected for the duration of the block; unit_bytes: see session.connected."""
        ...

    def stream_units(
        self,
        tasks: Sequence[str],
        context: StageContext,
        tokenizers: Sequence[Definition],
        pools: Pools,
        meter: Meter,
        on_activity: Callable[[StageActivity], None] | None,
    ) -> Generator[dict[str, Any], None, None]:
        """The write stage's row of each unit, as soon as it is written. Closing the generator stops the work.

        Args:
            tasks: the spans that each read task reads (reader.spans_to_json).
            tokenizers: see TokenizeActor.
            on_activity: called every second, from another thread, with what the stages are working on.
        """
        ...

    def run_tasks(
        self,
        function: Callable[..., Any],
        calls: Sequence[tuple[Any, ...]],
        *,
        num_gpus: float = 0,
        accelerator_type: str | None = None,
        on_wait: Callable[[], None] | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """(number of the call, its result) of independent calls, each as soon as it has finished; see streaming.run_tasks."""
        ...


def run_here(function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
    """As Executor.run_tasks, one call after the other in this process."""
    return ((number, function(*arguments)) for number, arguments in enumerate(calls))
