"""The units of a plan through an executor's stages: what each needs, and what each gives the commits."""

from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

from cluster.attempts import StageActivity
from cluster.prometheus_metrics import Meter
from cluster.resources import Pools
from jobs.executors.executor import Executor, UnitStream
from jobs.run.fingerprint import fingerprint, result_settings
from jobs.run.prepare import Prepared
from jobs.run.prometheus_counts import count_row
from pipeline_ops.models.config import distinct_tokenizations, with_dtypes
from pipeline_ops.planning.work_plan import Plan, reading_order
from pipeline_ops.reading.spans import spans_to_json
from pipeline_ops.reading.unit_sizes import UnitSizes
from pipeline_ops.schema.failures import Failure
from pipeline_ops.stages.context import StageContext
from pipeline_ops.stages.rows import decode_measured, decode_outcome
from pipeline_ops.writing.commit_record import Commit


def unit_sizes(plan: Plan, pools: Pools) -> UnitSizes:
    """How large the units of a run are."""
    if pools.classifiers == 1:  # it waits for no other
        return UnitSizes(plan.unit_bytes)
    return UnitSizes(plan.unit_bytes, pools.least_unit_bytes, pools.classifiers * pools.units_in_flight)


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
        unit_sizes=unit_sizes(prepared.plan, pools),
        fingerprint=fingerprint(result_settings(job, models)),
        models=tuple(replace(model, tokenizer="") for model in models),
        batch_tokens=pools.batch_tokens or probed["batch_tokens"],
        use_gpu=pools.use_gpu,
    )


def label_units(
    prepared: Prepared,
    pools: Pools,
    probed: dict[str, Any],
    meter: Meter,
    executor: Executor,
    on_activity: Callable[[StageActivity], None] | None = None,
    on_written: Callable[[Mapping[str, Any]], None] | None = None,
) -> Generator[Commit | Failure, None, None]:
    """Labels and writes the plan's units; yields what each shall commit, or why it failed, as soon as it is known.

    Args:
        probed: the result of probe_models.
        on_activity: called every second, from another thread, with what the stages are working on.
        on_written: called with `passes` and `spans` (stages.rows.WRITTEN) of each unit that has not failed.
    """
    tasks = [spans_to_json(list(spans)) for spans in reading_order(prepared.plan, pools.readers)]
    tokenizers = [model.tokenizer for model in distinct_tokenizations(prepared.models)]
    paths = [model.config.path for model in prepared.models]
    units = UnitStream(tasks, stage_context(prepared, pools, probed), tokenizers, pools, meter, on_activity)
    with closing(executor.stream_units(units)) as rows:
        for row in rows:
            if row["failure"] is None:
                measured = decode_measured(row)
                count_row(meter, measured, paths)
                if on_written is not None:
                    on_written(measured)
            yield decode_outcome(row)
