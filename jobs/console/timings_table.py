"""Where the time of a run went, on stderr, for `run --timings`: tables for people, one JSON line for machines."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from jobs.console.json_logging import LOGGER, is_json
from jobs.timings.processes import SAMPLE_SECONDS
from jobs.timings.timings import FIRST_UNIT, ONE_START, PLANNING, Timings
from pipeline_ops.output.lease import LeaseError
from pipeline_ops.schema.errors import UserError

WIDTH = 120  # where stderr is no terminal
LEAST_CPU = 0.01  # seconds of a process that is shown
BEGIN = f"from the start of the command; the run's own seconds begin with '{PLANNING}'"
ONE_PROCESS = "phases follow each other; so do the stages below one of them, in one process that started in an earlier phase"
STAGES = "phases follow each other; the stages below one of them work in processes of their own, partly at the same time"
SAMPLED = f"processes are looked at every {SAMPLE_SECONDS} s until the first commit; one that lives shorter may be missing"
NOT_SAMPLED = "the CPU of other processes is measured on Linux only"
ON_CLUSTER = "the stages' processes belong to a Ray that this command has not started: they and other nodes' are not counted"


@contextmanager
def shown_timings(timings: Timings, *, quiet: bool) -> Iterator[Timings]:
    """Measures the block and shows its timings, also those of a run that fails; a user's mistake keeps its one line.

    Args:
        quiet: measures only.
    """
    try:
        with timings:
            yield timings
    except (UserError, LeaseError):
        raise
    except BaseException:
        _show(timings, quiet=quiet)
        raise
    _show(timings, quiet=quiet)


def _show(timings: Timings, *, quiet: bool) -> None:
    if quiet:
        return
    found = timings.to_dict()
    if is_json():
        LOGGER.info("where the time of the run went", extra={"facts": {"event": "timings", **found}})
        return
    console = Console(file=sys.stderr, highlight=False, markup=False, width=None if sys.stderr.isatty() else WIDTH)
    console.print("", _phases(found), "", sep="\n")
    if found["processes"] is not None:
        console.print(_processes(found["processes"]), "", sep="\n")
    in_one_process = any(span["name"] == ONE_START for span in found["first_unit"])
    notes = [
        BEGIN,
        *[ONE_PROCESS if in_one_process else STAGES] * bool(found["first_unit"]),
        NOT_SAMPLED if found["processes"] is None else SAMPLED,
        *[ON_CLUSTER] * timings.on_cluster,
    ]
    for note in notes:
        console.print(f"- {note}", soft_wrap=True)


def _phases(found: Mapping[str, Any]) -> Table:
    table = _table("phase", "from, s", "seconds", "CPU s, own", "CPU s, all")
    before: list[Mapping[str, Any]] = []
    for phase in found["phases"]:
        if before and phase["began"] == found["first_commit"]:
            _add_sum(table, "first commit", before)
        before.append(phase)
        _add_span(table, phase["name"], phase, phase["driver_cpu_seconds"], phase["cpu_seconds"])
        if phase["name"] == FIRST_UNIT:
            for span in found["first_unit"]:
                _add_span(table, f"  {span['name']}", span, span["cpu_seconds"])
    _add_sum(table, "in all", before)
    return table


def _processes(found: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("process", "number", "from, s", "CPU s, 1st commit", "CPU s, all")
    for process in sorted(found, key=lambda process: -process["cpu_seconds"]):
        numbers = (process[name] for name in ("began", "cpu_seconds_to_first_commit", "cpu_seconds"))
        if process["cpu_seconds"] < LEAST_CPU:
            continue
        table.add_row(process["name"], str(process["processes"]), *map(_seconds, numbers))
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)  # with edges, 80 columns are too few
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right")
    return table


def _add_span(table: Table, name: str, span: Mapping[str, Any], *cpu_seconds: float | None) -> None:
    table.add_row(name, *map(_seconds, (span["began"], span["seconds"], *cpu_seconds)))


def _add_sum(table: Table, name: str, phases: Sequence[Mapping[str, Any]]) -> None:
    sums = {
        column: None if phases[0][column] is None else sum(phase[column] for phase in phases)
        for column in ("seconds", "driver_cpu_seconds", "cpu_seconds")
    }
    table.add_section()
    table.add_row(name, "", *map(_seconds, sums.values()))
    table.add_section()


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
