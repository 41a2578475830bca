"""The summary of a plan for people: sentences, and the settings as a table."""

import sys
from collections.abc import Iterator
from typing import Any

from jobs.number_format import about, byte_size, counted
from jobs.run.result import removed_line
from pipeline_ops.inputs import passed_over
from pipeline_ops.tables.input_table import table_words

MOST_LABELS = 12


def plan_lines(summary: dict[str, Any]) -> Iterator[str]:
    """The summary of plan() in sentences, without the settings."""
    if summary["input_table"]:
        yield f"input: {table_words(summary['input_table'])}"
    elif summary["folder_columns"]:
        yield f"columns from folders: {', '.join(summary['folder_columns'])}"
    done = f"{counted(summary['documents_done'], 'document')} in {counted(summary['units_done'], 'unit')}"
    yield f"{counted(summary['files'], 'file')}, {byte_size(summary['bytes'])}; {summary['files_done']:,} done ({done})"
    left = (
        f"{counted(summary['files_to_run'], 'file')}, {byte_size(summary['bytes_to_run'])},"
        f" about {counted(summary['units_to_run'], 'unit')}"
    )
    yield f"to run: {left if summary['files_to_run'] else 'nothing'} -> {summary['output']}"
    if summary["runs_on"] == "one process":
        yield "in one process, without Ray: that takes less time here"
    if summary["files_changed"]:
        yield f"changed, and labeled again: {counted(summary['files_changed'], 'file')}"
    if summary["files_removed"]:
        yield removed_line(summary["removed"], summary["files_removed"], summary["drop_removed"])
    if summary["files_passed_over"]:
        yield passed_over.skipped_line(summary["passed_over"])
    if summary["units_failed"]:
        yield f"failed and skipped: {counted(summary['units_failed'], 'unit')}; run --retry-failed labels them"
    yield from summary["remarks"]
    yield from summary["without_padding"]
    if summary.get("models_checked"):
        yield "checked: what labels can be loaded" + "; padding is harmless" * (not summary["without_padding"])
    for name, labels in summary["labels"].items():
        more = f" and {len(labels) - MOST_LABELS:,} more" if len(labels) > MOST_LABELS else ""
        yield f"labels{f' of {name}' if name else ''}: {', '.join(labels[:MOST_LABELS])}{more}"
    if summary.get("work"):
        yield from _work_lines(summary["work"], max(len(summary["labels"]), 1))


def _work_lines(work: dict[str, Any], num_models: int) -> Iterator[str]:
    # `tokens` are those of every model, as in a run's result
    each = f"{work['tokens'] / max(work['documents'] * num_models, 1):,.0f} tokens"
    shown_count = work["documents"] if work["counted"] else int(float(f"{work['documents']:.2g}"))
    documents = counted(shown_count, "document")
    how = "counted" if work["counted"] else f"estimated from {work['sampled']:,} of them"
    yield f"to label: {'' if work['counted'] else 'about '}{documents} of {each} on average, {how}"
    if work["seconds"] is None:
        yield f"time: not known: {work['source']}"
        return
    startup = f"start-up of {work['startup_seconds']:.0f} s included"
    yield f"time: {about(work['seconds'])} on this machine, {startup}; {work['source']}"


def print_plan(summary: dict[str, Any]) -> None:
    """Print the summary of plan() on stderr, the settings as a table."""
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stderr)
    for line in plan_lines(summary):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    table = Table("setting", "value", "from")
    for key, setting in summary["settings"].items():
        table.add_row(key, str(setting["value"]), setting["from"])
    console.print(table)
