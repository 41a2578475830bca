"""Whether the first record of a CSV file has names, and what else its beginning shows."""

import csv
import io
from collections.abc import Sequence
from typing import Any

import pytest

from pipeline_ops.line_formats.csv_syntax import CsvSyntax
from pipeline_ops.reading.csv_guess import CsvGuess, guess_csv

ROWS = 30
TEXTS = [f"I have bought number {row}, and would buy it again" for row in range(ROWS)]
LONG = [f"{text}; it came in time, it works, and its color is that of the picture" for text in TEXTS]
RATINGS = [("bad", "good")[row % 2] for row in range(ROWS)]
DAYS = [f"2024-01-{row + 1:02}" for row in range(ROWS)]


def guess(rows: Sequence[Sequence[object]], syntax: CsvSyntax = CsvSyntax(), **dialect: Any) -> CsvGuess:
    file = io.StringIO(newline="")
    csv.writer(file, **dialect).writerows(rows)
    return guess_csv(file.getvalue().encode(), syntax, whole=True)


@pytest.mark.parametrize(
    ("columns", "has_header"),
    [
        ([["id", *range(ROWS)], ["review", *TEXTS]], True),
        ([["Kommentar", *TEXTS], ["2019", *range(ROWS)]], True),
        ([["0", *range(ROWS)], ["1", *TEXTS]], True),
        ([["", *range(ROWS)], ["0", *TEXTS], ["1", *range(ROWS)]], True),
        ([["How did you like the service, and what did you miss in all?", *TEXTS]], True),
        ([["文本", *TEXTS], ["标签", *RATINGS]], True),
        ([["name (each that is served, and some names that are not of it)", *"abcdefgh"], ["x", *TEXTS[:8]]], True),
        ([["text", *TEXTS[:9], "text", *TEXTS[10:]], ["label", *RATINGS[:9], "label", *RATINGS[10:]]], True),
        ([["", *[""] * 3], ["x", *[""] * 3]], True),
        ([["text"], ["label"]], True),
        ([TEXTS, RATINGS], False),
        ([TEXTS, DAYS], False),
        ([range(100, 100 + ROWS), TEXTS], False),
        ([LONG], False),
        ([LONG, LONG], False),
        ([["https://example.com"] * ROWS, TEXTS], False),
        ([range(ROWS), ["007", *(f"l{row}" for row in range(1, ROWS))], LONG], False),
        ([range(ROWS), ["007", *(f"l{row}" for row in range(1, ROWS))], TEXTS], False),
        ([["7", *(f"l{row}" for row in range(1, ROWS))], LONG], False),
        ([["en_a", *(f"l{row}" for row in range(1, ROWS))], LONG], False),
        ([[f"{text}{'.?'[row % 2]}" for row, text in enumerate(TEXTS)]], False),
        ([["Kommentar", *TEXTS], ["2019", *LONG]], True),
    ],
)
def test_header_is_seen_missing_where_the_first_record_is_like_the_others(
    columns: Sequence[Sequence[object]], has_header: bool
) -> None:
    guessed = guess([*zip(*columns, strict=True)])
    assert guessed.header == has_header
    assert ("header" in guessed.reasons) != has_header
    assert len(guessed.documents) == len([*zip(*columns, strict=True)]) - has_header


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_quoted_prose_shows_nothing_unusual(quoting: Any) -> None:
    texts = [f'{text},\nso "he" says,\n\t\\o/, and not "1,2",\n\nor {row}"' for row, text in enumerate(LONG)]
    for syntax in (CsvSyntax(), CsvSyntax("\t"), CsvSyntax(";")):
        guessed = guess(
            [("id", "text", "n"), *zip(DAYS, texts, DAYS, strict=True)], syntax, delimiter=syntax.delimiter, quoting=quoting
        )
        assert guessed.settings == {}
        assert guessed.names == ["id", "text", "n"]


def test_beginning_that_a_stray_quote_swallows_is_seen() -> None:
    lines = [f"{row}\t{text}\t1\n" for row, text in enumerate(LONG)]
    lines[3] = lines[3].replace("\t", '\t"', 1)
    data = f"id\ttext\tn\n{''.join(lines)}".encode()
    guessed = guess_csv(data, CsvSyntax("\t"), whole=False)
    assert guessed.settings == {"quote": None}
    assert len(guessed.documents) == ROWS
    assert guess_csv(data, CsvSyntax("\t"), fixed={"quote"}, whole=False).settings == {}


@pytest.mark.parametrize(
    ("first", "fixed", "doubt"),
    [
        ("where do I find my card", set[str](), True),
        ("text", set[str](), False),
        ("Additional remarks", set[str](), False),
        ("where do I find my card", {"header"}, False),
    ],
)
def test_first_record_that_may_be_a_document_is_in_doubt(first: str, fixed: set[str], doubt: bool) -> None:
    guessed = guess_csv("\n".join([first, *TEXTS]).replace(",", "").encode(), CsvSyntax(), True, fixed, whole=True)
    assert guessed.header
    assert guessed.doubt == (first if doubt else None)
