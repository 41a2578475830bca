"""Rates, medians and ratios of a benchmark; the table on stderr, the plot, the JSON file."""

import json
import os
import sys
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

from jobs.number_format import number, percent

LIMIT, TOKENIZER = "limit", "tokenizer"  # the bare loops
JOB, ON_RAY = "job", "job-on-ray"
WARM_SHARE = 0.25  # of the steps: a later stage's slow start holds back what is done already
HOST_WARM_SHARE = 0.5  # where classifiers take no time, all that was tokenized while they started is done when they have


def steady_rate(documents: int, stamps: list[float], workers: int, warm_share: float = WARM_SHARE) -> float | None:
    """Documents/s once everything runs, too low rather than too high.

    A step is what becomes known at once: a unit's commit, a batch. The first steps, at least one per worker, are warming up.
    The window reaches from the last of them to the end of the very last step, so it holds the emptying at the end, when some
    workers have nothing left. When it opens, each of the other workers may be nearly done with a step; so workers - 1 of the
    steps that end in the window do not count: the rate is too low by up to (workers - 1) / steps. What was done before the
    window opened but reported only in it, because a later stage had still to start, would count: the warming up is so long to
    leave that behind.

    Args:
        documents: in all steps, which are about equal.
        stamps: when each step ended, in seconds, ascending.
        workers: that are at work on a step each at the same time.
        warm_share: of the steps, that are warming up.

    Returns:
        None when there are too few steps.
    """
    start = steady_start(len(stamps), workers, warm_share)
    counted = len(stamps) - 1 - start - (workers - 1)
    if counted <= 0 or stamps[-1] <= stamps[start]:
        return None
    return documents * counted / len(stamps) / (stamps[-1] - stamps[start])


def steady_start(steps: int, workers: int, warm_share: float = WARM_SHARE) -> int:
    """The index of the step at whose end the window opens."""
    return max(workers, ceil(steps * warm_share)) - 1


def of_run(
    documents: int,
    stamps: list[float],
    workers: int,
    seconds: float,
    all_documents: int,
    warm_share: float = WARM_SHARE,
) -> dict[str, Any]:
    """One run of a contender that starts, labels and ends: documents/s steady, and as a whole process.

    Args:
        documents, stamps, workers, warm_share: see steady_rate.
        seconds: of the process, from its command to its exit.
        all_documents: of the corpus; a slow contender labels only the first ones, and is taken to go on at its steady rate.
    """
    steady = steady_rate(documents, stamps, workers, warm_share)
    left = all_documents - documents
    if left and steady is None:
        raise ValueError(f"{documents} documents in {len(stamps)} steps are too few to go on from")
    return {
        "documents": documents,
        "seconds": seconds,
        "steps": len(stamps),
        "workers": workers,
        "steady": steady,
        "whole": all_documents / (seconds + (left / steady if steady else 0)),
    }


def medians_and_ratios(runs: dict[str, list[dict[str, Any]]], limit_name: str) -> dict[str, dict[str, Any]]:
    """Medians over the rounds, and ratios of medians, per contender.

    Args:
        runs: {contender: its runs, as of_run gives them; the limit's have no `whole`}.
        limit_name: the contender that is the limit.

    Returns:
        Per contender `steady`, `whole`: medians in documents/s, or None; `of_limit`: steady, as a share of the limit's;
        `job_steady`, `job_whole`: how many times as fast the job is; `runs`.
    """
    medians = {
        name: {key: _median([run[key] for run in done if run.get(key)]) for key in ("steady", "whole")}
        for name, done in runs.items()
    }
    job, limit = medians.get(JOB, {}), medians.get(limit_name, {})
    return {
        name: {
            **rates,
            "of_limit": _ratio(rates["steady"], limit.get("steady")),
            "job_steady": _ratio(job.get("steady"), rates["steady"]),
            "job_whole": _ratio(job.get("whole"), rates["whole"]),
            "runs": runs[name],
        }
        for name, rates in medians.items()
    }


def _median(values: list[float]) -> float | None:
    return median(values) if values else None


def _ratio(value: float | None, other: float | None) -> float | None:
    return value / other if value and other else None


def rounded(value: Any) -> Any:
    """`value` with four significant digits in every number that is no integer, as JSON takes it."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list) else value


def print_result(result: dict[str, Any]) -> None:
    """Prints the result for people, on stderr."""
    from rich.console import Console

    console = Console(file=sys.stderr, highlight=False)
    console.print({"compare": _contenders, "host-ceiling": _contenders, "scaling": _actors}[result["mode"]](result))
    for note in result["notes"]:
        console.print(f"- {note}", soft_wrap=True, markup=False)


def _contenders(result: dict[str, Any]) -> Any:
    from rich.table import Table

    corpus = result["corpus"]
    title = (
        f"{corpus['documents']:,} documents of {corpus['tokens_p50']:,} tokens (median; 90 %: {corpus['tokens_p90']:,},"
        f" most: {corpus['tokens_max']:,}), {result['dtype']}, {result['hardware']['gpu'] or result['hardware']['cpu']},"
        f" {result['hardware']['cores']} cores"
    )
    table = Table(title=title, title_style="")
    table.add_column("documents/s", no_wrap=True)
    columns = ["steady", "from - to", "of limit", "job/this", "whole process", "job/this"]
    with_bytes = result["mode"] == "host-ceiling"
    for column in columns + with_bytes * ["MB/s, steady", "whole"]:
        table.add_column(column, justify="right")
    for name, row in result["contenders"].items():
        rates = [run["steady"] for run in row["runs"] if run["steady"]]
        table.add_row(
            name,
            number(row["steady"]),
            f"{number(min(rates))} - {number(max(rates))}" if rates else "",
            percent(row["of_limit"]),
            number(row["job_steady"]),
            number(row["whole"]),
            number(row["job_whole"]),
            *(number(row[f"megabytes_per_second_{key}"]) for key in ("steady", "whole") if with_bytes),
        )
    return table


FLOW_ROWS = (  # name, key, factor, format: of a machine that is pretended
    ("tokenizers", "tokenizers", 1, number),
    ("tokenizers busy", "tokenizers_busy", 1, percent),
    ("classifiers busy", "classifiers_busy", 1, percent),
    ("units waiting for a classifier", "queued_classify", 1, number),
    ("units waiting for a writer", "queued_write", 1, number),
    ("object store, MiB", "store_bytes", 2**-20, number),
    ("of it used at most", "most_store_bytes", 2**-20, number),
    ("spilled to disk, MiB", "spilled_bytes", 2**-20, number),
)


def _actors(result: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table(title=f"classifiers that sleep, on {result['hardware']['cores']} cores; in brackets: what plan forecasts")
    rows = result["actors"]
    with_flow = "store_bytes" in rows[0]
    table.add_column("actors")
    for row in rows:
        table.add_column(str(row["actors"]), justify="right")
    for name, key, factor, shown in (
        ("units", "units", 1, number),
        ("seconds asleep per unit", "sleep_seconds", 1, number),
        ("units/s", "units_per_second", 1, number),
        ("of linear: actors / seconds asleep", "efficiency", 1, percent),
        ("these cores busy", "cores_busy", 1, percent),
        ("driver: of a core", "driver_cores", 1, percent),
        ("driver: CPU ms per unit", "driver_cpu_seconds_per_unit", 1000, number),
        ("all processes: CPU ms per unit", "machine_cpu_seconds_per_unit", 1000, number),
        ("driver's memory, MiB", "driver_bytes", 2**-20, number),
        ("objects put per unit", "puts_per_unit", 1, number),
        ("classifiers wait per unit, ms", "waiting_seconds", 1000, number),
        ("seconds, start included", "seconds", 1, number),
        ("classifiers ended within, s", "classifiers_ended_within_seconds", 1, number),
        *FLOW_ROWS * with_flow,
    ):
        cells = ["-" if row[key] is None else shown(row[key] * factor) for row in rows]
        forecasts = [f" ({shown(row['forecast'][key] * factor)})" if key in row["forecast"] else "" for row in rows]
        table.add_row(name, *map("".join, zip(cells, forecasts, strict=True)))
    return table


def save(result: dict[str, Any], folder: str) -> None:
    """Writes benchmark.json and benchmark.png into `folder`."""
    os.makedirs(folder, exist_ok=True)
    Path(folder, "benchmark.json").write_text(json.dumps(result, indent=2), encoding="utf-8")
    figure = _plot_actors(result) if result["mode"] == "scaling" else _plot_contenders(result)
    figure.savefig(os.path.join(folder, "benchmark.png"), dpi=150)


def _plot_contenders(result: dict[str, Any]) -> Any:
    from matplotlib.figure import Figure

    contenders = result["contenders"]
    figure = Figure(figsize=(11, 1.4 + 0.4 * len(contenders)), layout="constrained")
    limit = next((contenders[name]["steady"] for name in (LIMIT, TOKENIZER) if name in contenders), None)
    names = list(contenders)[::-1]
    for axes, key, title in zip(
        figure.subplots(1, 2, sharey=True), ("steady", "whole"), ("steady state", "whole process"), strict=True
    ):
        rates = [contenders[name][key] or 0 for name in names]
        bars = axes.barh(names, rates, color=["#d95f02" if name.startswith(JOB) else "#7f8fa6" for name in names])
        axes.bar_label(bars, [number(rate) if rate else "" for rate in rates], padding=3)
        spread = [[run[key] for run in contenders[name]["runs"] if run.get(key)] for name in names]
        for place, values in enumerate(spread):
            axes.plot(values, [place] * len(values), "k|", markersize=8)
        if limit:
            axes.axvline(limit, color="black", linestyle=":", linewidth=1)
        axes.set_title(title)
        axes.set_xlabel("documents/s; each run a mark" + (", dotted: the limit" if limit else ""))
        axes.margins(x=0.15)
    return figure


def _plot_actors(result: dict[str, Any]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    counts = [row["actors"] for row in result["actors"]]
    axes.plot(counts, [row["actors"] / row["sleep_seconds"] for row in result["actors"]], ":", color="black", label="linear")
    axes.plot(counts, [row["units_per_second"] for row in result["actors"]], "o-", color="#d95f02", label="job")
    axes.set_xlabel("classify actors, sleeping")
    axes.set_ylabel("units/s")
    axes.legend()
    return figure
