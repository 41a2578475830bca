"""Labels what is left of the input: connects, sizes the pools, checks the model on a worker, streams the outcomes of units."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, nullcontext
from functools import partial
from typing import Any

from cluster.attempts import StageActivity
from cluster.node_wait import wait_for_pools, warn_about_missing_nodes, why_waiting
from cluster.prometheus_metrics import Meter
from cluster.resources import Machines, Pools
from cluster.session import installed_gpus
from jobs.executors.executor import Executor
from jobs.run.chain import label_units, unit_sizes
from jobs.run.commit_writer import CommitWriter
from jobs.run.fingerprint import check_same_job
from jobs.run.job_record import job_record
from jobs.run.plan import padding_lines, passes_lines, stray_lines, work_of
from jobs.run.prepare import Prepared
from jobs.run.state import LOADING, RunState
from pipeline_ops.inputs.passed_over import skipped_line, summary_of
from pipeline_ops.joining.parts import check_labeled_once, check_like_other_parts
from pipeline_ops.loading.device import probe_models
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.failures import Failure, fatal_error_of
from pipeline_ops.writing.commit_record import Commit


def label_remaining(
    prepared: Prepared,
    writer: CommitWriter,
    state: RunState,
    meter: Meter,
    executor: Executor,
    on_activity: Callable[[StageActivity], None] | None = None,
) -> Generator[Commit | Failure, None, None]:
    """Labels and writes the units that have no commit; yields what each is to commit, or why it failed.

    The rows of input files that have changed or are gone leave the output on the way (CommitWriter). Close the generator to
    stop early.

    Raises:
        UserError: the machines are too small for the pools, the model cannot be loaded, or its dtype is not the output's.
    """
    job = prepared.job
    writer.drop_removed()
    if not prepared.plan.tasks and not writer.partly_outdated():
        return
    for note in prepared.notes:
        state.notify(note)
    state.begin_step("starting the workers")
    plan, work = prepared.plan, work_of(prepared)
    with executor.connected(work, state.notify) as machines:
        state.ran_on = executor.name
        state.timings.on_cluster = not machines.here
        writer.rewrite_outdated(executor.run_tasks)
        if not prepared.plan.tasks:
            return
        try:
            needs = work.token_flops, work.tokens_per_core, prepared.plan.num_units
            pools = wait_for_pools(job.compute, machines, *needs, state.notify)
        except ValueError as error:
            raise UserError(str(error)) from error
        if not machines.here and not machines.gpus and job.compute.gpus_per_classifier == "auto":
            _warn_about_uncounted_gpus(state, executor)
        state.begin_step(LOADING)
        probed = _probe(prepared, pools, machines, state, executor)
        writer.job_record = job_record(prepared, probed["dtypes"], state.run)
        if prepared.record is not None:
            check_same_job(prepared.record, writer.job_record["settings"])
        else:
            check_labeled_once(job.output_store)  # again, now that the lease is held
            check_like_other_parts(job.output_store, writer.job_record)
        for model in prepared.models:
            if model.facts.head.has_generic_labels:
                whose, key = (f"{model.name}'s", f"models.{model.name}") if model.name else ("the model's", "model")
                state.notify(f"{whose} labels have no names (LABEL_0, ...): set {key}.id2label to name them")
        if any(model.shared is not None for model in prepared.models):
            state.notify(*passes_lines(prepared.models))
        if prepared.passed_over:
            state.notify(skipped_line(summary_of(prepared.passed_over)))
        if prepared.strays is not None:
            state.notify("; ".join(stray_lines(prepared.strays)))
        shares = unit_sizes(plan, pools).shares(work.text_bytes, plan.num_units)
        state.begin_labeling(pools, probed["device"], probed["dtypes"], shares)
        watched = nullcontext() if machines.here else warn_about_missing_nodes(pools, state.notify)
        # closed before Ray is shut down, which would end this process while Ray Data's executor runs
        units = label_units(prepared, pools, probed, meter, executor, on_activity, partial(_note_unit, prepared, state))
        with watched, closing(units) as outcomes:
            yield from defer_failures(outcomes, job.compute.max_failed_units)
            state.ran_on = executor.name
            state.end_labeling()
            state.begin_step("finishing: stopping the workers")


def _warn_about_uncounted_gpus(state: RunState, executor: Executor) -> None:
    ((_, gpus),) = executor.run_tasks(installed_gpus, [()])
    if gpus:
        state.notify(
            f"a node has {gpus} GPUs, which its Ray does not offer: the models run on CPUs; start Ray there with"
            f" --num-gpus={gpus}, or set compute.gpus_per_classifier to 0"
        )


def _note_unit(prepared: Prepared, state: RunState, row: Mapping[str, Any]) -> None:
    state.timings.unit_received(row["spans"])
    passes = row["passes"]
    for line in padding_lines(prepared.models, [passed["against_padding"] for passed in passes]):
        state.note_once(state.without_padding, line)
    for passed in passes:
        if passed["against_sharing"] is not None:
            state.note_once(state.without_sharing, passed["against_sharing"])
        if passed["against_compiling"] is not None:
            state.note_once(state.without_compiling, passed["against_compiling"])


def defer_failures(outcomes: Iterable[Commit | Failure], max_failed: int | None) -> Iterator[Commit | Failure]:
    """Holds failures back until a unit is labeled, so that nothing is put for a job whose model cannot be loaded.

    Args:
        max_failed: as many failures are held back at the most; None: any number.

    Raises:
        Exception: the first failure that no unit is the cause of (failures.fatal_error_of).
    """
    labeled = False
    deferred: list[Failure] = []
    for outcome in outcomes:
        if isinstance(outcome, Failure):
            error = fatal_error_of(outcome)
            if error is not None:
                raise error
            if not labeled:
                deferred.append(outcome)
                if max_failed is None or len(deferred) <= max_failed:
                    continue
                outcome = deferred.pop()
        yield outcome
        if not labeled:
            labeled = True
            yield from deferred
    if not labeled:
        yield from deferred


def _probe(prepared: Prepared, pools: Pools, machines: Machines, state: RunState, executor: Executor) -> dict[str, Any]:
    """probe_models(), run where classifiers run."""
    arguments = (prepared.models, prepared.job.storage, pools.gpus_per_classifier)
    if machines.here and not pools.use_gpu:
        return probe_models(*arguments)
    ((_, probed),) = executor.run_tasks(
        probe_models,
        [arguments],
        num_gpus=pools.gpus_per_classifier,
        accelerator_type=pools.accelerator_type,
        on_wait=None if machines.here else lambda: state.notify(why_waiting(pools)),
    )
    return probed
