"""The HTML page of `label-corpus compare --html`."""

from pathlib import Path
from typing import Any

from cluster.session import secret_values
from jobs.report.html import render
from jobs.report.svg import ACCENT, GRID, INK, axes_of, figure, label_text, to_svg
from jobs.results.comparison_tables import (
    TRUTH_COLUMNS,
    agreement_lines,
    flows_title,
    headlines,
    labels_title,
    truth_lines,
    truth_title,
)
from pipeline_ops.schema.errors import UserError

MAX_CHART_LABELS = 16  # rows and columns of the chart


def write_page(result: dict[str, Any], path: str) -> None:
    """Write the page of a comparison to a local file.

    Args:
        result: as compare() returns it.

    Raises:
        UserError: the file cannot be written.
    """
    page = comparison_page(result)
    try:
        Path(path).expanduser().write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--html: {path!r} cannot be written: {error.strerror}; give a file in an existing folder") from error


def comparison_page(result: dict[str, Any]) -> str:
    return render(
        "compare.html.j2",
        secret_values(),
        result=result,
        headlines=headlines(result),
        agreement=agreement_lines(result),
        truth=truth_lines(result),
        truth_title=truth_title(result) if "truth" in result else "",
        truth_columns=TRUTH_COLUMNS,
        flows_title=flows_title(result) if result.get("flows") else "",
        labels_title=labels_title(result) if result.get("labels") else "",
        flow_chart=_flow_chart(result) if result.get("flows") else None,
    )


def _flow_chart(result: dict[str, Any]) -> str:
    """A matrix of the most frequent changes, A's label by B's; a cell's opacity is its share of A's label."""
    rows = _distinct(flow["a"] for flow in result["flows"])
    columns = _distinct(flow["b"] for flow in result["flows"])
    drawn = figure(7.2, 1.6 + 0.3 * len(rows))
    axes = axes_of(drawn)
    most = max(flow["share"] for flow in result["flows"])
    for flow in result["flows"]:
        if flow["a"] in rows and flow["b"] in columns:
            x, y = columns.index(flow["b"]), rows.index(flow["a"])
            alpha = 0.12 + 0.48 * flow["share"] / most  # numbers stay legible
            axes.add_patch(_cell(x, y, alpha))
            axes.text(x, y, f"{flow['documents']:,}", ha="center", va="center", color=INK, fontsize=8)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks(range(len(columns)), [label_text(name) for name in columns], rotation=40, ha="right")
    axes.set_yticks(range(len(rows)), [label_text(name) for name in rows])
    axes.set_xticks([place - 0.5 for place in range(1, len(columns))], minor=True)
    axes.set_yticks([place - 0.5 for place in range(1, len(rows))], minor=True)
    axes.grid(which="minor", color=GRID)
    axes.tick_params(which="both", length=0)
    axes.set_xlabel("label in B")
    axes.set_ylabel("label in A")
    return to_svg(drawn, "Changed labels: documents by their label in A and in B")


def _cell(x: int, y: int, alpha: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=ACCENT, alpha=alpha, linewidth=0)


def _distinct(names: Any) -> list[str]:
    return list(dict.fromkeys(names))[:MAX_CHART_LABELS]
