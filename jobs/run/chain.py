"""The chain: read -> tokenize -> classify -> label and write, a unit per row, on an executor: Ray, or what the tests bring."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

from cluster.attempts import Attempts, StageActivity
from cluster.prometheus_metrics import Meter, metered, metered_actor
from cluster.ray_settings import configure_ray_data
from cluster.resources import READER_CPUS, WRITER_CPUS, Machines, Pools, units_in_flight
from cluster.session import connected
from cluster.streaming import run_tasks, stream_rows
from jobs.run.fingerprint import fingerprint, result_settings
from jobs.run.prepare import Prepared
from jobs.run.prometheus_counts import count_row
from pipeline_ops.models.config import distinct_tokenizations, with_dtypes
from pipeline_ops.reading.reader import spans_to_json
from pipeline_ops.schema.failures import Failure
from pipeline_ops.stages.classifier import ClassifyActor
from pipeline_ops.stages.context import StageContext
from pipeline_ops.stages.reader import read_task
from pipeline_ops.stages.rows import decode_outcome, has_failed
from pipeline_ops.stages.tokenizer import TokenizeActor
from pipeline_ops.stages.writer import write_task
from pipeline_ops.tokenizing.sequences import Definition
from pipeline_ops.writing.commit_record import Commit

# of tokenizers beside GPUs, above Ray's 15 for workers; more of them may run than there are cores free, and the thread that
# launches kernels shall not wait for a core. Classifiers on CPUs would take all cores from those that feed them
TOKENIZER_NICENESS = 4
# calls of a classifier on a GPU at a time: Ray Data runs one of them, in a thread of its own, while the other writes its result
# or gets its row, which a GPU would else wait for: 20 to 40 ms per unit of 32 MiB
GPU_CALLS = 2


def stage_context(prepared: Prepared, pools: Pools, probed: dict[str, Any]) -> StageContext:
    """The context of a run's stages.

    Args:
        probed: the result of probe_models.
    """
    job = prepared.job
    models = with_dtypes(prepared.models, probed["dtypes"])
    return StageContext(
        input=job.input,
        storage=job.storage,
        output=job.output,
        column_types=prepared.column_types,
        unit_bytes=prepared.plan.unit_bytes,
        fingerprint=fingerprint(result_settings(job, models)),
        models=tuple(replace(model, tokenizer="") for model in models),
        batch_tokens=pools.batch_tokens or probed["batch_tokens"],
        use_gpu=pools.use_gpu,
    )


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


@dataclass(frozen=True)
class RayExecutor:
    """The Executor of every run: Ray Data for units, Ray tasks for the rest.

    Attributes:
        read, tokenize_actor, classify_actor, write: the stages; the benchmark replaces them by ones that only sleep.
    """

    read: Callable[..., Iterator[Any]] = read_task
    tokenize_actor: type[TokenizeActor] = TokenizeActor
    classify_actor: type[ClassifyActor] = ClassifyActor
    write: Callable[..., Any] = write_task

    def connected(self, unit_bytes: int = 0) -> AbstractContextManager[Machines]:
        return connected(unit_bytes=unit_bytes)

    def stream_units(
        self,
        tasks: Sequence[str],
        context: StageContext,
        tokenizers: Sequence[Definition],
        pools: Pools,
        meter: Meter,
        on_activity: Callable[[StageActivity], None] | None,
    ) -> Generator[dict[str, Any], None, None]:
        import ray.data
        from ray.data import ActorPoolStrategy

        attempts = Attempts(meter)
        shared = {"context": context, "attempts": attempts}
        niceness = TOKENIZER_NICENESS if pools.use_gpu else 0
        unit = {"batch_size": 1, "batch_format": "pyarrow", "zero_copy_batch": True}
        configure_ray_data(context.unit_bytes)
        written = (
            ray.data.from_items([{"task": task} for task in tasks], override_num_blocks=len(tasks))
            .map_batches(
                metered("read", self.read, meter, has_failed),
                fn_kwargs=shared,
                num_cpus=READER_CPUS,
                **unit,
            )
            .map_batches(
                metered_actor("tokenize", self.tokenize_actor, meter, has_failed),
                fn_constructor_kwargs={**shared, "tokenizers": tokenizers, "niceness": niceness},
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
                    max_tasks_in_flight_per_actor=units_in_flight(pools.use_gpu),
                ),
                **({"num_gpus": pools.gpus_per_classifier, "max_concurrency": GPU_CALLS} if pools.use_gpu else {"num_cpus": 1}),
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
        with closing(stream_rows(written)) as rows, nullcontext() if on_activity is None else attempts.watched(on_activity):
            yield from rows

    def run_tasks(
        self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], **options: Any
    ) -> Iterator[tuple[int, Any]]:
        return run_tasks(function, calls, **options)


def run_here(function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
    """As Executor.run_tasks, one call after the other in this process."""
    return ((number, function(*arguments)) for number, arguments in enumerate(calls))


def label_units(
    prepared: Prepared,
    pools: Pools,
    probed: dict[str, Any],
    meter: Meter,
    executor: Executor,
    on_activity: Callable[[StageActivity], None] | None = None,
    on_passes: Callable[[list[dict[str, Any]]], None] | None = None,
) -> Generator[Commit | Failure, None, None]:
    """Labels and writes the plan's units; yields what each shall commit, or why it failed, as soon as it is known.

    Args:
        probed: the result of probe_models.
        on_activity: called every second, from another thread, with what the stages are working on.
        on_passes: called after each unit with what went through each model (stages.rows.PASSES).
    """
    context = stage_context(prepared, pools, probed)
    tasks = [spans_to_json(list(spans)) for spans in prepared.plan.tasks]
    tokenizers = [model.tokenizer for model in distinct_tokenizations(prepared.models)]
    paths = [model.config.path for model in prepared.models]
    with closing(executor.stream_units(tasks, context, tokenizers, pools, meter, on_activity)) as rows:
        for row in rows:
            if row["failure"] is None:
                count_row(meter, row, paths)
                if on_passes is not None:
                    on_passes(row["passes"])
            yield decode_outcome(row)
