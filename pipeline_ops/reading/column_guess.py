"""Columns and a sample of their values -> which one holds the texts, which are pairs, ids or truths. Pure.

A guess goes by what the values look like, then by what the columns are called: a column that is called `text` and holds
numbers is none. It is for a file that a person reads before anything runs.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

TEXT_NAMES = {
    *("text", "content", "contents", "body", "review", "document", "doc", "sentence", "message", "comment", "post", "tweet"),
    *("article", "passage", "paragraph", "utterance", "prompt", "question", "premise", "query", "transcript", "caption"),
}
LESSER_NAMES = {"title", "name", "subject", "headline", "summary", "author", "user", "label", "answer", "response", "language"}
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
MOST = 0.9  # of the values that have a form, for it to be the column's
ENOUGH = 20  # values, below which nothing follows from how often they repeat
FEW_VALUES = 0.1  # of the values are different: names of kinds, not texts
LONG_WORD = 60  # characters without white space: text of a script that writes none


@dataclass(frozen=True)
class Texts:
    """What the values of a text column look like."""

    form: str  # texts, or what they are instead: ids, URLs, ...
    median: float  # characters
    varied: float  # share of different values

    @property
    def shape(self) -> str:
        return f"{self.form}, {self.median:,.0f} characters in the median"


@dataclass(frozen=True)
class Guess:
    """What the columns seem to be; names in order of how likely that is."""

    texts: tuple[str, ...]  # [0] is the one to label
    pair: tuple[str, str] | None
    ids: tuple[str, ...]
    truths: tuple[str, ...]
    looks: Mapping[str, Texts]


def guess(names: Sequence[str], samples: Mapping[str, Sequence[str]]) -> Guess:
    """What columns are.

    Args:
        names: of all columns.
        samples: values of those that hold texts, nulls left out.
    """
    looks = {name: look(values) for name, values in samples.items()}
    plausible = [name for name in looks if looks[name].form == "texts"]
    plausible += [name for name in looks if looks[name].form in ("words", "few values") and _rank(name) == 0]
    ranked = sorted(plausible, key=lambda name: (_rank(name), -looks[name].median * looks[name].varied))
    by_name = {name.lower(): name for name in samples}
    pairs = [(by_name[first], by_name[second]) for first, second in PAIRS if first in by_name and second in by_name]
    ids = [name for name in names if _is_id(name) or (name in looks and looks[name].form in ("ids", "hashes"))]
    truths = [name for name in names if name.lower() in TRUTH_NAMES and name not in ranked[:1]]
    return Guess(
        tuple(ranked),
        pairs[0] if pairs else None,
        tuple(name for name in ids if name not in ranked),
        tuple(sorted(truths, key=lambda name: name.lower() != "label")),
        looks,
    )


def look(values: Sequence[str]) -> Texts:
    """The form of a column's values; of white space alone, or of none, it is `nothing`."""
    stripped = [value.strip() for value in values if value.strip()]
    if not stripped:
        return Texts("nothing", 0, 0)
    varied = len(set(stripped)) / len(stripped)
    return Texts(_form(stripped, varied), median(map(len, stripped)), varied)


def _form(values: list[str], varied: float) -> str:
    for form, pattern in FORMS.items():
        if sum(pattern.fullmatch(value) is not None for value in values) >= MOST * len(values):
            return form
    if len(values) >= ENOUGH and varied <= FEW_VALUES:
        return "few values"
    prose = sum(len(value) >= LONG_WORD or len(value.split()) > 1 for value in values)
    if prose >= len(values) / 2:
        return "texts"
    with_digits = sum(any(character.isdigit() for character in value) for value in values)
    return "ids" if varied == 1 and with_digits >= len(values) / 2 else "words"


def _rank(name: str) -> int:
    """0: a name that texts have; 1: any; 2: one of what stands beside them."""
    parts = set(re.split(r"[^a-z0-9]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()))
    if parts & LESSER_NAMES:
        return 2
    return 0 if {part.rstrip("0123456789") for part in parts} & TEXT_NAMES else 1


def _is_id(name: str) -> bool:
    return re.fullmatch(r"(.*[_.-])?(id|ids|uuid|guid|key|sha1|sha256|md5)|.*[a-z]I[dD]", name) is not None or name == "ID"
