"""Template context of the report's evaluation section."""

from typing import Any

from jobs.number_format import percent, ratio
from jobs.report.evaluation_charts import accuracy_coverage_chart, calibration_chart, confusion_chart, threshold_chart
from jobs.results.evaluation_tables import (
    MAX_CONFUSIONS,
    METRICS,
    baseline_lines,
    estimate_lines,
    estimates_of,
    format_label,
    met_targets,
    min_score_lines,
)

MAX_LABELS = 200
NUMBERS = {"evaluated": "documents", "without_truth": "without truth", "rejected": "rejected", **METRICS}


def evaluation_context(evaluation: dict[str, Any]) -> dict[str, Any]:
    """The `evaluation` variable of evaluation.html.j2, from the content of `_report/evaluation.json`."""
    labels = sorted(evaluation.get("per_label") or [], key=lambda one: -one["support"])
    confusion, sweep = evaluation.get("confusion"), evaluation.get("sweep")
    return {
        "truth": evaluation["truth"],
        "corrections": evaluation.get("corrections"),
        "estimate_lines": estimate_lines(evaluation),
        "estimates": estimates_of(evaluation),
        "model": evaluation["model"],
        "at": evaluation["at"],
        "documents": evaluation["documents"],
        "measured": _measured(evaluation),
        "numbers": _numbers(evaluation),
        "baseline": baseline_lines(evaluation),
        "is_worse": not all(is_better for _, is_better in baseline_lines(evaluation)),
        "min_score": min_score_lines(evaluation),
        "targets": evaluation["risk_coverage"]["targets"] if met_targets(evaluation) else [],
        "charts": _charts(evaluation),
        "confusions": confusion["mistakes"][:MAX_CONFUSIONS] if confusion else [],
        "labels": labels[:MAX_LABELS],
        "more_labels": max(len(labels) - MAX_LABELS, 0),
        "thresholds": {one["label"]: one for one in sweep["per_label"]} if sweep else None,
        "mistakes": [_mistake(mistake) for mistake in evaluation["confident_mistakes"]],
        "mistakes_title": "Largest errors" if evaluation["kind"] == "value" else "Most confident mistakes",
    }


def _measured(evaluation: dict[str, Any]) -> dict[str, Any] | None:
    """The measure for the overview: its name, value, and error (a share) or None; None if nothing was evaluated."""
    if evaluation.get("reviewed"):
        estimate = evaluation["estimate"]
        accuracy = estimate and estimate["accuracy"]
        return estimate and {"name": "accuracy", "how": "estimated", "value": percent(accuracy), "error": 1 - accuracy}
    for key in ("accuracy", "subset_accuracy", "r2"):
        if (value := evaluation.get(key)) is not None:
            is_share = key != "r2"
            return {
                "name": METRICS[key],
                "how": "measured",
                "value": percent(value) if is_share else ratio(value),
                "error": 1 - value if is_share else None,
            }
    return None


def _numbers(evaluation: dict[str, Any]) -> list[tuple[str, str]]:
    keys = [key for key in NUMBERS if key != "micro_f1" or evaluation["kind"] == "multi_label"]  # else it is the accuracy
    baseline, numbers = evaluation.get("baseline") or {}, []
    for key in keys:
        if evaluation.get(key) is not None:
            numbers.append((NUMBERS[key], evaluation[key]))
            if key in baseline:
                constant = "of predicting the mean" if key == "root_mean_squared_error" else "of the majority baseline"
                numbers.append((f"{NUMBERS[key]} {constant}", baseline[key]))
    if evaluation.get("calibration"):
        numbers.append(("expected calibration error", evaluation["calibration"]["expected_calibration_error"]))
    return [(name, f"{value:,}" if isinstance(value, int) else f"{value:.4f}") for name, value in numbers]


def _charts(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    confusion, calibration, sweep = (evaluation.get(key) for key in ("confusion", "calibration", "sweep"))
    selective = evaluation.get("risk_coverage")
    charts = []
    if confusion and confusion["matrix"]:
        caption = "One row per true label; a cell's opacity is its share of the row."
        charts.append(("Confusion matrix", confusion_chart(confusion), caption))
    if calibration:
        unit = "(document, label) pairs" if evaluation["kind"] == "multi_label" else "documents"
        caption = (
            f"Reliability diagram. On the dashed line the scores are calibrated: of {unit} with score 0.8, 80 % are right."
            f" Below: the number of {unit} by score."
        )
        charts.append(("Calibration", calibration_chart(calibration), caption))
    if selective and len(selective["curve"]) > 1:
        caption = "Accuracy of the labels that a model.min_score keeps, by their share."
        caption += " Dashed: the suggested one." if selective["suggested"] else ""
        charts.append(("Accuracy by coverage", accuracy_coverage_chart(selective), caption))
    if sweep:
        caption = (
            f"The best single threshold for all labels, by micro F1, is {sweep['best_overall']:.2f} (dashed). It is chosen on"
            " these documents, so its F1 on others is likely lower."
        )
        charts.append(("Thresholds", threshold_chart(sweep), caption))
    return [{"title": title, "svg": svg, "caption": caption} for title, svg, caption in charts]


def _mistake(mistake: dict[str, Any]) -> dict[str, Any]:
    """A confident mistake with its labels and text as single lines."""
    about = mistake.get("about")
    return {
        **mistake,
        "truth": format_label(mistake["truth"]),
        "label": format_label(mistake["label"]),
        "error": about and f"{'false positive' if about in mistake['label'] else 'missing'}: {about}",
        "text": mistake["text"] and " ".join(mistake["text"].split()),
    }
