"""A status as people read it: printed once, or watched until the run has ended."""

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from jobs.number_format import clock, counted, number, of_about
from jobs.results.status import KILLED, STARTING
from jobs.run.result import some_mostly_rejected
from pipeline_ops.output.run_records import COMPLETE, INCOMPLETE, INTERRUPTED, RUNNING

LISTED_LABELS = 12
LISTED_FAILURES = 5
WATCH_SECONDS = 3


def print_status(found: dict[str, Any]) -> None:
    """Prints a status for people, on stderr."""
    console = Console(file=sys.stderr, highlight=False)
    for line in status_lines(found):
        console.print(Text.from_markup(line), soft_wrap=True)


def watch(look: Callable[[], dict[str, Any]], *, quiet: bool) -> dict[str, Any]:
    """Shows a status again and again until no run is at work, or Ctrl-C; returns the last one.

    It is drawn in place on a terminal; elsewhere its first lines are printed as one.

    Args:
        look: the status at the moment (status.status).
    """
    console = Console(file=sys.stderr, highlight=False, quiet=quiet)
    live = Live(console=console, auto_refresh=False, transient=True) if sys.stderr.isatty() and not quiet else None
    with live or nullcontext(), suppress(KeyboardInterrupt):  # Ctrl-C is how one leaves it; the run goes on
        while (found := look())["state"] in (STARTING, RUNNING):
            lines = [Text.from_markup(line, overflow="ellipsis") for line in status_lines(found)]
            if live is not None:
                live.update(Group(*lines), refresh=True)
            else:
                console.print("; ".join(line.plain for line in lines[:3]), markup=False, soft_wrap=True)
            time.sleep(WATCH_SECONDS)
    return found


def status_lines(found: dict[str, Any]) -> list[str]:
    """The lines of a status, with rich's markup."""
    run, previous = found["run"], found["previous_run"]
    lines = [f"{escape(found['output'])}: [bold]{found['state']}[/]", _counts(found)]
    if found["parts"]:
        return [*lines, *_part_lines(found["parts"]), *_label_lines(found)]
    if found["state"] == STARTING:
        lines.append(f"a run of {escape(found['holder'])} has committed nothing yet")
    if run is not None:
        lines += _run_lines(run, "this run" if found["state"] == RUNNING else "last run", is_running=found["state"] == RUNNING)
    if found["state"] not in (STARTING, RUNNING) and run is not None and (run["result"] or {}).get("files_mostly_rejected"):
        lines.append(escape(some_mostly_rejected(run["result"])))
    if previous is not None:
        lines += _run_lines(previous, "previous run", is_running=False)
    if found["units_failed"] and found["state"] not in (STARTING, RUNNING):
        lines += _quarantined_lines(found)
    elif found["state"] == INCOMPLETE and run is not None and (run["result"] or {}).get("files_incomplete"):
        lines.append(
            f"{counted(run['result']['files_incomplete'], 'file is', 'files are')} not labeled; `label-corpus run` continues"
        )
    if found["state"] in (INTERRUPTED, KILLED):
        labeled = of_about(found["documents"], run and run["documents_expected"])
        command = "join" if found["joined"] else "run"
        lines.append(f"{labeled} documents are labeled; `label-corpus {command}` continues")
    return lines + _label_lines(found)


def _part_lines(parts: dict[str, dict[str, Any]]) -> list[str]:
    """Of a split job: the state of each part, and the next command of one that has to go on."""
    lines = []
    for name, part in parts.items():
        left = (part["run"] or {}).get("seconds_left")
        more = "" if left is None else f", about {clock(left)} left"
        if part["state"] not in (STARTING, RUNNING, COMPLETE):
            more = f"; next: `label-corpus run` its job file, {name}.yaml, where `split` wrote it"
        lines.append(f"  {name}: [bold]{part['state']}[/], {_counts(part)}{more}")
    return lines


def _label_lines(found: dict[str, Any]) -> list[str]:
    """The most frequent labels of the only model."""
    lines, labels = [], found["labels"]
    if labels and not isinstance(next(iter(labels.values())), dict):
        total = sum(labels.values())
        shown = list(labels.items())[:LISTED_LABELS]
        lines += [f"  {count:>12,}  {count / total:6.1%}  {escape(label)}" for label, count in shown]
        if len(labels) > LISTED_LABELS:
            lines.append(f"  and {counted(len(labels) - LISTED_LABELS, 'more label')}")
    return lines


def _counts(found: dict[str, Any]) -> str:
    run = found["run"]
    documents, units = counted(found["documents"], "document"), counted(found["units"], "unit")
    if found["state"] == RUNNING and run is not None:
        documents = f"{of_about(found['documents'], run['documents_expected'])} documents"
        left = max(run["units_planned"] - run["units"], 0)
        units = f"{of_about(found['units'], found['units'] + left)} units"
    failed = f", {counted(found['units_failed'], 'unit')} quarantined" if found["units_failed"] else ""
    return f"{documents}: {found['labeled']:,} labeled, {found['rejected']:,} rejected; {units}{failed}"


def _quarantined_lines(found: dict[str, Any]) -> list[str]:
    """The first quarantined files, why they are, and the next command."""
    lines = [f"quarantined: {escape(line)}" for line in found["failed"][:LISTED_FAILURES]]
    if found["units_failed"] > len(lines):
        lines.append(f"and {counted(found['units_failed'] - len(lines), 'more quarantined unit')}")
    return [
        *lines,
        "`label-corpus run` goes on once they are mended or removed; `run --retry-failed` tries them as they are",
    ]


def _run_lines(run: dict[str, Any], name: str, *, is_running: bool) -> list[str]:
    parts = [counted(run["documents"], "document")]
    if run["labeling_documents_per_second"] is not None:
        parts.append(f"{number(run['labeling_documents_per_second'])} documents/s")
    if run["startup_seconds"] is not None:
        parts.append(f"start-up {clock(run['startup_seconds'])}")
    if run["seconds_left"] is not None:
        parts.append(f"about {clock(run['seconds_left'])} left")
    when = f"last heard of {run['last_heard_s']:,} s ago" if is_running or not run["ended"] else f"ended {run['ended']}"
    message = f": {escape(run['message'])}" if run["message"] else ""
    return [
        f"{name}: {', '.join(parts)}",
        f"  {run['run']} on {escape(run['host'])}, started {run['started']}, {when}{message}",
    ]
