"""Numbers as people read them."""

import pytest

from jobs.number_format import counted


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
