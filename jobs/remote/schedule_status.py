"""The records of a schedule and the health of its scheduler: `schedule --list` and `--health`."""

import sys
from datetime import UTC, datetime
from typing import Any

from jobs.config import JobConfig
from pipeline_ops.output import schedule_records
from pipeline_ops.output.schedule_records import Tick, tick_time
from pipeline_ops.schema.errors import store_access
from pipeline_ops.schema.units import iso

STALE_S = 300  # of five heartbeats, four may wait while a working_dir is uploaded
LISTED_TICKS = 100
WIDTH = 160  # of a table in a file, which rich takes to be 80 wide


def health(job: JobConfig) -> dict[str, Any]:
    """Whether a scheduler of the job's output has had a recent heartbeat.

    Raises:
        UserError: the output cannot be read.
    """
    store = job.output_store
    with store_access("output.path", store.path, "read"):
        found = schedule_records.read_health(store)
    if found is None:
        reason = "no scheduler has ever run for this output"
        return {"healthy": False, "reason": reason, "age_s": None, "heartbeat": None, "output": store.path}
    age_s = round((datetime.now(UTC) - datetime.fromisoformat(found["at"])).total_seconds())
    who, reason = f"{found['host']}, process {found['pid']}", None
    if found["ended"]:
        reason = f"the last scheduler, {who}, was stopped at {found['ended']}"
    elif age_s > STALE_S:
        reason = f"the last scheduler, {who}, has had no heartbeat for {age_s} s; start it again"
    return {"healthy": reason is None, "reason": reason, "age_s": age_s, "heartbeat": found, "output": store.path}


def history(job: JobConfig) -> dict[str, Any]:
    """The newest ticks, oldest first, and the scheduler's health; raises as health()."""
    store = job.output_store
    with store_access("output.path", store.path, "read"):
        known = schedule_records.read_ticks(store, LISTED_TICKS)
    return {"ticks": [describe(tick) for tick in known], **health(job)}


def describe(tick: Tick) -> dict[str, Any]:
    """A tick as the JSON line has it. `outcome` is null while the run goes on, and for a tick that was skipped."""
    decision, ending = tick.decision, tick.ending
    return {
        "tick": iso(tick_time(tick.name)),
        "decision": "submit" if decision.submission_id else "skip",
        "reason": decision.reason,
        "missed_after": iso(tick_time(decision.missed_after)) if decision.missed_after else None,
        "by": decision.by,
        "at": decision.at,
        "submission_id": decision.submission_id,
        "submitted": tick.submitted,
        "outcome": ending.status if ending else None,
        "exit_code": ending.exit_code if ending else None,
        "message": ending.message if ending else None,
        "ended": ending.ended if ending else None,
    }


def print_history(found: dict[str, Any]) -> None:
    """Prints a history for people, on stderr."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    if not found["ticks"]:
        print("no tick has been decided yet", file=sys.stderr)
        print_health(found)
        return
    table = Table(Column("tick", no_wrap=True), "run", "outcome")
    for tick in found["ticks"]:
        outcome = tick["outcome"] or ("goes on" if tick["submitted"] else "to be submitted")
        code = "" if tick["exit_code"] is None else f", exit code {tick['exit_code']}"
        message = f": {tick['message']}" if tick["message"] and tick["outcome"] != "SUCCEEDED" else ""
        missed = f"; none since {tick['missed_after']}" if tick["missed_after"] else ""
        is_run = tick["decision"] == "submit"
        what = f"{outcome}{code}{message}" if is_run else f"skipped: {tick['reason']}"
        table.add_row(tick["tick"], tick["submission_id"] or "", escape(what + missed))
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        console.width = max(console.width, WIDTH)
    console.print(table)
    print_health(found)


def print_health(found: dict[str, Any]) -> None:
    """Prints a scheduler's health in a line on stderr."""
    if found["healthy"]:
        beat = found["heartbeat"]
        trouble = f"; {beat['trouble']}" if beat["trouble"] else ""
        print(
            f"{beat['host']}, process {beat['pid']}, {found['age_s']} s ago; next {beat['next'] or 'never'}{trouble}",
            file=sys.stderr,
        )
    else:
        print(f"label-corpus: {found['reason']}", file=sys.stderr)
