"""What an executor does for a run."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from cluster.attempts import StageActivity
from cluster.prometheus_metrics import Meter
from cluster.resources import TOKENS_PER_CORE, Machines, Pools
from pipeline_ops.stages.context import StageContext
from pipeline_ops.tokenizing.sequences import Definition


@dataclass(frozen=True)
class Work:
    """Estimates of what is left to label.

    Attributes:
        unit_bytes: of a unit.
        text_bytes: of all that is left to label.
        token_flops: of the models, per token; None: not known.
        tokens_per_core: that a core tokenizes in a second.
    """

    unit_bytes: int = 0
    text_bytes: int = 0
    token_flops: float | None = None
    tokens_per_core: float = TOKENS_PER_CORE


@dataclass(frozen=True)
class UnitStream:
    """Units to be read, labeled and written, and what the stages need for it.

    Attributes:
        tasks: the spans that each read task reads (spans.spans_to_json).
        tokenizers: see TokenizeActor.
        on_activity: called every second, from another thread, with what the stages are working on; None: nobody looks.
    """

    tasks: Sequence[str]
    context: StageContext
    tokenizers: Sequence[Definition]
    pools: Pools
    meter: Meter
    on_activity: Callable[[StageActivity], None] | None = None


def ignored(event: Any) -> None:
    """For what nobody looks at."""


class Executor(Protocol):
    """Where the work of a run is done."""

    @property
    def name(self) -> str:
        """What it is, for people."""
        ...

    def connected(self, work: Work = Work(), notify: Callable[[str], None] = ignored) -> AbstractContextManager[Machines]:
        """The machines to work on, connected for the duration of the block.

        Args:
            work: that is to be done within the block.
            notify: called with a line when something happens that people should know.
        """
        ...

    def stream_units(self, units: UnitStream) -> Generator[dict[str, Any], None, None]:
        """The write stage's row of each unit, as soon as it is written. Closing the generator stops the work."""
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
