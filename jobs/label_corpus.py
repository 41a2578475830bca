"""`label-corpus run`: the job. plan -> the chain (read -> tokenize -> classify -> postprocess + write) -> commit.

In a notebook:

    from jobs import label_corpus

    result = label_corpus.run("reviews.yaml")                       # or the settings as a dict, or a JobConfig
    frame = label_corpus.labels("labeled/", as_="pandas", columns=["text", "label", "score"])
"""

import sys
import uuid
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, nullcontext
from typing import Any

from cluster.metrics import Meter
from cluster.node_wait import wait_for_pools, warn_about_missing_nodes, why_waiting
from cluster.resources import Machines, Pools
from jobs.config import JobConfig, job_of
from jobs.console import signals as stopping
from jobs.console.json_events import JsonLines
from jobs.console.run_progress import Progress
from jobs.console.step_progress import Steps
from jobs.report.publish import with_report
from jobs.results.labels import labels
from jobs.run.chain import Executor, RayExecutor, label_units
from jobs.run.commit_writer import Writer, finalize, needs_writing, writing
from jobs.run.fingerprint import check_same_job
from jobs.run.job_record import job_record
from jobs.run.metrics import count_commit, count_failure
from jobs.run.prepare import Prepared, prepare
from jobs.run.result import RunResult, Timeline, summarize
from jobs.run.run_recorder import Recording
from pipeline_ops.models.device import probe_models
from pipeline_ops.output.commit_log import incomplete_files, write_job
from pipeline_ops.output.failed_units import clear_failures, quarantine
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.failures import Failure, fatal_error_of
from pipeline_ops.writing.commit_record import Commit

__all__ = ["RunResult", "labels", "run"]


def run(
    job: JobConfig | Mapping[str, Any] | str,
    *,
    quiet: bool = False,
    retry_failed: bool = False,
    as_json: bool = False,
    report: bool = True,
    executor: Executor = RayExecutor(),
) -> RunResult:
    """Labels what is not labeled yet.

    Args:
        job: the settings, or the path of a job file.
        retry_failed: take up what earlier runs have quarantined.
        as_json: events go to the logger of jobs.console.json_logging, not to stderr as text.
        report: make the page about the output when the run ends, if it has changed anything.
        executor: where the work is done.

    Raises:
        UserError: a mistake in the job, its input, its model or its output's permissions; nothing has been written.
        LeaseError: another run writes to the output.
        StoreError: the object store kept failing; what was committed stays.
    """
    timeline = Timeline()
    with Steps("label-corpus", quiet=quiet or not sys.stderr.isatty()) as steps:
        steps.begin("looking at the model and listing the input")
        prepared = prepare(job_of(job), retry_failed=retry_failed)
    job = prepared.job
    failed = list(prepared.failures)
    skipped = len(prepared.ledger.current)
    meter = Meter(uuid.uuid4().hex[:12], job.output.path)
    with JsonLines(meter.run, prepared.plan, quiet=quiet) if as_json else Progress(prepared.plan, quiet=quiet) as progress:
        progress.begin(
            output=job.output.path,
            files=len(prepared.files),
            units_skipped=skipped,
            units_expected=prepared.plan.num_units,
        )
        if needs_writing(prepared):
            with writing(prepared) as lease:
                if lease.must_fence:
                    progress.say("an earlier run has not ended properly: what it may still commit is void from now on")
                clear_failures(prepared.outdated_failures, job.output.path, job.storage)
                recording = Recording(meter.run, lease.term, prepared, timeline)
                try:
                    _label(prepared, Writer(prepared, lease, meter.run), progress, recording, meter, failed, executor)
                    progress.doing("sweeping the output")
                    finalize(prepared, lease)
                    result, incomplete = _result(prepared, timeline, failed, skipped)
                    recording.end(result)
                except BaseException as error:
                    recording.end_by(error)
                    raise
                if report:
                    progress.doing("making the report")
                    result = with_report(result, job, prepared.ledger, progress.say)
        else:
            progress.say("nothing to do: every input file is labeled" if not failed else "nothing to do but what has failed")
            result, incomplete = _result(prepared, timeline, failed, skipped)
        for path in incomplete:
            progress.say(f"not completely labeled: {path}")
        if failed:
            progress.say(f"{len(failed)} failed units are quarantined; `run --retry-failed` takes them up again")
        progress.end(result.to_dict())
    return result


def _label(
    prepared: Prepared,
    writer: Writer,
    progress: Progress | JsonLines,
    recording: Recording,
    meter: Meter,
    failed: list[Failure],
    executor: Executor,
) -> None:
    """Labels and commits what is left, until too much of it fails; what fails is added to `failed`."""
    most, before = prepared.job.compute.max_failed_units, len(failed)
    with closing(_label_and_commit(prepared, writer, progress, recording, meter, executor)) as finished:
        for done in finished:
            stopping.check()
            if isinstance(done, Commit):
                recording.add(done)
                continue
            failed.append(done)
            recording.quarantine()
            progress.quarantine(done)
            if most is not None and len(failed) - before > most:
                progress.say(f"stopping early: more than compute.max_failed_units ({most}) have failed")
                break


def _result(prepared: Prepared, timeline: Timeline, failed: list[Failure], skipped: int) -> tuple[RunResult, list[str]]:
    """What came of the run, and the input files that are not completely labeled."""
    # the end is a comparison with the input, not the absence of an error
    incomplete = incomplete_files(prepared.files, prepared.ledger.commits)
    result = summarize(
        prepared.ledger.commits,
        timeline,
        skipped=skipped,
        output=prepared.job.output.path,
        failed=[f"{failure.where}: {failure.error}: {failure.message}" for failure in failed],
        files=len(prepared.files),
        incomplete=len(incomplete),
        changed=len(prepared.plan.changed),
        removed=len(prepared.plan.removed),
    )
    return result, incomplete


def _label_and_commit(
    prepared: Prepared,
    writer: Writer,
    progress: Progress | JsonLines,
    recording: Recording,
    meter: Meter,
    executor: Executor,
) -> Generator[Commit | Failure, None, None]:
    job, plan, ledger = prepared.job, prepared.plan, prepared.ledger
    writer.drop_removed()
    if not plan.tasks and not writer.partly_outdated():
        return
    progress.doing("starting Ray")
    with executor.connected() as machines:
        progress.doing("looking at what there is to run on")
        writer.rewrite_outdated(executor)
        if not plan.tasks:
            return
        try:
            pools = wait_for_pools(job.compute, machines, prepared.token_flops, progress.say)
        except ValueError as error:
            raise UserError(str(error)) from error
        progress.doing("trying the model")
        probed = _probe(prepared, pools, machines, progress, executor)
        record = job_record(prepared, probed["dtypes"], writer.run)
        if prepared.record is not None:
            check_same_job(prepared.record, record["settings"])
        recording.timeline.starts_labeling(pools.classifiers, probed["device"], probed["dtypes"], pools.gpus_per_classifier)
        recorded = False
        # closed before Ray is shut down: Ray ends a process whose executor still runs then
        watched = nullcontext() if machines.here else warn_about_missing_nodes(pools, progress.say)
        progress.doing("labeling the first units: actors start and load the model", pools)
        on_activity = progress.works if progress.watches else None
        with watched, closing(label_units(prepared, pools, probed, meter, executor, on_activity)) as finished:
            for done in defer_failures(finished, job.compute.max_failed_units):
                if not recorded:
                    writer.lease.check()
                    write_job(record, job.output.path, job.storage)
                    recording.begin(probed["device"], probed["dtypes"], pools.classifiers)
                    recorded = True
                    if any(model.facts.head.has_generic_labels for model in prepared.models):
                        progress.say("the model's labels have no names (LABEL_0, ...): model.id2label can give them some")
                if isinstance(done, Failure):
                    writer.lease.check()
                    quarantine(done, writer.run, job.output.path, job.storage)
                    count_failure(meter, done)
                    yield done
                elif writer.put(done):
                    commit = ledger.commits[done.unit]
                    progress.add(commit)
                    count_commit(meter, commit)
                    yield commit


def defer_failures(finished: Iterable[Commit | Failure], most_failed: int | None) -> Iterator[Commit | Failure]:
    """The same, failures not before the model has labeled something: nothing is put for a job whose model cannot be loaded.

    Args:
        most_failed: with more failures than these it does not go on for a label's sake.

    Raises:
        Exception: the first failure that is no unit's fault (failures.fatal_error_of).
    """
    labeled = False
    postponed: list[Failure] = []
    for done in finished:
        if isinstance(done, Failure):
            error = fatal_error_of(done)
            if error is not None:
                raise error
            if not labeled:
                postponed.append(done)
                if most_failed is None or len(postponed) <= most_failed:
                    continue
                done = postponed.pop()
        yield done
        if not labeled:
            labeled = True
            yield from postponed
    if not labeled:
        yield from postponed


def _probe(
    prepared: Prepared, pools: Pools, machines: Machines, progress: Progress | JsonLines, executor: Executor
) -> dict[str, Any]:
    """What probe_models finds where classifiers run."""
    arguments = (prepared.models, prepared.job.storage, pools.gpus_per_classifier)
    if machines.here and not pools.use_gpu:
        return probe_models(*arguments)
    ((_, probed),) = executor.run_tasks(
        probe_models,
        [arguments],
        num_gpus=pools.gpus_per_classifier,
        accelerator_type=pools.accelerator_type,
        on_wait=None if machines.here else lambda: progress.say(why_waiting(pools)),
    )
    return probed
