"""What `label-corpus compare` prints for people, on stderr."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

READINGS = "Landis & Koch 1977"
SHOWN_LABEL = 40  # characters
SHOWN_SETTING = 60
SHOWN_TEXT = 160
SHOWN_PATH = 500


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Gives what is called with the parts that are done and their number; it shows on terminals only."""
    from rich.console import Console

    console = Console(file=sys.stderr, quiet=quiet)
    if quiet or not console.is_terminal:
        yield lambda done, of: None
        return
    with console.status("reading what both have labeled") as status:
        yield lambda done, of: status.update(f"compared {done:,} of {of:,} parts")


def show(result: dict[str, Any]) -> None:
    """Prints a comparison: what differs between the jobs, agreement, changed labels, label by label, documents."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stderr, highlight=False)
    for line in headlines(result):
        console.print(Text(line), soft_wrap=True)
    if result["differences"]:
        table = Table(title="What differs between the two", title_justify="left")
        for name in ("setting", "A", "B"):
            table.add_column(name, overflow="fold")
        for key, values in result["differences"].items():
            table.add_row(key, *(Text(_line("–" if value is None else value, SHOWN_SETTING)) for value in values))
        console.print(table)
    for line in agreement_lines(result):
        console.print(Text(line), soft_wrap=True)
    if result.get("flows"):
        table = Table(title=flows_title(result), title_justify="left")
        for name in ("in A", "in B"):
            table.add_column(name, overflow="fold")
        for name in ("documents", "of A's label"):
            table.add_column(name, justify="right", no_wrap=True)
        for flow in result["flows"]:
            table.add_row(_label(flow["a"]), _label(flow["b"]), f"{flow['documents']:,}", f"{flow['share']:.1%}")
        console.print(table)
    if result.get("labels"):
        table = Table(title=labels_title(result), title_justify="left")
        table.add_column("label", overflow="fold")
        for name in ("in A", "in B", "stayed", "left", "came"):
            table.add_column(name, justify="right", no_wrap=True)
        for label in result["labels"]:
            counts = (label[key] for key in ("in_a", "in_b", "stayed", "left", "came"))
            table.add_row(_label(label["label"]), *(f"{count:,}" for count in counts))
        console.print(table)
    if result["most_changed"]:
        console.print("Documents that changed most", style="italic")
        for change in result["most_changed"]:
            answers = [f"{_line(change[f'label_{side}'], SHOWN_LABEL)} {change[f'score_{side}']:.3f}" for side in "ab"]
            console.print(_beside(Text(f"{change['distance']:.3f}", "bold"), Text(f"{answers[0]} → {answers[1]}")))
            if change["text"] is not None:
                console.print(_beside(Text(), Text(_line(change["text"], SHOWN_TEXT))))
            place = f"{_line(change['source_file'], SHOWN_PATH)}, row {change['source_row']}"
            console.print(_beside(Text(), Text(place, "bright_black", overflow="fold")))


def _beside(number: Any, text: Any) -> Any:
    """A number, and a text beside it that keeps its margin where it goes on in another line."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(min_width=5)
    grid.add_column()
    grid.add_row(number, text)
    return grid


def headlines(result: dict[str, Any]) -> list[str]:
    """What is compared, and what could not be."""
    lines = []
    for side in "ab":
        told = result[side]
        name = f"{told['model_name']}: " if "model_name" in told else ""
        lines.append(f"{side.upper()}  {told['output']}  ({name}{told['model']}, {told['documents']:,} labeled)")
    lines.append(f"{result['documents']:,} documents are labeled in both, matched by {result['matched_by']} and row")
    for side, other in ("ab", "ba"):
        if count := result[f"only_{side}"]:
            rejected = result[f"rejected_in_{other}"]
            rest = f", {rejected:,} of them rejected in {other.upper()}" if rejected else ""
            lines.append(f"{count:,} are labeled in {side.upper()} only{rest}")
    if result["changed_files"]:
        files = "1 input file has" if result["changed_files"] == 1 else f"{result['changed_files']:,} input files have"
        lines.append(f"{files} changed between the two: {result['changed_input']:,} documents are not compared")
    for side, count in zip("ab", result.get("num_labels_only", (0, 0)), strict=True):
        if count:
            names = result[f"labels_only_{side}"]
            more = f" and {count - len(names):,} more" if count > len(names) else ""
            shown = ", ".join(_line(name, SHOWN_LABEL) for name in names)
            lines.append(f"labels that only {side.upper()} has: {shown}{more}")
    return lines


def agreement_lines(result: dict[str, Any]) -> list[str]:
    lines = []
    if result.get("agreement") is not None:
        lines.append(
            f"agreement {result['agreement']:.2%}: {result['agreed']:,} of {result['documents']:,} have the same label"
        )
        if result["kappa"] is None:
            lines.append("Cohen's kappa is not defined: both give the same label to every document")
        else:
            lines.append(f"Cohen's kappa {result['kappa']:.4f}: {result['kappa_reading']} agreement beyond chance ({READINGS})")
    if "jaccard" in result:
        lines.append(f"all labels of a document, mean Jaccard index {result['jaccard']:.4f}")
    if difference := result.get("score_difference"):
        lines.append(
            f"where the label stayed, B's score minus A's: mean {difference['mean']:+.4f}, median {difference['p50']:+.4f},"
            f" 5 % below {difference['p5']:+.4f}, 5 % above {difference['p95']:+.4f}"
        )
    if difference := result.get("value_difference"):
        r = "not defined" if difference["pearson_r"] is None else f"{difference['pearson_r']:.4f}"
        lines.append(
            f"B's value minus A's: mean {difference['mean']:+.4f}, mean of the absolute ones {difference['mean_absolute']:.4f};"
            f" Pearson's r {r}"
        )
    return lines


def flows_title(result: dict[str, Any]) -> str:
    return "Changed labels" + _of(len(result["flows"]), result["num_flows"])


def labels_title(result: dict[str, Any]) -> str:
    return "Label by label" + _of(len(result["labels"]), result["num_labels"])


def _of(shown: int, count: int) -> str:
    return f", {shown:,} of {count:,}" if shown < count else ""


def _label(name: str) -> Any:
    from rich.text import Text

    return Text(_line(name, SHOWN_LABEL))


def _line(value: Any, characters: int) -> str:
    """In one line, without what a terminal would obey, or a credential."""
    from cluster.session import secret_values
    from pipeline_ops.analysis.redaction import shown

    return shown(" ".join(str(value).split()), characters, secret_values())
