"""Documents as people read them, as a table on a terminal, and as programs do, a JSON object per line."""

import json
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from pipeline_ops.analysis.redaction import excerpt, redact
from pipeline_ops.schema.units import row_of

SHORT = 28  # characters of a cell beside the texts'
CELL = 2000  # characters of a text that are looked at: more than a line of a terminal has
DIGITS = 4  # of scores


def print_table(
    documents: Sequence[dict[str, Any]], columns: Sequence[str], texts: Collection[str], secrets: Collection[str]
) -> None:
    """Prints a row per document on stdout, shortened to the terminal's width; through a pager if it has more rows than that.

    Args:
        columns: of the documents; each is one of the table's.
        texts: those of them that take the width that is left.
        secrets: values that are masked, beside what looks like a credential.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False)
    table = Table(expand=bool(texts), box=None, pad_edge=False, header_style="bold")
    numbers = {name for name in columns if all(_is_number(document[name]) for document in documents)}
    for name in columns:
        is_text = name in texts
        table.add_column(
            Text(name),
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if is_text else None,
            max_width=None if is_text else SHORT,
            justify="right" if name in numbers else "left",
        )
    for document in documents:
        table.add_row(*(Text(_cell(document[name], secrets)) for name in columns))
    if len(documents) + 1 < console.height or not console.is_terminal:
        console.print(table)
        return
    with console.pager():
        console.print(table)


def print_json_lines(documents: Iterable[dict[str, Any]], secrets: Collection[str]) -> int:
    """Prints an object per document on stdout, texts in full, with credentials masked; returns how many."""
    count = 0
    for document in documents:
        print(json.dumps(_masked(document, secrets), ensure_ascii=False).encode("utf-8", "backslashreplace").decode())
        count += 1
    return count


def with_source(document: dict[str, Any], file_column: str, row_column: str) -> dict[str, Any]:
    """The document with its file and row in one column `source`; of a long name the beginning is left out."""
    rest = {name: value for name, value in document.items() if name not in (file_column, row_column)}
    name, row = str(document[file_column]).rsplit("/", 1)[-1], document[row_column]
    left = SHORT - len(row_of("", row))
    return {"source": row_of(name if len(name) <= left else "…" + name[1 - left :], row), **rest}


def _cell(value: Any, secrets: Collection[str]) -> str:
    """A value in one line."""
    if isinstance(value, float):
        return f"{value:.{DIGITS}f}"
    if isinstance(value, list):
        return ", ".join(_cell(one, secrets) for one in value)
    if value is None:
        return ""
    return " ".join(excerpt(_plain(value), CELL, secrets).split())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _masked(value: Any, secrets: Collection[str]) -> Any:
    """A value as JSON has it."""
    if isinstance(value, dict):
        return {str(key): _masked(inner, secrets) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(inner, secrets) for inner in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return redact(_plain(value), secrets)


def _plain(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
