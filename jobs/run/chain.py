"""The chain: read -> tokenize -> classify -> postprocess + write, a unit per row. Here Ray is told about the stages."""

from collections.abc import Callable, Generator
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from cluster.attempts import Attempts, StageActivity
from cluster.metrics import Meter, metered, metered_actor
from cluster.ray_settings import configure_ray_data
from cluster.resources import READER_CPUS, WRITER_CPUS, Pools
from cluster.streaming import stream_rows
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
    told = [replace(model, tokenizer="") for model in models]  # of megabytes, which only the tokenizers need
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


def label_units(
    prepared: Prepared,
    pools: Pools,
    probed: dict[str, Any],
    meter: Meter,
    classify_actor: type[ClassifyActor] = ClassifyActor,
    tell: Callable[[StageActivity], None] | None = None,
) -> Generator[Commit | Failure, None, None]:
    """The chain, on Ray Data: yields what was written of each unit, or why it was not, as soon as it is known.

    Args:
        probed: what probing.probe_models has found.
        classify_actor: the benchmark puts one in its place that only takes its time.
        tell: hears every second what the stages are at work on, from another thread.
    """
    import ray.data
    from ray.data import ActorPoolStrategy

    attempts = Attempts(meter)
    stages = stages_of(prepared, pools, probed, attempts)
    paths = [model.config.path for model in prepared.models]
    unit = {"batch_size": 1, "batch_format": "pyarrow", "zero_copy_batch": True}
    configure_ray_data(prepared.plan.unit_bytes)
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
            metered_actor("classify", classify_actor, meter, has_failed),
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
    with closing(stream_rows(written)) as rows, nullcontext() if tell is None else attempts.watched(tell):
        for row in rows:
            if row["failure"] is None:
                count_row(meter, row, paths)
            yield decode_outcome(row)
