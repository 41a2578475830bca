"""Training documents and corrections as one corpus, in which no text has two labels because of a correction. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline_ops.reviewing.corrections import Correction, Source, fit_labels, is_same_text, newest_by
from pipeline_ops.schema.errors import UserError

KEY = "input.corrections"


@dataclass(frozen=True)
class CorrectedDocuments:
    """The texts and labels to train on: first the corrected documents, then those of the corpus without a correction."""

    texts: list[str]
    labels: list[str]
    corrections: int  # corrected documents
    in_corpus: int  # those that the corpus has as well, with the label that counts no more
    relabeled: int  # of these, those that had another label there
    corpus_labels: list[str]
    new_labels: Counter[str]  # labels that the corpus does not have: their documents
    without_text: int  # corrections that have none and are left out
    samples: list[str]  # ids of the review samples that the corrections are from


def merge_corrections(
    texts: Sequence[str], labels: Sequence[str], sources: Sequence[Source], corrections: Sequence[Correction]
) -> CorrectedDocuments:
    """Put corrections in place of the documents that they are about: those from the same row, or with the same text.

    Of several corrections of a document, or of one text, the last one counts. A corrected document stands once, however often
    the corpus has it, so that a split does not train on a text that it holds out as well. Where the corpus has the row, the
    text is the corpus's: a review may show it masked or cut.

    Args:
        texts, labels, sources: of the corpus, which may be empty; source_file and source_row of each.

    Raises:
        UserError: a correction of a pair of texts, or as fit_labels.
    """
    for one in corrections:
        if one.is_pair:
            raise UserError(f"{KEY}: {one.place}: is a pair of texts, but training reads one text per document; leave it out")
    text_at = dict(zip(sources, texts, strict=True))
    documents = [
        replace(one, text=text)
        for one in newest_by(lambda one: one.source or one.place, corrections).values()
        if (text := _text_of(one, text_at)) and text.strip()
    ]
    newest = newest_by(lambda one: one.text, documents).values()
    known = {*labels} or {one.label for one in newest if isinstance(one.label, str)}
    fitted, new_labels = fit_labels(newest, sorted(known), are_sets=False, key=KEY)
    label_of = {str(one.text): str(one.label) for one in fitted}
    rest = [(text, label) for text, label in zip(texts, labels, strict=True) if text not in label_of]
    before = {text: label for text, label in zip(texts, labels, strict=True) if text in label_of}
    return CorrectedDocuments(
        texts=[*label_of, *(text for text, _ in rest)],
        labels=[*label_of.values(), *(label for _, label in rest)],
        corrections=len(label_of),
        in_corpus=len(before),
        relabeled=sum(label_of[text] != label for text, label in before.items()),
        corpus_labels=sorted({*labels}),
        new_labels=new_labels,
        without_text=sum(one.text is None or not one.text.strip() for one in corrections),
        samples=sorted({one.stratum.sample for one in corrections if one.stratum is not None}),
    )


def _text_of(one: Correction, text_at: Mapping[Source, str]) -> str | None:
    """The text of the corpus, where its row has not changed since the review; else that of the review."""
    text = None if one.source is None else text_at.get(one.source)
    return one.text if text is None or not is_same_text(text, one.text) else text
