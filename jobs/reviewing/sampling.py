"""Which documents are reviewed: a stratified random sample of an output's documents, drawn in one pass in bounded memory.

Each document belongs to one stratum: the least certain ones, else those with another label in another output, else the rest, or
its label's. Documents of a stratum are drawn without replacement and with equal probability, so that what reviewers find can be
extrapolated to the stratum, and over all strata to the output.

Each document has a pseudo-random number, of its source, the seed, and the reviews that the model was trained on; a sample of
n is the n with the smallest numbers (bottom-k sampling, Cohen & Kaplan 2007). So it does not depend on how the output is cut
into files, or when it was compacted.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from jobs.reviewing.rows import ROW
from pipeline_ops.output.labeled_output import BATCH_ROWS


@dataclass(frozen=True)
class Request:
    """How many documents of which kind; all of them only of those with `label`, where it is given.

    Attributes:
        uncertain: the documents of which the model is least sure.
        disagreements: random ones, of those that have another label in another output.
        random: random ones of the rest.
        per_label: random ones of the rest, as many of each predicted label.
    """

    uncertain: int = 0
    disagreements: int = 0
    random: int = 0
    per_label: int = 0
    label: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class Stratum:
    """Documents of a kind: how many there are, and those that are sampled, as an array of dtype ROW."""

    name: str
    documents: int
    rows: np.ndarray = field(repr=False)

    @property
    def sampled(self) -> int:
        return len(self.rows)


class Smallest:
    """The `limit` rows with the smallest values of those that were added, and how many were added."""

    def __init__(self, limit: int, *order: str):
        """
        Args:
            order: fields of ROW by which rows are compared, first the most important one.
        """
        self.limit, self.order, self.count = limit, order, 0
        self._rows, self._further = np.empty(0, ROW), list[np.ndarray]()

    def add(self, rows: np.ndarray) -> None:
        self.count += len(rows)
        if len(self._rows) == self.limit:  # what is above the largest of them is none
            first = self.order[0]
            rows = rows[rows[first] <= self._rows[first][-1]] if self.limit else rows[:0]
        if len(rows):
            self._further.append(rows)
        if sum(map(len, self._further)) > max(self.limit, BATCH_ROWS // 8):
            self._rows, self._further = self.rows(), []

    def rows(self) -> np.ndarray:
        """ROW (at most limit,), the smallest first."""
        rows = np.concatenate([self._rows, *self._further])
        return rows[np.lexsort([rows[name] for name in reversed(self.order)])[: self.limit]]


def draw_sample(batches: Iterable[np.ndarray], names: dict[int, str], request: Request) -> list[Stratum]:
    """The strata that the request asks for and that have documents.

    Args:
        batches: the rows of all documents that may be drawn, each once, of dtype ROW.
        names: the labels by `label` of ROW, once the batches are read.
    """
    spare = request.uncertain  # of the rest's candidates, some may turn out to be among the least certain
    uncertain = Smallest(request.uncertain, "certainty", "key")
    differing = Smallest(request.disagreements and request.disagreements + spare, "key")
    others: dict[int, Smallest] = {}
    size = request.per_label or request.random
    for rows in batches:
        uncertain.add(rows)
        differing.add(rows[rows["differs"]])
        rest = rows if not request.disagreements else rows[~rows["differs"]]
        groups = np.where(request.per_label > 0, rest["label"], 0)
        for group in np.unique(groups).tolist():
            others.setdefault(group, Smallest(size and size + spare, "key")).add(rest[groups == group])
    least = uncertain.rows()
    prefix = "" if request.label is None else f"label={request.label}, "
    strata = [Stratum(f"{prefix}uncertain", len(least), least)]
    if request.disagreements:
        taken = least[least["differs"]]
        strata.append(_rest(f"{prefix}disagreements", differing, taken, request.disagreements))
        least = least[~least["differs"]]
    if request.per_label:
        for group, name in sorted(names.items(), key=lambda item: item[1]):
            if group in others:
                strata.append(_rest(f"label={name}", others[group], least[least["label"] == group], size))
    elif others:
        name = "random" if request.label is None else f"label={request.label}"
        strata.append(_rest(name, others[0], least, size))
    return [stratum for stratum in strata if stratum.sampled]


def _rest(name: str, found: Smallest, taken: np.ndarray, size: int) -> Stratum:
    """A stratum without the documents that are in another one already."""
    places = {(one["file"], one["row"]) for one in taken}
    rows = found.rows()
    free = np.array([(one["file"], one["row"]) not in places for one in rows], bool)
    return Stratum(name, found.count - len(taken), rows[free][:size])


def random_order(rows: np.ndarray, seed: int) -> np.ndarray:
    """int64 (rows,): indices in a random order, such that the first ones, however many, are a random sample of each stratum."""
    return np.argsort(rows["key"])[np.random.default_rng(seed).permutation(len(rows))]
