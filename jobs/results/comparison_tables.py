"""Tables of `label-corpus compare` on stderr."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jobs.number_format import counted
from pipeline_ops.schema.units import row_of

KAPPA_SCALE = "Landis & Koch 1977"
INTERVAL = "paired, Newcombe 1998"
SIGNIFICANCE = 0.05
TRUTH_COLUMNS = ("documents", "became right", "became wrong", "right in A", "right in B")
LABEL_CHARACTERS = 40
SMALLEST_P = 1e-4
SETTING_CHARACTERS = 60
TEXT_CHARACTERS = 160
PATH_CHARACTERS = 500


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Progress on a terminal; yields a function to call with (parts done, parts in total)."""
    from rich.console import Console

    console = Console(file=sys.stderr, quiet=quiet)
    if quiet or not console.is_terminal:
        yield lambda done, total: None
        return
    with console.status("reading both outputs") as status:
        yield lambda done, total: status.update(f"compared {done:,} of {total:,} parts")


def print_comparison(result: dict[str, Any]) -> None:
    """Print different settings, agreement, changed labels, counts by label and the documents that differ most."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stderr, highlight=False)
    for line in headlines(result):
        console.print(Text(line), soft_wrap=True)
    if result["differences"]:
        table = Table(title="Different settings", title_justify="left")
        for name in ("setting", "A", "B"):
            table.add_column(name, overflow="fold")
        for key, values in result["differences"].items():
            table.add_row(key, *(Text(_line("–" if value is None else value, SETTING_CHARACTERS)) for value in values))
        console.print(table)
    for line in agreement_lines(result):
        console.print(Text(line), soft_wrap=True)
    if truth := result.get("truth"):
        for line in truth_lines(result):
            console.print(Text(line), soft_wrap=True)
        table = Table(title=truth_title(result), title_justify="left")
        table.add_column("true label", overflow="fold")
        for name in TRUTH_COLUMNS:
            table.add_column(name, justify="right", max_width=9)
        for row in truth["labels"]:
            counts = (f"{row[key]:,}" for key in ("documents", "became_right", "became_wrong"))
            table.add_row(_label(row["label"]), *counts, *(f"{row[f'accuracy_{side}']:.1%}" for side in "ab"))
        console.print(table)
        _print_changes(console, "Became wrong: right in A, wrong in B", truth["became_wrong_documents"])
    if result.get("flows"):
        table = Table(title=flows_title(result), title_justify="left")
        for name in ("label in A", "label in B"):
            table.add_column(name, overflow="fold")
        for name in ("documents", "share of A's label"):
            table.add_column(name, justify="right", no_wrap=True)
        for flow in result["flows"]:
            table.add_row(_label(flow["a"]), _label(flow["b"]), f"{flow['documents']:,}", f"{flow['share']:.1%}")
        console.print(table)
    if result.get("labels"):
        table = Table(title=labels_title(result), title_justify="left")
        table.add_column("label", overflow="fold")
        for name in ("in A", "in B", "same", "lost", "gained"):
            table.add_column(name, justify="right", no_wrap=True)
        for label in result["labels"]:
            counts = (label[key] for key in ("in_a", "in_b", "stayed", "left", "came"))
            table.add_row(_label(label["label"]), *(f"{count:,}" for count in counts))
        console.print(table)
    _print_changes(console, "Largest changes, by the distance of the scores", result["most_changed"])


def _print_changes(console: Any, title: str, changes: list[dict[str, Any]]) -> None:
    from rich.text import Text

    if changes:
        console.print(title, style="italic")
    for change in changes:
        predictions = [f"{_line(change[f'label_{side}'], LABEL_CHARACTERS)} {change[f'score_{side}']:.3f}" for side in "ab"]
        truth = (
            f"   (truth: {_line(change['truth'], LABEL_CHARACTERS)})"
            if change.get("truth", change["label_a"]) != change["label_a"]
            else ""
        )
        prediction = Text(f"{predictions[0]} → {predictions[1]}{truth}")
        console.print(_indented(Text(f"{change['distance']:.3f}", "bold"), prediction))
        if change["text"] is not None:
            console.print(_indented(Text(), Text(_line(change["text"], TEXT_CHARACTERS))))
        source = row_of(_line(change["source_file"], PATH_CHARACTERS), change["source_row"])
        console.print(_indented(Text(), Text(source, "bright_black", overflow="fold")))


def _indented(number: Any, text: Any) -> Any:
    """A number, and a text beside it whose further lines are indented as well."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(min_width=5)
    grid.add_column()
    grid.add_row(number, text)
    return grid


def headlines(result: dict[str, Any]) -> list[str]:
    """The two outputs, and the documents and labels that only one of them has."""
    lines = []
    for side in "ab":
        output = result[side]
        name = f"{output['model_name']}: " if "model_name" in output else ""
        lines.append(f"{side.upper()}  {output['output']}  ({name}{output['model']}, {output['documents']:,} labeled)")
    lines.append(
        f"{counted(result['documents'], 'document is', 'documents are')} labeled in both,"
        f" matched by {result['matched_by']} and row"
    )
    for side, other in ("ab", "ba"):
        if count := result[f"only_{side}"]:
            rejected = result[f"rejected_in_{other}"]
            rest = f", {rejected:,} of them rejected in {other.upper()}" if rejected else ""
            lines.append(f"{count:,} are labeled in {side.upper()} only{rest}")
    if result["changed_files"]:
        files = counted(result["changed_files"], "input file has", "input files have")
        skipped = counted(result["changed_input"], "document is", "documents are")
        lines.append(f"{files} changed between the two: {skipped} not compared")
    for side, count in zip("ab", result.get("num_labels_only", (0, 0)), strict=True):
        if count:
            names = result[f"labels_only_{side}"]
            more = f" and {count - len(names):,} more" if count > len(names) else ""
            listed = ", ".join(_line(name, LABEL_CHARACTERS) for name in names)
            lines.append(f"labels of {side.upper()} only: {listed}{more}")
    return lines


def agreement_lines(result: dict[str, Any]) -> list[str]:
    """Agreement, Cohen's kappa, Jaccard index and differences of scores or values, one line each."""
    lines = []
    if result.get("agreement") is not None:
        lines.append(
            f"agreement {result['agreement']:.2%}: {result['agreed']:,} of {result['documents']:,} have the same label"
        )
        if result["kappa"] == 0:
            lines.append("Cohen's kappa 0.0000: no agreement beyond chance")
        elif result["kappa"] is None:
            lines.append("Cohen's kappa is not defined: both outputs have one label for all documents")
        else:
            lines.append(
                f"Cohen's kappa {result['kappa']:.4f}: {result['kappa_reading']} agreement beyond chance ({KAPPA_SCALE})"
            )
    if "jaccard" in result:
        lines.append(f"mean Jaccard index of label sets {result['jaccard']:.4f}")
    if difference := result.get("score_difference"):
        lines.append(
            f"score in B minus score in A, same label: mean {difference['mean']:+.4f}, median {difference['p50']:+.4f},"
            f" 5th percentile {difference['p5']:+.4f}, 95th percentile {difference['p95']:+.4f}"
        )
    if difference := result.get("value_difference"):
        r = "not defined" if difference["pearson_r"] is None else f"{difference['pearson_r']:.4f}"
        lines.append(
            f"value in B minus value in A: mean {difference['mean']:+.4f}, mean absolute {difference['mean_absolute']:.4f};"
            f" Pearson's r {r}"
        )
    return lines


def truth_lines(result: dict[str, Any]) -> list[str]:
    """Accuracies of A and B, their difference, what became right or wrong, and McNemar's test; [] without a truth."""
    truth = result.get("truth")
    if not truth:
        return []
    without = f" ({truth['without_truth']:,} more have none)" if truth["without_truth"] else ""
    low, high = (f"{100 * limit:+.2f}" for limit in truth["difference_interval"])
    is_significant = truth["p_value"] < SIGNIFICANCE
    p_value = f"p = {truth['p_value']:.2g}" if truth["p_value"] >= SMALLEST_P else f"p < {SMALLEST_P:g}"
    verdict = "B is more accurate" if truth["difference"] > 0 else "A is more accurate"
    verdict += " on documents that a model was trained on" if any(truth.get("trained_on", ())) else ""
    against = "the corrections" if truth["column"] is None else _line(truth["column"], LABEL_CHARACTERS)
    return [
        f"accuracy against {against}, {counted(truth['documents'], 'document')}{without}:"
        f" {truth['accuracy_a']:.2%} in A, {truth['accuracy_b']:.2%} in B",
        *_correction_lines(truth),
        f"difference {100 * truth['difference']:+.2f} percentage points, 95% confidence interval {low} to {high} ({INTERVAL})",
        f"right in both {truth['right_in_both']:,}, became right {truth['became_right']:,},"
        f" became wrong {truth['became_wrong']:,}, wrong in both {truth['wrong_in_both']:,}",
        f"McNemar's test ({truth['test']}): {p_value}:"
        f" {verdict if is_significant else 'the difference may be chance'} (level {SIGNIFICANCE:g})",
    ]


def _correction_lines(truth: dict[str, Any]) -> list[str]:
    """What to know of an accuracy on corrected documents."""
    if truth["column"] is not None:
        return []
    lines = ["these are the reviewed documents, not all: `evaluate --corrections` estimates the accuracy of all"]
    if missing := truth["reviewed"] - truth["documents"]:
        lines.append(
            f"{counted(missing, 'reviewed document is', 'reviewed documents are')} not labeled in both, or changed since"
        )
    for side, samples in zip("AB", truth["trained_on"], strict=True):
        if samples:
            lines.append(f"the model of {side} was trained on them ({', '.join(samples)}): on other documents it may be worse")
    if truth["unknown_labels"]:
        lines.append(f"labels that neither model has count as wrong: {truth['unknown_labels']}")
    return lines


def truth_title(result: dict[str, Any]) -> str:
    return "Became right or wrong, by true label" + _of(len(result["truth"]["labels"]), result["truth"]["num_labels"])


def flows_title(result: dict[str, Any]) -> str:
    return "Changed labels" + _of(len(result["flows"]), result["num_flows"])


def labels_title(result: dict[str, Any]) -> str:
    return "Counts by label" + _of(len(result["labels"]), result["num_labels"])


def _of(shown: int, count: int) -> str:
    return f", {shown:,} of {count:,}" if shown < count else ""


def _label(name: str) -> Any:
    from rich.text import Text

    return Text(_line(name, LABEL_CHARACTERS))


def _line(value: Any, characters: int) -> str:
    """The value as a single line, redacted, without control characters, shortened."""
    from cluster.session import secret_values
    from pipeline_ops.analysis.redaction import excerpt

    return excerpt(" ".join(str(value).split()), characters, secret_values())
