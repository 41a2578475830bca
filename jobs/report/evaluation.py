"""The report's section about an evaluation: numbers, pictures, labels, mistakes; every text of a document escaped and cut."""

from collections.abc import Collection
from typing import Any

from jobs.report.evaluation_charts import calibration_picture, confusion_picture, sweep_picture
from jobs.results.evaluation_tables import MEASURES, named
from pipeline_ops.analysis.redaction import redact

MAX_TEXT = 300  # characters of a document
MAX_LABEL = 80
MAX_LABELS = 200
MAX_CONFUSIONS = 20
FEW_LABELS = 12  # whose confusions are all read off the picture
NUMBERS = {"evaluated": "documents", "without_truth": "without truth", "rejected": "rejected", **MEASURES}


def section(evaluation: dict[str, Any], secrets: Collection[str] = ()) -> str:
    """An HTML fragment of the content of `_report/evaluation.json`; `secrets`, and what looks like one, are masked."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("jobs.report"), autoescape=True, trim_blocks=True)
    environment.filters |= {
        "share": lambda value: "" if value is None else f"{value:.3f}",
        "count": lambda value: f"{value:,}",
        "shown": lambda text: _cut(redact(str(text), secrets), MAX_LABEL),
        "cut": lambda text: _cut(redact(str(text), secrets), MAX_TEXT),
        "named": named,
    }
    labels = sorted(evaluation.get("per_label") or [], key=lambda one: -one["support"])
    confusion = evaluation.get("confusion")
    sweep = evaluation.get("sweep")
    return environment.get_template("evaluation.html.j2").render(
        truth=evaluation["truth"],
        model=evaluation["model"],
        at=evaluation["at"],
        numbers=_numbers(evaluation),
        pictures=_pictures(evaluation),
        confusions=confusion["mistakes"][:MAX_CONFUSIONS] if confusion and len(confusion["labels"]) > FEW_LABELS else [],
        labels=labels[:MAX_LABELS],
        more_labels=max(len(labels) - MAX_LABELS, 0),
        best={one["label"]: one for one in sweep["per_label"]} if sweep else None,
        mistakes=evaluation["confident_mistakes"],
        mistakes_title="The worst mistakes" if evaluation["kind"] == "value" else "The most confident mistakes",
    )


def _numbers(evaluation: dict[str, Any]) -> list[tuple[str, str]]:
    told = [key for key in NUMBERS if key != "micro_f1" or evaluation["kind"] == "multi_label"]  # else it is the accuracy
    found = [(NUMBERS[key], evaluation[key]) for key in told if evaluation.get(key) is not None]
    if evaluation.get("calibration"):
        found.append(("calibration error", evaluation["calibration"]["expected_calibration_error"]))
    return [(name, f"{value:,}" if isinstance(value, int) else f"{value:.4f}") for name, value in found]


def _pictures(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    from markupsafe import Markup  # what svg.py makes is safe: matplotlib escapes texts

    confusion, calibration, sweep = (evaluation.get(key) for key in ("confusion", "calibration", "sweep"))
    pictures = []
    if confusion and confusion["matrix"]:
        caption = "Rows are truths: the fuller a cell, the larger its share of the row's documents."
        pictures.append(("Confusion", confusion_picture(confusion), caption))
    if calibration:
        what = "pairs of a document and a label" if evaluation["kind"] == "multi_label" else "documents"
        caption = (
            f"On the dashed line scores are what they say: of {what} with a score of 0.8, 80 % are right. Below: how many."
        )
        pictures.append(("Calibration", calibration_picture(calibration), caption))
    if sweep:
        caption = (
            f"One threshold for all labels is best, by micro F1, at {sweep['best_overall']:.2f} (dashed). It was found on these"
            " very documents, so it promises more than it keeps on others."
        )
        pictures.append(("Thresholds", sweep_picture(sweep), caption))
    return [{"title": title, "svg": Markup(svg), "caption": caption} for title, svg, caption in pictures]


def _cut(text: Any, characters: int) -> str:
    plain = " ".join(str(text).split())
    return plain if len(plain) <= characters else plain[: characters - 1] + "…"
