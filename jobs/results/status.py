"""`label-corpus status`: progress of a job and outcome of its last run, read from its output alone."""

import sys
import time
from datetime import UTC, datetime
from typing import Any

from jobs.number_format import duration, of_about
from pipeline_ops.analysis.summary_statistics import labels_of
from pipeline_ops.output.commit_log import read_job
from pipeline_ops.output.failed_units import read_failures
from pipeline_ops.output.labeled_output import open_labeled
from pipeline_ops.output.lease import LeaseRecord, read_lease
from pipeline_ops.output.run_records import INTERRUPTED, RUNNING, RunRecord, read_runs
from pipeline_ops.schema.errors import store_access
from pipeline_ops.storage.store import Store

LISTED_LABELS = 12
STARTING = "starting"
KILLED = "killed"


def status(store: Store) -> dict[str, Any]:
    """Content of the output, holder of its lease, and its newest run.

    Returns:
        documents, labeled, rejected, units, units_failed, labels: of the whole output, by its commits. state: `running` (a run
        holds the lease and has a record), `starting` (a run holds the lease and has labeled nothing yet), the outcome of the
        last run, `killed` if it has neither an outcome nor released its lease, or `unknown` without a record. run: its times,
        its counts, units_planned, documents_expected (of the input), documents_per_second of its last minute, seconds_left.
        holder: of the lease.

    Raises:
        UserError: there is no output.
        OSError: the store cannot be read.
    """
    with store_access("output.path", store.path, "read"):
        lease = read_lease(store)
    held = lease is not None and lease.is_held(time.time())
    holder = lease.holder if held and lease is not None else None
    if held and read_job(store) is None:
        counts = dict.fromkeys(("documents", "labeled", "rejected", "units", "units_failed"), 0)
        return {"state": STARTING, **counts, "labels": {}, "holder": holder, "run": None, "output": store.path}
    labeled = open_labeled(store)
    commits = labeled.commits
    runs = read_runs(store, newest=1)
    last = runs[-1] if runs else None
    return {
        "state": _state(last, lease, held),
        "documents": sum(commit.documents for commit in commits),
        "labeled": sum(commit.labeled for commit in commits),
        "rejected": sum(commit.rejected for commit in commits),
        "units": len(commits),
        "units_failed": len(read_failures(store)),
        "labels": {name: labels_of(commits, name) for name in labeled.columns.by_model()}
        if len(labeled.columns.by_model()) > 1
        else labels_of(commits),
        "holder": holder,
        "run": _run_summary(last, held) if last is not None else None,
        "output": labeled.path,
    }


def _state(last: RunRecord | None, lease: LeaseRecord | None, held: bool) -> str:
    is_of_lease = last is not None and lease is not None and last.term == lease.term
    if held:
        return RUNNING if is_of_lease else STARTING
    if lease is not None and not lease.released and (not is_of_lease or last is None or last.outcome == RUNNING):
        return KILLED
    if last is None:
        return "unknown"
    return KILLED if last.outcome == RUNNING else last.outcome


def _run_summary(run: RunRecord, held: bool) -> dict[str, Any]:
    is_running = held and run.outcome == RUNNING
    rate, left = _rate(run), max(run.units_planned - run.units, 0)
    units_rate = _rate(run, units=True)
    return {
        "run": run.run,
        "started": run.started,
        "ended": run.ended,
        "last_heard_s": _age_s(run.written),
        "host": run.host,
        "message": run.message,
        "documents": run.documents,
        "rejected": run.rejected,
        "units": run.units,
        "units_planned": run.units_planned,
        "documents_expected": run.documents_expected,
        "units_failed": run.units_failed,
        "documents_per_second": rate,
        "seconds_left": round(left / units_rate) if is_running and units_rate else None,
        "classifiers": run.classifiers,
        "device": run.device,
        "result": run.result,
    }


def _rate(run: RunRecord, *, units: bool = False) -> float | None:
    """Documents (or units) per second over the last minute of the timeline; None for fewer than two points."""
    points = run.points()
    if len(points) < 2:
        return None
    last = points[-1]
    before = next((point for point in reversed(points[:-1]) if last.seconds - point.seconds >= 60), points[0])
    if last.seconds <= before.seconds:
        return None
    done = last.units - before.units if units else last.documents - before.documents
    return round(done / (last.seconds - before.seconds), 4 if units else 1)


def _age_s(moment: str) -> int:
    return round((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())


def print_status(found: dict[str, Any]) -> None:
    """Prints a status for people, on stderr."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
    console.print(f"{escape(found['output'])}: [bold]{found['state']}[/]")
    failed = f", {found['units_failed']:,} units quarantined" if found["units_failed"] else ""
    console.print(
        f"{found['documents']:,} documents in {found['units']:,} units:"
        f" {found['labeled']:,} labeled, {found['rejected']:,} rejected{failed}"
    )
    run = found["run"]
    if run is not None:
        rate = "" if run["documents_per_second"] is None else f", {run['documents_per_second']:,} documents/s"
        left = "" if run["seconds_left"] is None else f", about {duration(run['seconds_left'])} left"
        console.print(
            f"run {run['run']} of {run['started']}: {run['documents']:,} documents, {run['units']:,} of about"
            f" {max(run['units_planned'], run['units']):,} units{rate}{left}"
        )
        if found["state"] == RUNNING:
            console.print(f"on {escape(run['host'])}, last heard of {run['last_heard_s']:,} s ago")
        elif run["ended"]:
            console.print(f"ended {run['ended']}" + (f": {escape(run['message'])}" if run["message"] else ""))
    if found["state"] in (INTERRUPTED, KILLED):
        labeled = of_about(found["documents"], run and run["documents_expected"])
        console.print(f"{labeled} documents are labeled; `label-corpus run` continues")
    labels = found["labels"]
    if labels and not isinstance(next(iter(labels.values())), dict):
        total = sum(labels.values())
        for label, count in list(labels.items())[:LISTED_LABELS]:
            console.print(f"  {count:>12,}  {count / total:6.1%}  {escape(label)}")
        if len(labels) > LISTED_LABELS:
            console.print(f"  and {len(labels) - LISTED_LABELS:,} more labels")
