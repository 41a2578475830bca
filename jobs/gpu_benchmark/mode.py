"""`benchmark --gpu` as a command runs it: the phases, a line for each finding, a file, a table and what follows from it."""

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobs.gpu_benchmark.conclude import best_of, conclude
from jobs.gpu_benchmark.runner import Line, chosen_phases, run_phases

FILE = "benchmark-gpu.json"
LIMIT_SECONDS = 500.0
FILE_WIDTH = 150  # columns of the tables where stderr is no terminal


def measure(*, only: Sequence[str] | None, tiny: bool, limit: float, output: str | None) -> dict[str, Any]:
    """Runs the phases; prints each line on stdout as it comes, and keeps `output`/benchmark-gpu.json as far as they are.

    Args:
        only: names of phases; None: all.
        tiny: a rehearsal, without a GPU too.
        limit: seconds for all.

    Returns:
        mode, tiny, ok (all phases are done, and no check has failed), phases (each with phase, status, seconds, findings, best,
        and error), conclusions (of conclude.Conclusion), rows (the findings, each with its phase).

    Raises:
        UserError: no such phase; no GPU.
    """
    phases = chosen_phases(only)
    lines: list[Line] = []
    if output:
        os.makedirs(output, exist_ok=True)

    def on_line(line: Line) -> None:
        lines.append(line)
        print(json.dumps(line), flush=True)
        if output and line.get("status") not in (None, "begun"):
            save(result_of(lines, tiny), output)

    run_phases(phases, tiny=tiny, limit=limit, on_line=on_line)
    return result_of(lines, tiny)


def result_of(lines: Sequence[Line], tiny: bool) -> dict[str, Any]:
    """The result by the lines so far; see measure()."""
    rows = [line for line in lines if "status" not in line]
    ends = [line for line in lines if line.get("status") not in (None, "begun")]
    found = Counter(row["phase"] for row in rows)
    phases = [{**end, "findings": found[end["phase"]], "best": best_of(rows, end["phase"])} for end in ends]
    conclusions = [asdict(one) for one in conclude(rows)]  # of a rehearsal as well, to rehearse it
    return {
        "mode": "gpu",
        "tiny": tiny,
        "ok": all(end["status"] == "done" for end in ends) and all(row.get("ok", True) for row in rows),
        "phases": phases,
        "conclusions": [] if tiny else conclusions,
        "rows": rows,
    }


def save(result: dict[str, Any], folder: str) -> None:
    Path(folder, FILE).write_text(json.dumps(result, indent=1), encoding="utf-8")


def summary_of(result: dict[str, Any]) -> dict[str, Any]:
    """The result without the rows, which have been printed, a line each."""
    return {key: value for key, value in result.items() if key != "rows"}


def print_result(result: dict[str, Any]) -> None:
    """The phases and the conclusions, as tables on stderr."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    width = None if sys.stderr.isatty() else FILE_WIDTH
    console = Console(file=sys.stderr, highlight=False, markup=False, width=width)  # markup would take a shape such as [1, 1]
    title = "a rehearsal, whose numbers say nothing of a GPU" if result["tiny"] else "benchmark --gpu"
    phases = Table("phase", "status", "seconds", "findings", "best, or why not", title=title, box=box.SIMPLE)
    for phase in result["phases"]:
        seconds = phase.get("seconds")
        cells = (phase["phase"], phase["status"], "" if seconds is None else f"{seconds:g}", str(phase["findings"]))
        phases.add_row(*cells, phase.get("error", phase["best"]))
    console.print(phases)
    if not result["conclusions"]:
        console.print(
            "From a rehearsal nothing follows." if result["tiny"] else "No phase has found what a conclusion follows from."
        )
        return
    conclusions = Table("where", "what", "is", "to be", "because", title="conclusions", box=box.SIMPLE)
    for one in sorted(result["conclusions"], key=lambda one: one["old"] == one["new"]):
        new = "the same" if one["old"] == one["new"] else str(one["new"])
        conclusions.add_row(one["place"], one["name"], str(one["old"]), new, one["because"])
    console.print(conclusions)
