"""The sampled documents as a page and a spreadsheet show them: texts in full, with credentials masked."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jobs.results.show import Place, read_places
from jobs.reviewing.rows import LabeledRows
from jobs.reviewing.sampling import Stratum, random_order
from pipeline_ops.analysis.aligned_rows import Side
from pipeline_ops.analysis.redaction import redact
from pipeline_ops.models.heads import Head, labels_above_threshold
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.units import short_id

MAX_TEXT_CHARACTERS = 50_000
ALL_TEXT_CHARACTERS = 64 * 2**20  # of a page: with very many documents each is cut to its share
ALTERNATIVES = 9  # best labels of a document, with their scores


@dataclass(frozen=True)
class SampledDocument:
    """A document that is reviewed.

    Attributes:
        texts: one, or the two of a pair.
        predicted: the label; of a multi-label head the labels, possibly none.
        score: of the best label.
        top: (label, score) of the best labels, best first; empty if the output has the best score alone.
    """

    source_file: str
    source_row: int
    texts: tuple[str, ...]
    predicted: str | tuple[str, ...]
    score: float
    top: tuple[tuple[str, float], ...]
    stratum: Stratum


@dataclass(frozen=True)
class Sample:
    """What is reviewed, in the order in which it is.

    Attributes:
        output: the path of the output.
        documents: how many the output has labeled.
        labels: that a document can have.
        text_columns: their names, one or two.
        is_multi_label: a document can have several labels, or none.
    """

    output: str
    model: str
    documents: int
    labels: tuple[str, ...]
    text_columns: tuple[str, ...]
    is_multi_label: bool
    strata: tuple[Stratum, ...]
    reviewed: tuple[SampledDocument, ...]

    @property
    def id(self) -> str:
        """A name of the sample, by all that it depends on."""
        documents = [(one.source_file, one.source_row, one.predicted, one.stratum.name) for one in self.reviewed]
        sizes = [(one.name, one.documents, one.sampled) for one in self.strata]
        return "review-" + short_id([self.output, self.model, self.labels, sizes, documents])[:16]


def check_reviewable(side: Side) -> None:
    """Raises UserError if the output has no texts, or no labels that a person could confirm."""
    head, labeled = side.head, side.labeled
    if head.kind == "value" and not head.bins:
        raise UserError(
            f"{labeled.path!r} holds values without bins: there is no label to confirm or correct. Label with model.bins, look"
            " at documents by value with `label-corpus show --sort lowest`, or measure the values against a column of the"
            " input with `label-corpus evaluate --truth`"
        )
    if head.kind == "multi_label" and not side.columns.scores:
        raise UserError(
            f"{labeled.path!r} has the best label of each document only, not all that it was given; label with output.scores"
        )
    kept = labeled.columns.input_columns()
    missing = [name for name in labeled.text_columns if kept is not None and name not in kept]
    if missing:
        raise UserError(
            f"{labeled.path!r} has no column {missing[0]!r} with the texts to read; label with output.columns that has it"
        )


def read_sample(side: Side, rows: LabeledRows, strata: Sequence[Stratum], seed: int, secrets: Collection[str]) -> Sample:
    """Read the sampled documents.

    Raises:
        OSError: a labeled file cannot be read.
    """
    labeled, head = side.labeled, side.head
    chosen = np.concatenate([stratum.rows for stratum in strata])
    of_row = [stratum for stratum in strata for _ in range(stratum.sampled)]
    order = random_order(chosen, seed)
    by_file = order[np.lexsort((chosen["row"][order], chosen["file"][order]))]  # each file is read once
    places = (Place(rows.files[one["file"]], int(one["row"])) for one in chosen[by_file])
    cut = min(MAX_TEXT_CHARACTERS, ALL_TEXT_CHARACTERS // len(chosen))
    documents = {
        int(index): _document(side, document, of_row[index], cut, secrets)
        for index, document in zip(by_file, read_places(labeled, places, _columns(side)), strict=True)
    }
    return Sample(
        output=labeled.path,
        model=side.model,
        documents=sum(commit.labeled for commit in labeled.commits),
        labels=head.bin_labels or head.labels,
        text_columns=labeled.text_columns,
        is_multi_label=head.kind == "multi_label",
        strata=tuple(strata),
        reviewed=tuple(documents[int(index)] for index in order),
    )


def _columns(side: Side) -> list[str]:
    columns = side.columns
    names = [columns.source_file_column, columns.source_row_column, columns.label_name, columns.score_column]
    if columns.scores and side.head.kind != "value":
        names.append(columns.scores_column)
    elif columns.top_k is not None:
        names += [columns.top_labels_column, columns.top_scores_column]
    return list(dict.fromkeys([*side.labeled.text_columns, *names]))


def _document(side: Side, row: dict[str, Any], stratum: Stratum, cut: int, secrets: Collection[str]) -> SampledDocument:
    columns = side.columns
    predicted = _given(side.head, row[columns.scores_column]) if side.head.kind == "multi_label" else row[columns.label_name]
    return SampledDocument(
        source_file=str(row[columns.source_file_column]),
        source_row=int(row[columns.source_row_column]),
        texts=tuple(_shown(row[name], cut, secrets) for name in side.labeled.text_columns),
        predicted=predicted,
        score=float(row[columns.score_column]),
        top=tuple(_best(side.head, columns, row))[:ALTERNATIVES],
        stratum=stratum,
    )


def _given(head: Head, scores: Sequence[float]) -> tuple[str, ...]:
    """The labels of a multi-label head, the best one first."""
    _, given = labels_above_threshold(np.array([scores], np.float32), head)
    return tuple(head.labels[label] for label in given)


def _best(head: Head, columns: Any, row: dict[str, Any]) -> Iterator[tuple[str, float]]:
    if columns.scores and head.kind != "value":
        scores = row[columns.scores_column]
        ranked = sorted(range(len(scores)), key=lambda label: -scores[label])
        yield from ((head.labels[label], float(scores[label])) for label in ranked[:ALTERNATIVES])
    elif columns.top_k is not None:
        yield from zip(row[columns.top_labels_column], map(float, row[columns.top_scores_column]), strict=True)


def _shown(text: Any, cut: int, secrets: Collection[str]) -> str:
    plain = text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else "" if text is None else str(text)
    shown = redact(plain, secrets)
    return shown if len(shown) <= cut else shown[:cut].rstrip() + "…"
