"""The corrections of a training: what reviewers have said of documents, in place of or beside the first training data."""

from collections.abc import Sequence
from typing import Any

from jobs.number_format import counted
from jobs.start.labeled_input import LabeledDocuments
from pipeline_ops.reviewing.corrections import Correction, listed_labels
from pipeline_ops.reviewing.merging import KEY, CorrectedDocuments, merge_corrections
from pipeline_ops.schema.errors import UserError


def corrected_documents(found: LabeledDocuments, corrections: Sequence[Correction], max_documents: int) -> CorrectedDocuments:
    """The documents to train on, the corrected ones first, so that a limit leaves them in.

    Raises:
        UserError: corrections that cannot be used, or more than `max_documents`.
    """
    merged = merge_corrections(found.texts, found.labels, found.sources, corrections)
    if not merged.corrections:
        raise UserError(f"{KEY}: none of the {len(corrections):,} documents has a text; export them with the column `text`")
    if merged.corrections > max_documents:
        raise UserError(
            f"training.max_documents: {max_documents:,}, but there are {merged.corrections:,} corrected documents; raise it"
        )
    return merged


def correction_lines(merged: CorrectedDocuments) -> list[str]:
    """What the corrections have changed, for people."""
    added = merged.corrections - merged.in_corpus
    lines = [
        f"{counted(merged.corrections, 'corrected document')}: {added:,} new, {merged.in_corpus:,} in place of the corpus's,"
        f" {merged.relabeled:,} of these with another label"
    ]
    if merged.without_text:
        lines.append(f"{counted(merged.without_text, 'correction')} without a text left out")
    if merged.new_labels:
        lines.append(f"labels that only the corrections have: {listed_labels(merged.new_labels, merged.corpus_labels)}")
    return lines


def correction_facts(merged: CorrectedDocuments | None) -> dict[str, Any] | None:
    """The field `corrections` of the last JSON line; None without corrections."""
    if merged is None:
        return None
    return {
        "documents": merged.corrections,
        "in_corpus": merged.in_corpus,
        "relabeled": merged.relabeled,
        "without_text": merged.without_text,
        "new_labels": dict(merged.new_labels),
    }
