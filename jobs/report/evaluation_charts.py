"""The report's pictures of an evaluation: confusion, calibration, thresholds; each an <svg> element in the page's colors."""

from typing import Any

from jobs.report.svg import GRID, INK, MUTED, SERIES, axes_of, figure, to_svg

MAX_NUMBERED = 20  # labels up to which cells hold their number
MAX_LABEL = 28  # characters
LABELS_HEIGHT = 456  # points that all labels together may take beside a side of MAX_SIDE
MAX_SIDE = 11.5  # inches
FAINTEST, FULL = 0.08, 0.85  # opacity of a cell: what is not 0 is seen, and a number in it can be read


def confusion_picture(confusion: dict[str, Any]) -> str:
    """Rows are truths; a cell is the fuller the larger its share of the row."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    names, matrix = [_cut(name) for name in confusion["labels"]], confusion["matrix"]
    size = len(names)
    side = min(2.6 + 0.42 * size, MAX_SIDE)
    drawn = figure(side + 0.6, side)
    axes = axes_of(drawn)
    cells, opacity = [], []
    for row, counts in enumerate(matrix):
        whole = sum(counts)
        for column, count in enumerate(counts):
            if not count:
                continue
            cells.append(Rectangle((column - 0.5, row - 0.5), 1, 1))
            opacity.append(FAINTEST + (FULL - FAINTEST) * count / whole)
            if size <= MAX_NUMBERED:
                axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=9 if size <= 12 else 7, color=INK)
    axes.add_collection(PatchCollection(cells, facecolor=SERIES[0], alpha=opacity, edgecolor="none"))
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), xlabel="labeled as", ylabel="truth", aspect="equal")
    font = 9 if size <= MAX_NUMBERED else max(LABELS_HEIGHT / size, 3)
    axes.set_xticks(range(size), names, rotation=90 if size > 3 else 0, fontsize=font)
    axes.set_yticks(range(size), names, fontsize=font)
    axes.tick_params(length=0)
    axes.spines[["top", "right"]].set_visible(True)
    for place in range(1, size):
        axes.axhline(place - 0.5, color=GRID, linewidth=0.4)
        axes.axvline(place - 0.5, color=GRID, linewidth=0.4)
    return to_svg(drawn, f"Confusion of {size} labels: truth by row, label by column")


def calibration_picture(calibration: dict[str, Any]) -> str:
    """How often scores are right, above how many there are."""
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
    upper.set_ylabel("share that is right", color=MUTED)
    lower.bar([(one["from"] + one["to"]) / 2 for one in bins], [one["count"] for one in bins], width * 0.9, color=SERIES[0])
    lower.set_xlabel("score", color=MUTED)
    lower.set_ylabel("count", color=MUTED)
    lower.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    return to_svg(drawn, "Reliability: the share of right labels by score, and how many there are")


def sweep_picture(sweep: dict[str, Any]) -> str:
    """Precision, recall and F1 over one threshold for all labels."""
    drawn = figure(6.4, 3.6)
    axes = axes_of(drawn)
    across = [one["threshold"] for one in sweep["overall"]]
    lines = {"precision": "precision", "recall": "recall", "micro_f1": "micro F1", "macro_f1": "macro F1"}
    for color, (key, name) in zip(SERIES, lines.items(), strict=False):
        axes.plot(across, [one[key] for one in sweep["overall"]], color=color, label=name, linewidth=1.6)
    axes.axvline(sweep["best_overall"], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="one threshold for all labels")
    axes.grid(axis="y", color=GRID)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4, frameon=False, labelcolor=INK)
    return to_svg(drawn, "Precision, recall and F1 by threshold")


def _cut(text: str) -> str:
    # a dollar begins a formula in matplotlib
    plain = "".join(character if character.isprintable() else "�" for character in text).replace("$", r"\$")
    return plain if len(plain) <= MAX_LABEL else plain[: MAX_LABEL - 1] + "…"
