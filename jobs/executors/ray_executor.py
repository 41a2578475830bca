"""The chain on Ray Data: read -> tokenize -> classify -> label and write, a unit per row."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from typing import Any

from cluster.attempts import Attempts, counted, watched
from cluster.prometheus_metrics import metered, metered_actor
from cluster.ray_settings import configure_ray_data
from cluster.resources import READER_CPUS, WRITER_CPUS, Machines
from cluster.session import connected
from cluster.streaming import run_tasks, stream_rows
from jobs.executors.executor import UnitStream, Work, ignored
from pipeline_ops.stages.classifier import ClassifyActor
from pipeline_ops.stages.reader import read_task
from pipeline_ops.stages.rows import has_failed
from pipeline_ops.stages.tokenizer import TokenizeActor
from pipeline_ops.stages.writer import write_task

# of tokenizers beside GPUs, above Ray's 15 for workers; more of them may run than there are cores free, and the thread that
# launches kernels shall not wait for a core. Classifiers on CPUs would take all cores from those that feed them
TOKENIZER_NICENESS = 4
# calls of a classifier on a GPU at a time: Ray Data runs one of them, in a thread of its own, while the other writes its result
# or gets its row, which a GPU would else wait for: 20 to 40 ms per unit of 32 MiB
GPU_CALLS = 2


@dataclass(frozen=True)
class RayExecutor:
    """The Executor on Ray: Ray Data for units, Ray tasks for the rest.

    Attributes:
        read, tokenize_actor, classify_actor, write: the stages; the benchmark replaces them by ones that only sleep.
        classifiers_per_process: of the benchmark, whose actors each answer for so many, side by side in threads.
    """

    read: Callable[..., Iterator[Any]] = read_task
    tokenize_actor: type[TokenizeActor] = TokenizeActor
    classify_actor: type[ClassifyActor] = ClassifyActor
    write: Callable[..., Any] = write_task
    classifiers_per_process: int = 1

    @property
    def name(self) -> str:
        return "Ray"

    def connected(self, work: Work = Work(), notify: Callable[[str], None] = ignored) -> AbstractContextManager[Machines]:
        return connected(unit_bytes=work.unit_bytes)

    def stream_units(self, units: UnitStream) -> Generator[dict[str, Any], None, None]:
        with (
            counted(units.meter, here=units.pools.here) as (attempts, activity),
            closing(stream_rows(self._written(units, attempts))) as rows,
            watched(activity, units.on_activity),
        ):
            yield from rows

    def _written(self, units: UnitStream, attempts: Attempts) -> Any:
        """The Dataset of the write stage's rows; not executed yet."""
        import ray.data
        from ray.data import ActorPoolStrategy

        pools, meter = units.pools, units.meter
        shared = {"context": units.context, "attempts": attempts}
        calls = self.classifiers_per_process * GPU_CALLS
        niceness = TOKENIZER_NICENESS if pools.use_gpu else 0
        unit = {"batch_size": 1, "batch_format": "pyarrow", "zero_copy_batch": True}
        configure_ray_data(units.context.unit_bytes)
        return (
            ray.data.from_items([{"task": task} for task in units.tasks], override_num_blocks=len(units.tasks))
            .map_batches(
                metered("read", self.read, meter, has_failed),
                fn_kwargs=shared,
                num_cpus=READER_CPUS,
                **unit,
            )
            .map_batches(
                metered_actor("tokenize", self.tokenize_actor, meter, has_failed),
                fn_constructor_kwargs={**shared, "tokenizers": units.tokenizers, "niceness": niceness},
                compute=ActorPoolStrategy(min_size=pools.min_tokenizers, max_size=pools.tokenizers),
                num_cpus=1,
                **unit,
            )
            .map_batches(
                metered_actor("classify", self.classify_actor, meter, has_failed),
                fn_constructor_kwargs=shared,
                compute=ActorPoolStrategy(
                    min_size=pools.min_classifiers,
                    max_size=pools.classifiers,
                    max_tasks_in_flight_per_actor=self.classifiers_per_process * pools.units_in_flight,
                    enable_true_multi_threading=self.classifiers_per_process > 1,
                ),
                **({"num_gpus": pools.gpus_per_classifier, "max_concurrency": calls} if pools.use_gpu else {"num_cpus": 1}),
                **({"accelerator_type": pools.accelerator_type} if pools.accelerator_type else {}),
                **unit,
            )
            .map_batches(
                metered("write", self.write, meter, has_failed),
                fn_kwargs=shared,
                num_cpus=WRITER_CPUS,
                **unit,
            )
        )

    def run_tasks(
        self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], **options: Any
    ) -> Iterator[tuple[int, Any]]:
        return run_tasks(function, calls, **options)
