"""Guess which columns hold texts, text pairs, ids or true labels, from sample values and names. Pure.

Values decide before names: a column `text` that holds numbers is not a text column. The guess is written into a job file, which
a person reads before a run.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

TEXT_NAMES = {
    *("text", "content", "contents", "body", "review", "document", "doc", "sentence", "message", "comment", "post", "tweet"),
    *("article", "passage", "paragraph", "utterance", "prompt", "question", "premise", "query", "transcript", "caption"),
}
SECONDARY_NAMES = {
    "title",
    "name",
    "subject",
    "headline",
    "summary",
    "author",
    "user",
    "label",
    "answer",
    "response",
    "language",
}
PAIRS = (
    ("premise", "hypothesis"),
    ("question", "answer"),
    ("question", "passage"),
    ("question", "context"),
    ("query", "passage"),
    ("query", "document"),
    ("prompt", "response"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("sentence_a", "sentence_b"),
)
TRUTH_NAMES = {"label", "labels", "class", "category", "target", "sentiment", "truth", "gold", "stars", "rating", "topic"}
FORMS = {
    "URLs": re.compile(r"(https?|s3|ftp)://\S+|www\.\S+"),
    "dates": re.compile(r"\d{4}-\d\d?-\d\d?([T ]\d\d?:\d\d.*)?|\d\d?[./]\d\d?[./]\d{2,4}.*"),
    "numbers": re.compile(r"[-+]?[\d.,]+(e[-+]?\d+)?%?", re.IGNORECASE),
    "hashes": re.compile(r"[0-9a-f]{16,}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE),
}
MIN_FORM_SHARE = 0.9  # of the values must have a form for the column to have it
MIN_VALUES = 20  # with fewer, repetitions mean nothing
CATEGORY_SHARE = 0.1  # distinct values; up to this the column is categorical
LONG_WORD = 60  # characters without white space: text in a script without spaces


@dataclass(frozen=True)
class TextForm:
    """The form of a string column's values."""

    form: str  # texts, words, ids, few values, nothing, or a key of FORMS
    median: float  # characters
    distinct: float  # share of distinct values

    @property
    def description(self) -> str:
        return f"{self.form}, {self.median:,.0f} characters in the median"


@dataclass(frozen=True)
class ColumnGuess:
    """Names of the columns by role, most likely first."""

    texts: tuple[str, ...]  # [0] is the column to label
    pair: tuple[str, str] | None
    ids: tuple[str, ...]
    truths: tuple[str, ...]
    forms: Mapping[str, TextForm]


def guess_columns(names: Sequence[str], samples: Mapping[str, Sequence[str]]) -> ColumnGuess:
    """Guess the roles of columns.

    Args:
        names: all columns.
        samples: {string column: sample values without nulls}.
    """
    forms = {name: form_of(values) for name, values in samples.items()}
    plausible = [name for name in forms if forms[name].form == "texts"]
    plausible += [name for name in forms if forms[name].form in ("words", "few values") and _rank(name) == 0]
    ranked = sorted(plausible, key=lambda name: (_rank(name), -forms[name].median * forms[name].distinct))
    by_name = {name.lower(): name for name in samples}
    pairs = [(by_name[first], by_name[second]) for first, second in PAIRS if first in by_name and second in by_name]
    ids = [name for name in names if _is_id(name) or (name in forms and forms[name].form in ("ids", "hashes"))]
    truths = [name for name in names if name.lower() in TRUTH_NAMES and name not in ranked[:1]]
    return ColumnGuess(
        tuple(ranked),
        pairs[0] if pairs else None,
        tuple(name for name in ids if name not in ranked),
        tuple(sorted(truths, key=lambda name: name.lower() != "label")),
        forms,
    )


def form_of(values: Sequence[str]) -> TextForm:
    """The form of a column's values; `nothing` if all are blank."""
    stripped = [value.strip() for value in values if value.strip()]
    if not stripped:
        return TextForm("nothing", 0, 0)
    distinct = len(set(stripped)) / len(stripped)
    return TextForm(_form(stripped, distinct), median(map(len, stripped)), distinct)


def _form(values: list[str], distinct: float) -> str:
    for form, pattern in FORMS.items():
        if sum(pattern.fullmatch(value) is not None for value in values) >= MIN_FORM_SHARE * len(values):
            return form
    if len(values) >= MIN_VALUES and distinct <= CATEGORY_SHARE:
        return "few values"
    prose = sum(len(value) >= LONG_WORD or len(value.split()) > 1 for value in values)
    if prose >= len(values) / 2:
        return "texts"
    with_digits = sum(any(character.isdigit() for character in value) for value in values)
    return "ids" if distinct == 1 and with_digits >= len(values) / 2 else "words"


def _rank(name: str) -> int:
    """0: a usual name of a text column; 1: any other; 2: a usual name of a secondary column, such as title."""
    parts = set(re.split(r"[^a-z0-9]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()))
    if parts & SECONDARY_NAMES:
        return 2
    return 0 if {part.rstrip("0123456789") for part in parts} & TEXT_NAMES else 1


def _is_id(name: str) -> bool:
    return re.fullmatch(r"(.*[_.-])?(id|ids|uuid|guid|key|sha1|sha256|md5)|.*[a-z]I[dD]", name) is not None or name == "ID"
