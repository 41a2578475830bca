"""Tables of `label-corpus evaluate` on stderr. Texts of documents are escaped and shortened."""

import sys
from typing import Any

MAX_LABELS = 30
MATRIX_LABELS = 12
MAX_CONFUSIONS = 20
MAX_TEXT = 120
BAR_CHARACTERS = 20  # at accuracy 1
METRICS = {  # {JSON key: display name}
    "accuracy": "accuracy",
    "subset_accuracy": "subset accuracy",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "mean_absolute_error": "mean absolute error",
    "root_mean_squared_error": "root mean squared error",
    "pearson_r": "Pearson's r",
}


def print_evaluation(result: dict[str, Any]) -> None:
    """Print the metrics, the tables by label, calibration and thresholds, and the mistakes."""
    from rich.console import Console

    console = Console(file=sys.stderr, highlight=False)
    console.print(headline(result), soft_wrap=True, markup=False)
    if result.get("per_label"):
        console.print(_per_label(result))
    if result.get("confusion"):
        _print_confusion(console, result["confusion"])
    if result.get("calibration"):
        console.print(_calibration(result["calibration"]))
    if result.get("sweep"):
        _print_sweep(console, result["sweep"])
    if result["confident_mistakes"]:
        console.print(
            _mistakes(
                result["confident_mistakes"], "largest errors" if result["kind"] == "value" else "most confident mistakes"
            )
        )


def headline(result: dict[str, Any]) -> str:
    """The overall metrics and the number of documents, in one line."""
    omitted = set() if result["kind"] == "multi_label" else {"micro_f1"}  # equal to the accuracy
    metrics = [
        f"{name} {result[key]:.4f}" for key, name in METRICS.items() if result.get(key) is not None and key not in omitted
    ]
    if result.get("calibration"):
        metrics.append(f"expected calibration error {result['calibration']['expected_calibration_error']:.4f}")
    counts = [f"{result['evaluated']:,} documents"]
    counts += [
        f"{result[key]:,} {name}" for key, name in (("without_truth", "without truth"), ("rejected", "rejected")) if result[key]
    ]
    return f"{', '.join(metrics)}   ({', '.join(counts)})"


def _per_label(result: dict[str, Any]) -> Any:
    labels = sorted(result["per_label"], key=lambda one: -one["support"])
    title = f"labels: the {MAX_LABELS} of {len(labels)} with the lowest F1" if len(labels) > MAX_LABELS else "labels"
    if len(labels) > MAX_LABELS:
        labels = sorted(labels, key=lambda one: one["f1"])[:MAX_LABELS]
    table = _table(title, ["label"], ["precision", "recall", "F1", "support", "predicted"])
    for one in labels:
        metrics = [f"{one[key]:.3f}" for key in ("precision", "recall", "f1")]
        table.add_row(_escape(one["label"], 40), *metrics, f"{one['support']:,}", f"{one['given']:,}")
    return table


def _print_confusion(console: Any, confusion: dict[str, Any]) -> None:
    names = confusion["labels"]
    if confusion["matrix"] is not None and len(names) <= MATRIX_LABELS:
        table = _table("confusion matrix", ["truth"], [_escape(name, 16) for name in names])
        for name, counts in zip(names, confusion["matrix"], strict=True):
            table.add_row(_escape(name, 40), *(f"{count:,}" if count else "" for count in counts))
        console.print(table)
    elif confusion["mistakes"]:
        table = _table("most frequent confusions", ["truth", "label"], ["documents"])
        for one in confusion["mistakes"][:MAX_CONFUSIONS]:
            table.add_row(_escape(one["truth"], 40), _escape(one["label"], 40), f"{one['documents']:,}")
        console.print(table)


def _calibration(calibration: dict[str, Any]) -> Any:
    table = _table("calibration", ["score"], ["count", "mean score", "accuracy"])
    table.add_column("")
    for one in calibration["bins"]:
        if one["count"]:
            score_range = f"{one['from']:.2f} to {one['to']:.2f}"
            bar = "█" * round(one["accuracy"] * BAR_CHARACTERS)
            table.add_row(score_range, f"{one['count']:,}", f"{one['mean_score']:.3f}", f"{one['accuracy']:.3f}", bar)
    return table


def _print_sweep(console: Any, sweep: dict[str, Any]) -> None:
    best = max(sweep["overall"], key=lambda one: one["micro_f1"])
    console.print(f"best threshold for all labels: micro F1 {best['micro_f1']:.4f} at {sweep['best_overall']:.2f}")
    labels = sweep["per_label"]
    more = f", {MAX_LABELS} of {len(labels)}" if len(labels) > MAX_LABELS else ""
    table = _table(f"best threshold per label, on these documents{more}", ["label"], ["used", "best", "F1 at best"])
    for one in labels[:MAX_LABELS]:
        table.add_row(_escape(one["label"], 40), f"{one['used']:.2f}", f"{one['best']:.2f}", f"{one['f1_at_best']:.3f}")
    console.print(table)


def _mistakes(mistakes: list[dict[str, Any]], title: str) -> Any:
    table = _table(title, ["truth", "label"], ["score"])
    table.add_column("document", overflow="fold")
    for one in mistakes:
        source = f"{one['source_file'].rsplit('/', 1)[-1]}:{one['source_row']}"
        text = "" if one["text"] is None else " ".join(one["text"].split())
        table.add_row(
            _escape(format_label(one["truth"]), 40),
            _escape(format_label(one["label"]), 40),
            f"{one['score']:.3f}",
            _escape(f"{source}  {text}"),
        )
    return table


def format_label(label: Any) -> str:
    """A label, a list of labels, a number or None as text."""
    if isinstance(label, list):
        return ", ".join(map(str, label)) or "none"
    return "" if label is None else f"{label:g}" if isinstance(label, float) else str(label)


def _table(title: str, texts: list[str], numbers: list[str]) -> Any:
    from rich.table import Table

    table = Table(*texts, title=title, title_justify="left")
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _escape(text: str, characters: int = MAX_TEXT) -> str:
    """Shorten, replace control characters, and escape rich markup."""
    from rich.markup import escape

    plain = "".join(character if character.isprintable() else "�" for character in text)
    return escape(plain if len(plain) <= characters else plain[: characters - 1] + "…")
