"""Build an output's report and put it at `_report/report.html`."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from cluster.session import secret_values
from jobs.config import ResolvedJob
from jobs.number_format import counted
from jobs.results.open_output import EVALUATION
from jobs.run.result import RunResult
from pipeline_ops.output.commit_log import Ledger, read_job
from pipeline_ops.output.labeled_output import Labeled
from pipeline_ops.output.run_records import INCOMPLETE
from pipeline_ops.schema.units import iso
from pipeline_ops.storage.store import Store

REPORT_FOLDER = "_report"
REPORT_FILE = f"{REPORT_FOLDER}/report.html"


def make_report(labeled: Labeled, say: Callable[[str], None]) -> str:
    """Build the report of an output and write it there.

    Args:
        say: called with what the page is based on.

    Returns:
        The report's path.

    Raises:
        OSError: a labeled file cannot be read, or the report not be written.
    """
    from jobs.report.context import report_context
    from jobs.report.evaluation import evaluation_context
    from jobs.report.html import render

    evaluation = _read_evaluation(labeled)
    context = report_context(labeled)
    page = render(
        "report.html.j2",
        secret_values(),
        **context,
        evaluation=evaluation_context(evaluation) if evaluation else None,
        created_at=iso(datetime.now(UTC)),
    )
    labeled.store.put(REPORT_FILE, page.encode(errors="replace"))
    read = "all" if context["sampled"] == context["labeled"] else "sample of"
    last_run = context["last_run"]
    rest = "; not all of the input is labeled" if last_run and last_run.outcome == INCOMPLETE else ""
    say(f"report written ({read} {counted(context['sampled'], 'labeled document')}{rest})")
    return labeled.store.join(REPORT_FILE)


def with_report(result: RunResult, job: ResolvedJob, ledger: Ledger, say: Callable[[str], None]) -> RunResult:
    """Build the report at the end of a run and add its path to the result.

    Args:
        say: called with why there is none.

    A failure is logged and returned as `report_error`; it does not fail the run, whose labels are committed.
    """
    began = time.monotonic()
    try:
        record = read_job(job.output_store)
        if record is None:  # no unit has been committed
            return result
        path = make_report(Labeled(job.output_store, record, ledger), lambda text: None)
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        say(f"the report could not be written: {reason}; run `label-corpus report` to try again")
        return replace(result, report_error=reason)
    return replace(result, report=path, report_seconds=round(time.monotonic() - began, 2))


def remove_report(store: Store) -> None:
    """Delete an output's report and evaluation, of labels that are no longer in it."""
    store.delete([REPORT_FILE, EVALUATION])


def _read_evaluation(labeled: Labeled) -> dict[str, Any] | None:
    """The result of the last `label-corpus evaluate`, if any."""
    try:
        return json.loads(labeled.store.read(EVALUATION))
    except FileNotFoundError:
        return None
