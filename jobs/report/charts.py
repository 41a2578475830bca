"""Charts of the report: numbers in, an <svg> element out, in the colors of svg.py."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jobs.report.svg import ACCENT, GRID, INK, MUTED, SERIES, axes_of, figure, label_text, to_svg
from pipeline_ops.output.run_records import Point

WIDTH = 8.6  # inches
BARS = 24
THROUGHPUT_BINS = 60


def bars(counts: dict[str, int], title: str) -> str:
    """A bar per name with its count and share, in the order given; names beyond BARS are summed up in one."""
    drawn_counts = dict(list(counts.items())[:BARS])
    total = sum(counts.values())
    rest = total - sum(drawn_counts.values())
    names, values = [label_text(name) for name in drawn_counts], list(drawn_counts.values())
    if rest:
        names.append(f"{len(counts) - BARS:,} others")
        values.append(rest)
    drawn = figure(WIDTH, 0.45 + 0.26 * len(names))
    axes = axes_of(drawn)
    places = np.arange(len(names))[::-1]
    axes.barh(places, values, color=[ACCENT] * len(drawn_counts) + [GRID] * (len(names) - len(drawn_counts)), height=0.7)
    for place, value in zip(places, values, strict=True):
        offset = {"xytext": (5, 0), "textcoords": "offset points", "va": "center", "color": MUTED, "fontsize": 9}
        axes.annotate(f"{value:,} · {value / total:.1%}", (value, place), **offset)
    axes.set_yticks(places, names)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_xlim(0, max([*values, 1]) * 1.22)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    return to_svg(drawn, title)


def score_histograms(scores: dict[str, tuple[np.ndarray, np.ndarray]], limits: tuple[float, float], title: str) -> str:
    """A histogram of scores per label, each scaled to the same height.

    Args:
        scores: {label: (scores, weights)}, float64 (rows,) each.
        limits: of the score axis, which all histograms share.
    """
    columns = min(3, len(scores))
    lines = -(-len(scores) // columns)
    drawn = figure(WIDTH, 0.3 + 1.25 * lines)
    edges = np.linspace(*limits, 41)
    grid = axes_of(drawn, nrows=lines, ncols=columns, sharex=True, squeeze=False).ravel()
    for axes, (label, (values, weights)) in zip(grid, scores.items(), strict=False):
        counts, _ = np.histogram(np.clip(values, *limits), edges, weights=weights)
        axes.stairs(counts / max(counts.max(), 1e-9), edges, fill=True, color=ACCENT)
        axes.set_title(label_text(label), loc="left", fontsize=9)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlim(*limits)
    for axes in grid[len(scores) :]:
        axes.set_visible(False)
    for axes in grid[max(len(scores) - columns, 0) : len(scores)]:  # the lowest of each column
        axes.tick_params(labelbottom=True)
    return to_svg(drawn, title)


def certainty_curve(scores: np.ndarray, weights: np.ndarray, title: str) -> str:
    """Share of documents with a score below x, and expected share of wrong ones among all, if scores are calibrated."""
    order = np.argsort(scores)
    values, shares = scores[order], weights[order] / weights.sum()
    below, wrong = np.cumsum(shares), np.cumsum(shares * (1 - values))
    keep = np.unique(np.linspace(0, len(values) - 1, 200).astype(int))
    drawn = figure(WIDTH, 2.6)
    axes = axes_of(drawn)
    axes.plot(values[keep], below[keep], color=ACCENT, label="share of documents with a lower score")
    axes.plot(values[keep], wrong[keep], color=SERIES[1], label="expected to be wrong among these")
    axes.fill_between(values[keep], wrong[keep], color=SERIES[1], alpha=0.25, linewidth=0)
    axes.set_xlabel("score")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_ylim(0, 1.02)
    axes.grid(axis="y")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=9, labelcolor="linecolor", frameon=False)
    return to_svg(drawn, title)


def token_lengths(lengths: np.ndarray, weights: np.ndarray, max_length: int | None, title: str) -> str:
    """Histogram of tokens per document, with a line at max_length, where longer ones are truncated; None: no line."""
    top = max(int(lengths.max(initial=1)), 1)
    edges = np.linspace(0, top, min(48, top) + 1)
    counts, _ = np.histogram(lengths, edges, weights=weights)
    drawn = figure(WIDTH, 2.4)
    axes = axes_of(drawn)
    axes.stairs(counts / max(counts.sum(), 1e-9), edges, fill=True, color=ACCENT)
    if max_length is not None and max_length <= top * 1.5:
        axes.axvline(max_length, color=SERIES[1], linewidth=1.5, linestyle="--")
        axes.text(
            max_length,
            1.0,
            f"max_length {max_length:,} ",
            color=SERIES[1],
            ha="right",
            va="top",
            fontsize=9,
            transform=axes.get_xaxis_transform(),
        )
    axes.set_xlabel("tokens of a document")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(axis="y")
    return to_svg(drawn, title)


def throughput(points: Sequence[Point], title: str) -> str:
    """Documents per second over a run, and the cumulative number of documents."""
    seconds = np.array([point.seconds for point in points])
    documents = np.array([point.documents for point in points], float)
    drawn = figure(WIDTH, 2.5)
    axes = axes_of(drawn)
    # with many commits, average over windows of several: the rate from one commit to the next is noise
    edges = np.unique(seconds) if len(points) <= THROUGHPUT_BINS else np.linspace(seconds[0], seconds[-1], THROUGHPUT_BINS + 1)
    done = np.interp(edges, seconds, documents)
    axes.stairs(np.diff(done) / np.diff(edges), edges, fill=True, color=ACCENT, alpha=0.85)
    axes.set_ylabel("documents/s", color=ACCENT)
    axes.set_xlabel("seconds since the run began")
    axes.set_xlim(0, seconds[-1])
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")
    total = axes.twinx()
    total.plot(seconds, documents, color=SERIES[1], linewidth=1.5)
    total.set_ylim(bottom=0)
    total.set_ylabel("documents", color=SERIES[1])
    total.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    total.tick_params(colors=MUTED, length=0)
    total.spines[:].set_visible(False)
    return to_svg(drawn, title)


def stacked(rows: dict[str, dict[str, float]], title: str) -> str:
    """One bar per row, divided into its parts by their share of the row's seconds.

    Args:
        rows: {row: {part: seconds}}.
    """
    parts = list(dict.fromkeys(part for row in rows.values() for part in row))
    colors = dict(zip(parts, (ACCENT, *SERIES[1:]), strict=False))
    drawn = figure(WIDTH, 0.75 + 0.42 * len(rows))
    axes = axes_of(drawn)
    for place, row in zip(range(len(rows))[::-1], rows.values(), strict=True):
        total, left = sum(row.values()), 0.0
        for part, spent in row.items():
            share = spent / total if total else 0.0
            axes.barh(place, share, left=left, color=colors[part], height=0.6, label=part)
            if share > 0.12:
                axes.text(left + share / 2, place, f"{part} {share:.0%}", ha="center", va="center", fontsize=9, color=INK)
            left += share
        axes.text(1.005, place, f"{total:,.0f} s", va="center", fontsize=9, color=MUTED)
    axes.set_yticks(range(len(rows))[::-1], list(rows))
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_xlim(0, 1.1)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    handles: dict[str, Any] = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    drawn.legend(
        handles.values(),
        handles,
        loc="outside lower center",
        ncols=max(len(handles), 1),
        fontsize=9,
        labelcolor=MUTED,
        frameon=False,
    )
    return to_svg(drawn, title)
