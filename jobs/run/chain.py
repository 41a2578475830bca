"""The chain: read -> tokenize -> classify -> label and write, a unit per row, on an executor: Ray, or what the tests bring."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from cluster.attempts import Attempts, StageActivity
from cluster.metrics import Meter, metered, metered_actor
from cluster.ray_settings import configure_ray_data
from cluster.resources import READER_CPUS, WRITER_CPUS, Machines, Pools
from cluster.session import connected
from cluster.streaming import run_tasks, stream_rows
from jobs.run.fingerprint import fingerprint, result_settings
from jobs.run.metrics import count_row
from jobs.run.prepare import Prepared
from pipeline_ops.models.config import with_dtypes
from pipeline_ops.reading import reader as reading
from pipeline_ops.reading.reader import ReadSettings, spans_to_json
from pipeline_ops.schema.failures import Failure
from pipeline_ops.stages.classifier import ClassifyActor
from pipeline_ops.stages.reader import read_task
from pipeline_ops.stages.rows import has_failed
from pipeline_ops.stages.tokenizer import TokenizeActor
from pipeline_ops.stages.writer import write_row
from pipeline_ops.writing.commit_record import Commit


@dataclass(frozen=True)
class Stages:
    """What the stages (pipeline_ops.stages.rows) are told once; all else is in their rows."""

    tasks: list[dict[str, str]]  # rows for read_task
    read: dict[str, Any]
    tokenize: dict[str, Any]
    classify: dict[str, Any]
    write: dict[str, Any]


def stages_of(prepared: Prepared, pools: Pools, probed: dict[str, Any], attempts: reading.Attempts) -> Stages:
    """See Stages.

    Args:
        probed: what probing.probe_models has found.
    """
    job = prepared.job
    models = with_dtypes(prepared.models, probed["dtypes"])
    job_fingerprint = fingerprint(result_settings(job, models))
    model_metadata = {model.name: {**model.facts.to_dict(), "dtype": model.dtype} for model in models}
    told = [replace(model, tokenizer_json="") for model in models]  # of megabytes, which only the tokenizers need
    return Stages(
        tasks=[{"task": spans_to_json(list(spans))} for spans in prepared.plan.tasks],
        read={
            "settings": ReadSettings(
                job.input, job.storage, job.output, prepared.line_types, prepared.plan.unit_bytes, job_fingerprint
            ),
            "attempts": attempts,
        },
        tokenize={
            "models": models,
            "text_columns": job.input.text_columns,
            "output": job.output,
            "batch_tokens": pools.batch_tokens or probed["batch_tokens"],
            "attempts": attempts,
        },
        classify={
            "models": told,
            "storage": job.storage,
            "output": job.output,
            "use_gpu": pools.use_gpu,
            "attempts": attempts,
        },
        write={
            "models": told,
            "output": job.output,
            "storage": job.storage,
            "metadata": {**model_metadata.get("", {"models": model_metadata}), "fingerprint": job_fingerprint},
            "attempts": attempts,
        },
    )


def decode_outcome(row: dict[str, Any]) -> Commit | Failure:
    """What the last stage's row says."""
    return Commit.from_json(row["commit"]) if row["failure"] is None else Failure.from_json(row["failure"])


class Executor(Protocol):
    """Where the work of a run is done."""

    def connected(self) -> AbstractContextManager[Machines]:
        """The machines to work on, connected for the duration of the block."""
        ...

    def stream_units(
        self,
        stages_with: Callable[[reading.Attempts], Stages],
        pools: Pools,
        meter: Meter,
        on_activity: Callable[[StageActivity], None] | None,
    ) -> Generator[dict[str, Any], None, None]:
        """The write stage's row of each unit, as soon as it is written. Closing the generator stops the work.

        Args:
            stages_with: the stages, given the counter of attempts that they shall use.
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
        classify_actor: the benchmark replaces it by one that only sleeps.
    """

    classify_actor: type[ClassifyActor] = ClassifyActor

    def connected(self) -> AbstractContextManager[Machines]:
        return connected()

    def stream_units(
        self,
        stages_with: Callable[[reading.Attempts], Stages],
        pools: Pools,
        meter: Meter,
        on_activity: Callable[[StageActivity], None] | None,
    ) -> Generator[dict[str, Any], None, None]:
        import ray.data
        from ray.data import ActorPoolStrategy

        attempts = Attempts(meter)
        stages = stages_with(attempts)
        unit = {"batch_size": 1, "batch_format": "pyarrow", "zero_copy_batch": True}
        configure_ray_data(stages.read["settings"].unit_bytes)
        written = (
            ray.data.from_items(stages.tasks, override_num_blocks=len(stages.tasks))
            .map_batches(
                metered("read", read_task, meter, has_failed),
                fn_kwargs=stages.read,
                num_cpus=READER_CPUS,
                **unit,
            )
            .map_batches(
                metered_actor("tokenize", TokenizeActor, meter, has_failed),
                fn_constructor_kwargs=stages.tokenize,
                compute=ActorPoolStrategy(min_size=pools.min_tokenizers, max_size=pools.tokenizers),
                num_cpus=1,
                **unit,
            )
            .map_batches(
                metered_actor("classify", self.classify_actor, meter, has_failed),
                fn_constructor_kwargs=stages.classify,
                compute=ActorPoolStrategy(
                    min_size=pools.min_classifiers,
                    max_size=pools.classifiers,
                    max_tasks_in_flight_per_actor=4 if pools.use_gpu else 2,
                ),
                **({"num_gpus": pools.gpus_per_classifier} if pools.use_gpu else {"num_cpus": 1}),
                **({"accelerator_type": pools.accelerator_type} if pools.accelerator_type else {}),
                **unit,
            )
            .map_batches(
                metered("write", write_row, meter, has_failed),
                fn_kwargs=stages.write,
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


def label_units(
    prepared: Prepared,
    pools: Pools,
    probed: dict[str, Any],
    meter: Meter,
    executor: Executor,
    on_activity: Callable[[StageActivity], None] | None = None,
) -> Generator[Commit | Failure, None, None]:
    """Labels and writes the plan's units; yields what each shall commit, or why it failed, as soon as it is known.

    Args:
        probed: the result of probe_models.
        on_activity: called every second, from another thread, with what the stages are working on.
    """
    paths = [model.config.path for model in prepared.models]
    stages_with = partial(stages_of, prepared, pools, probed)
    with closing(executor.stream_units(stages_with, pools, meter, on_activity)) as rows:
        for row in rows:
            if row["failure"] is None:
                count_row(meter, row, paths)
            yield decode_outcome(row)
