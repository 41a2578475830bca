"""`label-corpus run`: the job. plan -> read -> tokenize -> classify -> postprocess + write -> commit.

In a notebook:

    from jobs import label_corpus

    result = label_corpus.run("reviews.yaml")                       # or the settings as a dict, or a JobConfig
    frame = label_corpus.labels("labeled/", as_="pandas", columns=["text", "label", "score"])
"""

import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from functools import partial
from typing import Any

from cluster.prometheus_metrics import Meter
from jobs.config import JobConfig, job_of
from jobs.console import signals
from jobs.console.json_events import JsonEvents
from jobs.console.run_progress import RunProgress
from jobs.console.stderr_capture import unhelpful_lines_left_out
from jobs.console.step_progress import Steps
from jobs.executors.auto_executor import AutoExecutor
from jobs.executors.executor import Executor
from jobs.report.publish import remove_report, with_report
from jobs.results.labels import labels
from jobs.run.commit_writer import CommitWriter, finalize, needs_writing, output_lease
from jobs.run.labeling import label_remaining
from jobs.run.prepare import Prepared, prepare
from jobs.run.prometheus_counts import count_outcome
from jobs.run.result import RunResult
from jobs.run.run_recorder import recorded
from jobs.run.state import RunState, end_run, state_of
from jobs.timings.timings import PLANNING, Timings
from pipeline_ops.output.lease import Lease
from pipeline_ops.publishing.publisher import Publisher
from pipeline_ops.schema.errors import ReplacedError, StoreError, UserError
from pipeline_ops.tables.input_table import table_words

__all__ = ["RunResult", "labels", "run"]

NOT_ENDED = "the last run did not end properly (killed, or its store failed): what it had not committed is labeled again"


def run(
    job: JobConfig | Mapping[str, Any] | str,
    *,
    quiet: bool = False,
    retry_failed: bool = False,
    as_json: bool = False,
    report: bool = True,
    limit: int | None = None,
    executor: Executor | None = None,
    timings: Timings | None = None,
) -> RunResult:
    """Labels the documents that are not labeled yet.

    Args:
        job: the settings, or the path of a job file.
        retry_failed: label the units again that earlier runs have quarantined.
        as_json: log events to the logger of jobs.console.json_logging instead of showing text on stderr.
        report: write the output's report at the end, if the run has changed anything.
        limit: a trial: label at most the first `limit` documents of the input, into the folder `<output>-trial`. A trial
            replaces the one before, or continues it if it was of fewer documents with the same settings. The job's output
            stays as it is.
        executor: what the stages run on; default: Ray, or for work that is small for this machine one process.
        timings: measures the run; default: one of its own, from now on, for the run's record.

    Raises:
        UserError: a mistake in the job, its input, its model or its output's permissions; nothing has been written.
        LeaseError: another run writes to the output.
        StoreError: the object store kept failing; what was committed stays.
        KeyboardInterrupt, SystemExit: Ctrl-C or SIGTERM; a note says how much is labeled.
    """
    started, timings = time.monotonic(), timings or Timings(PLANNING)
    timings.begin(PLANNING)
    config = job_of(job)
    with AutoExecutor(config.compute).starting() if executor is None else nullcontext(executor) as executor:
        with Steps("label-corpus", quiet=quiet or not sys.stderr.isatty()) as steps:
            steps.begin("resolving the model and listing the input")
            expect = executor.expect if isinstance(executor, AutoExecutor) and limit is None else None
            prepared = prepare(config, retry_failed=retry_failed, limit=limit, on_listed=expect)
        state = state_of(prepared, run=uuid.uuid4().hex[:12], started=started, timings=timings)
        return _label(prepared, state, executor, quiet=quiet, as_json=as_json, report=report)


def _label(prepared: Prepared, state: RunState, executor: Executor, *, quiet: bool, as_json: bool, report: bool) -> RunResult:
    """Labels what a job that is checked has left; see run()."""
    limit = prepared.limit
    meter, max_failed = Meter(state.run, state.output), prepared.job.compute.max_failed_units
    state.observers.append(partial(count_outcome, meter))
    with (
        JsonEvents(state, quiet=quiet) if as_json else RunProgress(state, quiet=quiet) as view,
        _stderr(view.is_drawn),
        _noted(state),
    ):
        if prepared.table is not None:
            state.notify(f"input: {table_words(prepared.table.to_dict())}")
        if not prepared.plan.tasks and not prepared.plan.stale:
            what = "every input file is" if limit is None else "the trial's documents are"
            state.notify(f"nothing to do: {what} labeled{' or quarantined' if state.quarantined else ''}")
        store, output = prepared.job.output_store, prepared.job.output
        publisher = Publisher(store, output, prepared.ledger, state.run)
        if not needs_writing(prepared, publisher):
            state.table = publisher.version()
            return end_run(state, prepared)
        with output_lease(prepared, publisher) as lease:
            if prepared.lease is not None and not prepared.lease.released:
                state.notify(NOT_ENDED)
            if prepared.plan.tasks and state.documents_before:
                state.notify(f"continuing: {state.labeled_text()}")
            if prepared.replaces_trial:
                state.notify("replacing the earlier trial")
                remove_report(store)
            with recorded(state, prepared, lease.term):
                writer = CommitWriter(store, output, prepared.ledger, prepared.plan, lease, state.run)
                on_activity = state.set_activity if view.shows_activity else None
                with closing(label_remaining(prepared, writer, state, meter, executor, on_activity)) as outcomes:
                    for outcome in outcomes:
                        written = writer.write(outcome)
                        if written is not None:  # else another attempt at the unit is committed
                            state.add(written)
                        if publisher.is_due():
                            _publish(publisher, lease, state)
                        signals.raise_pending()
                        if max_failed is not None and state.failed_units > max_failed:
                            state.notify(f"stopping early: more than compute.max_failed_units ({max_failed}) have failed")
                            break
                state.begin_step("finishing: checking the commits")
                finalize(lease, publisher)
                state.table = publisher.version()
                result = end_run(state, prepared)
            if report:
                state.begin_step("finishing: writing the report")
                result = state.result = with_report(result, prepared.job, prepared.ledger, state.notify)
        return result


def _publish(publisher: Publisher, lease: Lease, state: RunState) -> None:
    """Publishes the table while the run goes. What keeps it from being written does not end the labeling: it ends the run.

    Nor does a catalog that fails for a while; where it is the output's store that fails, the next commit says so.
    """
    try:
        publisher.publish(lease)
    except (UserError, ReplacedError, StoreError) as error:
        state.notify(f"{error}; the labeling goes on")
        publisher.put_off()


def _stderr(is_drawn: bool) -> AbstractContextManager[None]:
    return nullcontext() if is_drawn else unhelpful_lines_left_out()


@contextmanager
def _noted(state: RunState) -> Iterator[None]:
    """Notes how much is labeled on an interrupt that ends the block."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        stop.add_note(state.labeled_text())
        raise
