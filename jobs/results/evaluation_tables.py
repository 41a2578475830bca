"""What `label-corpus evaluate` shows people: tables on stderr. Texts may hold anything, so they are escaped and cut."""

import sys
from typing import Any

MAX_LABELS = 30
MATRIX_LABELS = 12
MAX_CONFUSIONS = 20
MAX_TEXT = 120
BAR = 20  # characters for a share of 1
MEASURES = {  # of a whole evaluation, as people are told of them
    "accuracy": "accuracy",
    "subset_accuracy": "all labels right",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "mean_absolute_error": "mean absolute error",
    "root_mean_squared_error": "root mean squared error",
    "pearson_r": "Pearson's r",
}


def show(result: dict[str, Any]) -> None:
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
        console.print(_mistakes(result["confident_mistakes"], "worst" if result["kind"] == "value" else "most confident"))


def headline(result: dict[str, Any]) -> str:
    """The numbers that say it all, in one line."""
    left_out = set() if result["kind"] == "multi_label" else {"micro_f1"}  # that is the accuracy
    told = [
        f"{what} {result[key]:.4f}" for key, what in MEASURES.items() if result.get(key) is not None and key not in left_out
    ]
    if result.get("calibration"):
        told.append(f"calibration error {result['calibration']['expected_calibration_error']:.4f}")
    counts = [f"{result['evaluated']:,} documents"]
    counts += [
        f"{result[key]:,} {what}" for key, what in (("without_truth", "without truth"), ("rejected", "rejected")) if result[key]
    ]
    return f"{', '.join(told)}   ({', '.join(counts)})"


def _per_label(result: dict[str, Any]) -> Any:
    from rich.table import Table

    labels = sorted(result["per_label"], key=lambda one: -one["support"])
    title = f"labels, by F1: the {MAX_LABELS} that are worst of {len(labels)}" if len(labels) > MAX_LABELS else "labels"
    if len(labels) > MAX_LABELS:
        labels = sorted(labels, key=lambda one: one["f1"])[:MAX_LABELS]
    table = _table(Table, title, ["label"], ["precision", "recall", "F1", "documents", "given"])
    for one in labels:
        measures = [f"{one[key]:.3f}" for key in ("precision", "recall", "f1")]
        table.add_row(_cut(one["label"], 40), *measures, f"{one['support']:,}", f"{one['given']:,}")
    return table


def _print_confusion(console: Any, confusion: dict[str, Any]) -> None:
    from rich.table import Table

    names = confusion["labels"]
    if confusion["matrix"] is not None and len(names) <= MATRIX_LABELS:
        table = _table(Table, "labels given, by truth", ["truth"], [_cut(name, 16) for name in names])
        for name, counts in zip(names, confusion["matrix"], strict=True):
            table.add_row(_cut(name, 40), *(f"{count:,}" if count else "" for count in counts))
        console.print(table)
    elif confusion["mistakes"]:
        table = _table(Table, "what is most often taken for something else", ["truth", "labeled as"], ["documents"])
        for one in confusion["mistakes"][:MAX_CONFUSIONS]:
            table.add_row(_cut(one["truth"], 40), _cut(one["label"], 40), f"{one['documents']:,}")
        console.print(table)


def _calibration(calibration: dict[str, Any]) -> Any:
    from rich.table import Table

    table = _table(Table, "calibration: how often scores are right", ["score"], ["count", "mean score", "right"])
    table.add_column("")
    for one in calibration["bins"]:
        if one["count"]:
            span = f"{one['from']:.2f} to {one['to']:.2f}"
            bar = "█" * round(one["accuracy"] * BAR)
            table.add_row(span, f"{one['count']:,}", f"{one['mean_score']:.3f}", f"{one['accuracy']:.3f}", bar)
    return table


def _print_sweep(console: Any, sweep: dict[str, Any]) -> None:
    from rich.table import Table

    best = max(sweep["overall"], key=lambda one: one["micro_f1"])
    console.print(f"one threshold for all: micro F1 {best['micro_f1']:.4f} at {sweep['best_overall']:.2f}")
    labels = sweep["per_label"]
    more = f", {MAX_LABELS} of {len(labels)}" if len(labels) > MAX_LABELS else ""
    table = _table(Table, f"the best threshold per label, on these documents{more}", ["label"], ["used", "best", "F1 at best"])
    for one in labels[:MAX_LABELS]:
        table.add_row(_cut(one["label"], 40), f"{one['used']:.2f}", f"{one['best']:.2f}", f"{one['f1_at_best']:.3f}")
    console.print(table)


def _mistakes(mistakes: list[dict[str, Any]], which: str) -> Any:
    from rich.table import Table

    table = _table(Table, f"the {which} mistakes", ["truth", "label"], ["score"])
    table.add_column("document", overflow="fold")
    for one in mistakes:
        place = f"{one['source_file'].rsplit('/', 1)[-1]}:{one['source_row']}"
        said = "" if one["text"] is None else " ".join(one["text"].split())
        table.add_row(
            _cut(named(one["truth"]), 40), _cut(named(one["label"]), 40), f"{one['score']:.3f}", _cut(f"{place}  {said}")
        )
    return table


def named(label: Any) -> str:
    """A truth or label, a list of them, or a number, as people are told of it."""
    if isinstance(label, list):
        return ", ".join(map(str, label)) or "none"
    return "" if label is None else f"{label:g}" if isinstance(label, float) else str(label)


def _table(kind: Any, title: str, texts: list[str], numbers: list[str]) -> Any:
    table = kind(*texts, title=title, title_justify="left")
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _cut(text: str, characters: int = MAX_TEXT) -> str:
    """Escaped for rich, without control characters; cut."""
    from rich.markup import escape

    plain = "".join(character if character.isprintable() else "�" for character in text)
    return escape(plain if len(plain) <= characters else plain[: characters - 1] + "…")
