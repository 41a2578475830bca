"""Tables of `label-corpus evaluate` on stderr. Texts of documents are escaped and shortened."""

import sys
from collections.abc import Iterator
from typing import Any

from jobs.number_format import counted, percent
from pipeline_ops.schema.units import row_of

MAX_LABELS = 30
MATRIX_LABELS = 12
MAX_CONFUSIONS = 10
MAX_TEXT = 120
INTERVAL = "Cochran 1977; Korn & Graubard 1998; Newcombe 1998"
BAR_CHARACTERS = 20  # at accuracy 1
METRICS = {  # {JSON key: display name}
    "accuracy": "accuracy",
    "subset_accuracy": "subset accuracy",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "mean_absolute_error": "mean absolute error",
    "root_mean_squared_error": "root mean squared error",
    "r2": "R²",
    "pearson_r": "Pearson's r",
}


def print_evaluation(result: dict[str, Any]) -> None:
    """Print the metrics, the tables by label, calibration and thresholds, and the mistakes."""
    from rich.console import Console

    console = Console(file=sys.stderr, highlight=False)
    for line, is_good in estimate_lines(result):
        console.print(line, style="none" if is_good else "bold red", soft_wrap=True, markup=False)
    for one in estimates_of(result):
        console.print(_strata(one))
    console.print(headline(result), soft_wrap=True, markup=False)
    for line, is_better in baseline_lines(result):
        console.print(line, style="none" if is_better else "bold red", soft_wrap=True, markup=False)
    for line in min_score_lines(result):
        console.print(line, soft_wrap=True, markup=False)
    if met_targets(result):
        console.print(_risk_coverage(result["risk_coverage"]))
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
    documents = counted(result["evaluated"], "reviewed document" if result.get("reviewed") else "document")
    counts = [f"of {documents} alone" if result.get("reviewed") else documents]
    counts += [
        f"{result[key]:,} {name}" for key, name in (("without_truth", "without truth"), ("rejected", "rejected")) if result[key]
    ]
    return f"{', '.join(metrics)}   ({', '.join(counts)})"


def estimates_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The estimates from samples of reviewed documents, that of all documents first."""
    return [*filter(None, [result.get("estimate")]), *result.get("other_estimates", ())]


def estimate_lines(result: dict[str, Any]) -> list[tuple[str, bool]]:
    """What reviewed documents say of all documents, one (line, whether it is no reservation) each; [] without corrections."""
    if not result.get("reviewed"):
        return []
    found = [line for one in estimates_of(result) for line in _lines_of_estimate(one, result["labeled"])]
    return found + [(line, False) for line in _reservations(result["reviewed"])]


def _lines_of_estimate(one: dict[str, Any], labeled: int) -> list[tuple[str, bool]]:
    population = one["of_documents"]
    of = f"all {one['documents']:,}" if one["of_corpus"] else f"{one['documents']:,} of {population or '?'}"
    low, high = map(percent, one["interval"])
    sample = f"{counted(one['reviewed'], 'reviewed one')} of {counted(len(one['strata']), 'stratum', 'strata')}"
    lines = [
        (f"accuracy of {of} documents: {percent(one['accuracy'])}, 95% confidence interval {low} to {high}", True),
        (f"estimated from {sample}, {one['sample']} ({INTERVAL})", True),
    ]
    if not one["of_corpus"]:
        low, high = map(percent, one["corpus_bounds"])
        bounds = f": their accuracy is between {low} and {high}" if population else ""
        lines.append((f"no estimate for all documents, as of the other strata none is reviewed{bounds}", False))
    if one["not_reviewed"]:
        lines.append(
            (f"{one['not_reviewed']:,} more of the sample are not reviewed; taken to be like those of their stratum", True)
        )
    if population not in (None, labeled):
        lines.append((f"the sample was drawn from {population:,} documents; the output has {labeled:,} now", False))
    return lines


def _reservations(reviewed: dict[str, Any]) -> Iterator[str]:
    for sample in reviewed["trained_on"]:
        yield f"no estimate from {sample}: the model was trained on it; review a new sample of this output"
    if count := reviewed["without_stratum"]:
        yield f"{counted(count, 'document')} without a stratum: in no estimate, as nobody knows how they were chosen"
    if reviewed["gone"] or reviewed["changed"]:
        yield f"left out: {reviewed['gone']:,} that are not labeled now, {reviewed['changed']:,} whose row holds another text"
    if count := reviewed["relabeled"]:
        yield f"{counted(count, 'document has', 'documents have')} another label than at the review; the present one counts"
    if reviewed["unknown_labels"]:
        yield f"labels that the model does not have count as wrong: {reviewed['unknown_labels_listed']}"


def _strata(one: dict[str, Any]) -> Any:
    table = _table(f"strata of {one['sample']}", ["stratum"], ["documents", "reviewed", "right", "accuracy", "95% interval"])
    strata = sorted(one["strata"], key=lambda stratum: -stratum["documents"])
    if len(strata) > MAX_LABELS:
        table.title = f"strata of {one['sample']}: the {MAX_LABELS} of {len(strata)} with most documents"
    for stratum in strata[:MAX_LABELS]:
        counts = (f"{stratum[key]:,}" for key in ("documents", "reviewed", "right"))
        is_known = stratum["reviewed"] == stratum["documents"]
        interval = "all reviewed" if is_known else " to ".join(map(percent, stratum["interval"]))
        table.add_row(_escape(stratum["stratum"], 40), *counts, percent(stratum["accuracy"]), interval)
    return table


def baseline_lines(result: dict[str, Any]) -> list[tuple[str, bool]]:
    """What a constant prediction would reach, one (line, whether the model is better) per measure that has a baseline."""
    baseline, lines = result.get("baseline") or {}, []
    if "subset_accuracy" in baseline:
        constant = ", ".join(map(one_line, baseline["labels"])) or "no label"
        lines.append(_against("subset_accuracy", result, f"majority baseline (always {constant})"))
    if "root_mean_squared_error" in baseline:
        lines.append(_against("root_mean_squared_error", result, f"baseline (always the mean, {baseline['value']:g})"))
    if "accuracy" in baseline:
        lines.append(_against("accuracy", result, f"majority baseline (always {one_line(baseline['label'])})"))
    return lines


def _against(key: str, result: dict[str, Any], name: str) -> tuple[str, bool]:
    measure, value, baseline = METRICS[key], result[key], result["baseline"][key]
    is_error = key == "root_mean_squared_error"
    line = f"{name}: {measure} {baseline:.4f}"
    if value < baseline if is_error else value > baseline:
        return line, True
    comparison = "is not below" if is_error else "is not above"
    return f"{line}. The model's {measure}, {value:.4f}, {comparison} it: a constant would do as well", False


def min_score_lines(result: dict[str, Any]) -> list[str]:
    """The suggested model.min_score, or why there is none, and what the present one gives; [] for heads without one."""
    found = result.get("risk_coverage")
    if not found:
        return []
    lines, now, suggested = [], found["as_labeled"], found["suggested"]
    if now["min_score"] is not None:
        lines.append(
            f"model.min_score {now['min_score']:g} keeps {percent(now['coverage'])} of the labels;"
            f" {percent(now['accuracy'])} of these are right"
        )
    if suggested:
        lines.append(
            f"suggested model.min_score: {suggested['min_score']:g}. It keeps {percent(suggested['coverage'])} of the labels;"
            f" {percent(suggested['accuracy'])} of these are right (target: {suggested['target']:.0%}, with 95% confidence)"
        )
    elif met_targets(result):
        missed = [one["target"] for one in found["targets"] if not one["documents"]]
        beyond = f", and no higher one reaches {missed[0]:.0%} with 95% confidence" if missed else ""
        lines.append(f"no model.min_score is suggested: {percent(now['accuracy'])} of the labels are right as it is{beyond}")
    else:
        lines.append(
            f"no model.min_score is suggested: with none {found['targets'][0]['target']:.0%} of the kept labels are right,"
            " to 95% confidence"
        )
    return lines


def met_targets(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The accuracies of kept labels that some model.min_score reaches."""
    return [one for one in (result.get("risk_coverage") or {}).get("targets") or [] if one["documents"]]


def _risk_coverage(found: dict[str, Any]) -> Any:
    table = _table("labels kept by model.min_score", ["target"], ["min_score", "coverage", "accuracy", "documents"])
    for one in found["targets"]:
        numbers = ["not reached"]
        if one["documents"]:
            numbers = [f"{one['min_score']:g}", percent(one["coverage"]), percent(one["accuracy"]), f"{one['documents']:,}"]
        table.add_row(f"{one['target']:.0%} right", *numbers)
    return table


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
    if confusion["mistakes"]:
        table = _table("most frequent confusions", ["truth", "label"], ["documents", "share of truth"])
        for one in confusion["mistakes"][:MAX_CONFUSIONS]:
            counts = f"{one['documents']:,}", percent(one["share"])
            table.add_row(_escape(one["truth"], 40), _escape(one["label"], 40), *counts)
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
        source = row_of(one["source_file"].rsplit("/", 1)[-1], one["source_row"])
        text = "" if one["text"] is None else " ".join(one["text"].split())
        table.add_row(
            _escape(format_label(one["truth"]), 40),
            _escape(format_label(one["label"]), 40),
            f"{one['score']:.3f}",
            _escape(f"{source}: {text}" if text else source),
        )
    return table


def format_label(label: Any) -> str:
    """A label, a list of labels, a number or None as text."""
    if isinstance(label, list):
        return ", ".join(map(str, label)) or "none"
    return "" if label is None else f"{label:g}" if isinstance(label, float) else str(label)


def _table(title: str, texts: list[str], numbers: list[str]) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name in texts:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def one_line(text: str, characters: int = MAX_TEXT) -> str:
    """Shorten, and replace control characters."""
    plain = "".join(character if character.isprintable() else "�" for character in text)
    return plain if len(plain) <= characters else plain[: characters - 1] + "…"


def _escape(text: str, characters: int = MAX_TEXT) -> str:
    """one_line() with rich markup escaped."""
    from rich.markup import escape

    return escape(one_line(text, characters))
