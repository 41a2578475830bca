"""Charts of the report's evaluation section, each an <svg> element.

Confusion matrix, reliability diagram, accuracy by coverage, threshold sweep.
"""

from typing import Any

from jobs.report.svg import GRID, INK, MUTED, SERIES, axes_of, figure, label_text, to_svg

MAX_NUMBERED = 20  # labels; larger matrices have no numbers in their cells
LABELS_HEIGHT = 456  # points; height of all labels along a side of MAX_SIDE
MAX_SIDE = 11.5  # inches
MIN_OPACITY, MAX_OPACITY = 0.08, 0.85  # cells that are not 0 stay visible, numbers in them legible


def confusion_chart(confusion: dict[str, Any]) -> str:
    """A confusion matrix, true labels as rows; a cell's opacity is its share of the row."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    names, matrix = [label_text(name) for name in confusion["labels"]], confusion["matrix"]
    size = len(names)
    side = min(2.6 + 0.42 * size, MAX_SIDE)
    drawn = figure(side + 0.6, side)
    axes = axes_of(drawn)
    cells, opacity = [], []
    for row, counts in enumerate(matrix):
        row_sum = sum(counts)
        for column, count in enumerate(counts):
            if not count:
                continue
            cells.append(Rectangle((column - 0.5, row - 0.5), 1, 1))
            opacity.append(MIN_OPACITY + (MAX_OPACITY - MIN_OPACITY) * count / row_sum)
            if size <= MAX_NUMBERED:
                axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=9 if size <= 12 else 7, color=INK)
    axes.add_collection(PatchCollection(cells, facecolor=SERIES[0], alpha=opacity, edgecolor="none"))
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), xlabel="label", ylabel="truth", aspect="equal")
    font = 9 if size <= MAX_NUMBERED else max(LABELS_HEIGHT / size, 3)
    axes.set_xticks(range(size), names, rotation=90 if size > 3 else 0, fontsize=font)
    axes.set_yticks(range(size), names, fontsize=font)
    axes.tick_params(length=0)
    axes.spines[["top", "right"]].set_visible(True)
    for place in range(1, size):
        axes.axhline(place - 0.5, color=GRID, linewidth=0.4)
        axes.axvline(place - 0.5, color=GRID, linewidth=0.4)
    return to_svg(drawn, f"Confusion of {size} labels: truth by row, label by column")


def calibration_chart(calibration: dict[str, Any]) -> str:
    """A reliability diagram (accuracy by score), above a histogram of the scores."""
    import matplotlib

    bins = [one for one in calibration["bins"] if one["count"]]
    width = 1 / len(calibration["bins"])
    drawn = figure(5.2, 5.0)
    with matplotlib.rc_context({"axes.edgecolor": GRID}):
        upper, lower = drawn.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=MUTED)
        axes.set_axisbelow(True)
        axes.grid(axis="y", color=GRID)
    upper.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    upper.plot(
        [one["mean_score"] for one in bins], [one["accuracy"] for one in bins], color=SERIES[0], marker="o", markersize=4
    )
    upper.set(xlim=(0, 1), ylim=(0, 1.02))
    upper.set_ylabel("accuracy", color=MUTED)
    lower.bar([(one["from"] + one["to"]) / 2 for one in bins], [one["count"] for one in bins], width * 0.9, color=SERIES[0])
    lower.set_xlabel("score", color=MUTED)
    lower.set_ylabel("count", color=MUTED)
    lower.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return to_svg(drawn, "Reliability diagram: accuracy by score, and the number of scores")


def accuracy_coverage_chart(selective: dict[str, Any]) -> str:
    """Accuracy of the kept labels over coverage, the share of documents that keep their label."""
    drawn = figure(6.4, 3.2)
    axes = axes_of(drawn)
    curve, suggested = selective["curve"], selective["suggested"]
    axes.plot([one["coverage"] for one in curve], [one["accuracy"] for one in curve], color=SERIES[0], linewidth=1.6)
    if suggested:
        axes.axvline(suggested["coverage"], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    lowest = min(one["accuracy"] for one in curve)
    axes.set(xlim=(0, 1), ylim=(max(lowest - 0.05, 0), 1.005), xlabel="coverage: share of labels kept", ylabel="accuracy")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(axis="y", color=GRID)
    return to_svg(drawn, "Accuracy of the kept labels by coverage")


def threshold_chart(sweep: dict[str, Any]) -> str:
    """Precision, recall and F1 over a threshold shared by all labels."""
    drawn = figure(6.4, 3.6)
    axes = axes_of(drawn)
    across = [one["threshold"] for one in sweep["overall"]]
    lines = {"precision": "precision", "recall": "recall", "micro_f1": "micro F1", "macro_f1": "macro F1"}
    for color, (key, name) in zip(SERIES, lines.items(), strict=False):
        axes.plot(across, [one[key] for one in sweep["overall"]], color=color, label=name, linewidth=1.6)
    axes.axvline(sweep["best_overall"], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="threshold, the same for all labels")
    axes.grid(axis="y", color=GRID)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4, frameon=False, labelcolor=INK)
    return to_svg(drawn, "Precision, recall and F1 by threshold")
