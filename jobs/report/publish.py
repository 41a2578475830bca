"""Makes an output's report: gathers, renders, puts it at `_report/report.html`."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from cluster.session import secret_values
from jobs.config import JobConfig
from jobs.results.evaluate import EVALUATION
from jobs.run.result import RunResult
from pipeline_ops.output.commit_log import Ledger, read_job
from pipeline_ops.output.labeled_output import Labeled
from pipeline_ops.schema.units import iso

REPORT_FOLDER = "_report"
REPORT_FILE = f"{REPORT_FOLDER}/report.html"


def make_report(labeled: Labeled, say: Callable[[str], None]) -> str:
    """Puts the report of an output into it; returns its path.

    Raises:
        OSError: what is labeled cannot be read, or the report not be written.
    """
    from jobs.report.context import gather
    from jobs.report.evaluation import section
    from jobs.report.html import render

    facts = gather(labeled, say)
    secrets = secret_values()
    evaluation = _evaluation(labeled)
    page = render(
        "report.html.j2",
        secrets,
        **facts,
        evaluation=section(evaluation, secrets) if evaluation else None,
        evaluated_documents=evaluation["documents"] if evaluation else None,
        made_at=iso(datetime.now(UTC)),
    )
    labeled.store.put(REPORT_FILE, page.encode(errors="replace"))
    return labeled.store.join(REPORT_FILE)


def with_report(result: RunResult, job: JobConfig, ledger: Ledger, say: Callable[[str], None]) -> RunResult:
    """A run's result with its report.

    What is wrong with the report is said, here and in the result, and changes nothing else: the documents have their labels.
    """
    began = time.monotonic()
    try:
        record = read_job(job.output_store)
        if record is None:  # nothing has ever been labeled here
            return result
        path = make_report(Labeled(job.output_store, record, ledger), say)
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        say(f"the report could not be made: {reason}; `label-corpus report` tries again")
        return replace(result, report_error=reason)
    return replace(result, report=path, report_seconds=round(time.monotonic() - began, 2))


def _evaluation(labeled: Labeled) -> dict[str, Any] | None:
    """What the last `evaluate` has found."""
    try:
        return json.loads(labeled.store.read(EVALUATION))
    except FileNotFoundError:
        return None
