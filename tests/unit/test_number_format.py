"""Numbers as people read them."""

import pytest

from jobs.number_format import counted, of_about


@pytest.mark.parametrize(
    ("count", "noun", "plural", "text"),
    [
        (0, "file", None, "0 files"),
        (1, "file", None, "1 file"),
        (2, "unit", None, "2 units"),
        (12_345, "documents/s", "documents/s", "12,345 documents/s"),
        (1, "entry", "entries", "1 entry"),
        (2, "entry", "entries", "2 entries"),
    ],
)
def test_number_of_things_has_the_right_form_of_the_noun(count: int, noun: str, plural: str | None, text: str) -> None:
    assert counted(count, noun, plural) == text


@pytest.mark.parametrize(
    ("done", "total", "text"),
    [
        (1500, 3987.2, "1,500 of about 4,000"),
        (0, 13_083, "0 of about 13,000"),
        (13_050, 13_083, "13,050 of about 13,050"),
        (7, None, "7"),
        (1, 1.0, "1 of about 1"),
    ],
)
def test_estimated_total_is_rounded_and_no_less_than_what_is_done(done: int, total: float | None, text: str) -> None:
    assert of_about(done, total) == text
