"""The format of reviewed documents: a JSON object per line, as the review page exports them, or a row of a spreadsheet.

JSON Lines: an object per reviewed document with the keys JSON_KEYS (`text_pair` of pairs only). CSV: SHEET_COLUMNS, in UTF-8
with a byte order mark; `corrected` is for the reviewer, and a row where it is empty is not reviewed. jobs/README.md describes
both.
"""

from collections.abc import Sequence

JSON_KEYS = (
    *("sample", "source_file", "source_row", "text", "text_pair", "label", "predicted", "score"),
    *("stratum", "stratum_documents", "stratum_sampled", "documents", "model", "reviewed_at"),
)
SHEET_COLUMNS = (
    *("corrected", "predicted", "score", "text", "text_pair", "source_file", "source_row"),
    *("stratum", "stratum_documents", "stratum_sampled", "documents", "sample", "model"),
)
LABEL_SEPARATOR = " | "  # of several labels in one cell
NO_LABELS = "-"  # in a cell: none of a multi-label head's labels
# what makes a spreadsheet take a cell for a formula (OWASP, CSV Injection), and the quote that takes it back
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "'")


def spreadsheet_cell(text: str) -> str:
    """A text as a cell that no spreadsheet takes for a formula: with a `'` before it where it might."""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def text_of_cell(cell: str) -> str:
    """The inverse of spreadsheet_cell; a cell that a person has typed without the `'` is what it says."""
    return cell.removeprefix("'")


def label_cell(label: str | Sequence[str]) -> str:
    """A label, or the labels of a multi-label head, as a cell, before spreadsheet_cell."""
    return label if isinstance(label, str) else LABEL_SEPARATOR.join(label) or NO_LABELS
