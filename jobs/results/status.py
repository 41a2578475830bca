"""`label-corpus status`: progress of a job and outcome of its last run, read from its output alone."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from jobs.run.state import MAX_LISTED
from pipeline_ops.analysis.summary_statistics import labels_of
from pipeline_ops.inputs.part import InputPart
from pipeline_ops.joining.parts import check_alike, check_recorded_as, parts_of, store_of_part
from pipeline_ops.output.commit_log import Ledger, read_job
from pipeline_ops.output.failed_units import read_failures
from pipeline_ops.output.labeled_output import Labeled, open_labeled
from pipeline_ops.output.lease import LeaseRecord, read_lease
from pipeline_ops.output.run_records import COMPLETE, INCOMPLETE, INTERRUPTED, RUNNING, RunRecord, read_runs
from pipeline_ops.schema.errors import store_access
from pipeline_ops.storage.store import Store
from pipeline_ops.writing.commit_record import Commit

STARTING = "starting"
KILLED = "killed"
UNKNOWN = "unknown"
NOT_STARTED = "not started"  # a part of a split job
COUNTS = ("documents", "labeled", "rejected", "units", "units_failed")
NOTHING: dict[str, Any] = {
    "state": UNKNOWN,
    **dict.fromkeys(COUNTS, 0),
    "failed": [],
    "labels": {},
    "holder": None,
    "run": None,
    "previous_run": None,
    "joined": False,
    "parts": {},
}
# of the parts of a split job the first of these is the state of the whole
STATES = (RUNNING, STARTING, "failed", KILLED, INTERRUPTED, UNKNOWN, INCOMPLETE, COMPLETE)


def status(store: Store) -> dict[str, Any]:
    """Content of the output, holder of its lease, and its newest run.

    Of a split job: state is the one of STATES that comes first among the parts', counts are sums, and `parts` has the status of
    each by its name; holder, run and previous_run are None.

    Returns:
        documents, labeled, rejected, units, units_failed, labels: of the whole output, by its commits. failed: which files the
        first quarantined units are of, and why. state: `running` (a run
        holds the lease and has a record), `starting` (a run holds the lease and has labeled nothing yet), the outcome of the
        last run, `killed` if it has neither an outcome nor released its lease, or `unknown` without a record. run: its times,
        its counts, units_planned, documents_expected (of the input), startup_seconds, labeling_documents_per_second,
        seconds_left at the speed of the last minute. previous_run: the same of the run before one that starts. holder: of
        the lease. joined: whether `join` writes it, and no run.

    Raises:
        UserError: there is no output, or documents are in it twice (parts_of).
        OSError: the store cannot be read.
    """
    with store_access("output.path", store.path, "read"):
        lease, parts = read_lease(store), parts_of(store)
    if parts:
        return _status_of_parts(store, parts)
    held = lease is not None and lease.is_held(time.time())
    holder = lease.holder if held and lease is not None else None
    if held and read_job(store) is None:
        return {**NOTHING, "state": STARTING, "holder": holder, "output": store.path}
    labeled = open_labeled(store)
    commits, failures = labeled.commits, read_failures(store)
    runs = read_runs(store, newest=1)
    last = runs[-1] if runs else None
    state = _state(last, lease, held)
    run = None if last is None else _run_summary(last, commits, is_running=state == RUNNING)
    return {
        "state": state,
        "documents": sum(commit.documents for commit in commits),
        "labeled": sum(commit.labeled for commit in commits),
        "rejected": sum(commit.rejected for commit in commits),
        "units": sum(bool(commit.pieces) for commit in commits),
        "units_failed": len(failures),
        "failed": [str(failure) for failure in failures[:MAX_LISTED]],
        "labels": {name: labels_of(commits, name) for name in labeled.columns.by_model()}
        if len(labeled.columns.by_model()) > 1
        else labels_of(commits),
        "holder": holder,
        "run": None if state == STARTING else run,
        "previous_run": run if state == STARTING else None,
        "joined": "join" in labeled.record,
        "parts": {},
        "output": labeled.path,
    }


def _status_of_parts(store: Store, parts: Sequence[InputPart]) -> dict[str, Any]:
    """As status; a part whose folder holds nothing is NOT_STARTED.

    Raises:
        UserError: parts were labeled with different settings, or one is in the folder of another.
    """
    found: dict[str, dict[str, Any]] = {}
    first: Labeled | None = None
    for part in parts:
        one = store_of_part(store, part)
        record = read_job(one)
        lease = read_lease(one)
        if record is None and not (lease is not None and lease.is_held(time.time())):
            found[part.name] = {**NOTHING, "state": NOT_STARTED, "output": one.path}
            continue
        found[part.name] = status(one)
        if record is not None:
            labeled = Labeled(one, record, Ledger())
            first = first or labeled
            check_recorded_as(labeled, part)
            check_alike(first, labeled)
    statuses = list(found.values())
    states = {INCOMPLETE if one["state"] == NOT_STARTED else one["state"] for one in statuses}
    return {
        **NOTHING,
        "state": min(states, key=STATES.index),
        **{key: sum(one[key] for one in statuses) for key in COUNTS},
        "failed": [line for one in statuses for line in one["failed"]][:MAX_LISTED],
        "labels": _sum_of_labels([one["labels"] for one in statuses]),
        "parts": found,
        "output": store.path,
    }


def _sum_of_labels(several: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The sums of counts by label, most frequent first; with several models by model."""
    total: dict[str, Any] = {}
    for labels in several:
        for name, count in labels.items():
            if isinstance(count, dict):
                total[name] = _sum_of_labels([total.get(name, {}), count])
            else:
                total[name] = total.get(name, 0) + count
    if any(isinstance(count, dict) for count in total.values()):
        return total
    return dict(sorted(total.items(), key=lambda item: -item[1]))


def _state(last: RunRecord | None, lease: LeaseRecord | None, held: bool) -> str:
    is_of_lease = last is not None and lease is not None and last.term == lease.term
    if held:
        return RUNNING if is_of_lease else STARTING
    if lease is not None and not lease.released and (not is_of_lease or last is None or last.outcome == RUNNING):
        return KILLED
    if last is None:
        return UNKNOWN
    return KILLED if last.outcome == RUNNING else last.outcome


def _run_summary(run: RunRecord, commits: Sequence[Commit], *, is_running: bool) -> dict[str, Any]:
    documents, rejected, units = run.documents, run.rejected, run.units
    if is_running:  # its record is put every 20 seconds only: the output's counts and its own are of one moment
        own = [commit for commit in commits if commit.run == run.run]
        documents, rejected = sum(commit.documents for commit in own), sum(commit.rejected for commit in own)
        units = len(own)
    units_rate = _recent_units_rate(run)
    left = max(run.units_planned - units, 0)
    return {
        "run": run.run,
        "started": run.started,
        "ended": run.ended,
        "last_heard_s": _age_s(run.written),
        "host": run.host,
        "message": run.message,
        "documents": documents,
        "rejected": rejected,
        "units": units,
        "units_planned": run.units_planned,
        "documents_expected": run.documents_expected,
        "units_failed": run.units_failed,
        "startup_seconds": run.labeling_from,
        "labeling_documents_per_second": run.labeling_documents_per_second,
        "seconds_left": round(left / units_rate) if is_running and units_rate else None,
        "classifiers": run.classifiers,
        "device": run.device,
        "result": run.result,
    }


def _recent_units_rate(run: RunRecord) -> float | None:
    """Units per second over the last minute of the timeline; None for fewer than two points."""
    points = run.points()
    if len(points) < 2:
        return None
    last = points[-1]
    before = next((point for point in reversed(points[:-1]) if last.seconds - point.seconds >= 60), points[0])
    return (last.units - before.units) / (last.seconds - before.seconds) if last.seconds > before.seconds else None


def _age_s(moment: str) -> int:
    return round((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())
