"""`label-corpus evaluate --corrections`: an output measured on documents that people have reviewed.

What the reviewed documents say of all documents depends on how they were chosen: the estimate goes by the strata of the sample.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from jobs.results.evaluate import MAX_TEXT, evaluator_for
from jobs.results.open_output import model_of
from jobs.results.truth_columns import listed
from pipeline_ops.analysis.aligned_rows import Side
from pipeline_ops.analysis.metrics import number
from pipeline_ops.analysis.multi_label import lists_to_numpy
from pipeline_ops.analysis.single_label import Mistake, Rows, as_text
from pipeline_ops.models.heads import Head
from pipeline_ops.output.labeled_output import Labeled
from pipeline_ops.reviewing.corrections import Correction, fit_labels, label_names, listed_labels, read_corrections
from pipeline_ops.reviewing.estimates import SampleEstimate, estimates_of
from pipeline_ops.reviewing.reviewed_documents import ReviewedDocuments, check_found, find_reviewed
from pipeline_ops.reviewing.stratified import estimate_accuracy
from pipeline_ops.schema.errors import UserError

KEY = "--corrections"
MAX_NAMES = 20  # of unknown labels, in the result
# measures that would have to be weighted by the strata to say something about all documents
LEFT_OUT = ("baseline", "calibration", "risk_coverage", "sweep")


def evaluate_reviewed(labeled: Labeled, paths: Sequence[str], model: str | None = None) -> dict[str, Any]:
    """Metrics of a model's labels on the reviewed documents, and the estimated accuracy of all documents.

    A label set is right if it is the reviewer's as a whole. A document counts with the label that the output has now.

    Args:
        paths: as of read_corrections.
        model: name of the model, where the output has several; None: the one that was reviewed.

    Returns:
        The content of `_report/evaluation.json`, with `corrections` in place of `truth`, and `reviewed`, `estimate` and
        `other_estimates`.

    Raises:
        UserError: corrections that cannot be read or are of another output or model, or no such model.
        OSError: a labeled file cannot be read.
    """
    corrections = read_corrections(paths, labeled.store.config, KEY)
    name, added = model_of(labeled, _reviewed_model(labeled, corrections, model))
    head = labeled.head(name)
    if head.kind == "value" and not head.bins:
        raise UserError(f"{KEY}: the model predicts a value, no label; give a column with the true values by --truth COLUMN")
    evaluator, uses_scores = evaluator_for(head, added)
    if head.kind == "multi_label" and not uses_scores:
        raise UserError(f"{KEY}: the output has the best label only; label with output.scores=true into a new output")
    fitted, unknown = fit_labels(corrections, _possible_labels(head), are_sets=uses_scores, key=KEY)
    columns = [added.label_name, added.score_column, *([added.scores_column] if uses_scores else [])]
    documents = find_reviewed(labeled, fitted, columns)
    check_found(documents, labeled.path, KEY)
    if unknown.total() and {*unknown} >= {name for one in documents.found for name in label_names(one.label)}:
        raise UserError(
            f"{KEY}: the labels are {listed([*unknown])}, but the model's are {listed(head.labels)}: none in common; give the"
            " corrections of this model's labels"
        )
    table = documents.table
    truth_type = pa.list_(pa.string()) if uses_scores else pa.string()
    labels = as_text(table.column(added.label_name).combine_chunks())
    is_right = evaluator.add(
        Rows(
            pa.array([one.label for one in documents.found], truth_type),
            labels,
            table.column(added.score_column).cast(pa.float32()).to_numpy(),
            lists_to_numpy(table.column(added.scores_column), len(head.labels)) if uses_scores else None,
            (0, 0),
        )
    )
    right = {one.source: bool(is_it) for one, is_it in zip(documents.found, is_right, strict=True) if one.source is not None}
    trained_on = Side(labeled, name).reviewed_samples
    estimates = estimates_of(corrections, right, KEY)
    valid = [_estimate_fields(one) for one in estimates if one.sample not in trained_on]
    return {
        "output": labeled.path,
        "truth": None,
        "corrections": [*paths],
        "model": name or None,
        "kind": head.kind,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "documents": sum(commit.documents for commit in labeled.commits),
        "labeled": sum(commit.labeled for commit in labeled.commits),
        "rejected": sum(commit.rejected for commit in labeled.commits),
        "without_truth": None,
        **{key: None if key in LEFT_OUT else value for key, value in evaluator.result().items()},
        "reviewed": {
            "documents": len(documents.found) + len(documents.gone) + len(documents.changed),
            "right": sum(right.values()),
            "gone": len(documents.gone),
            "changed": len(documents.changed),
            "relabeled": _relabeled(documents, labels.to_pylist()),
            "without_stratum": len({*right}.difference(one.source for one in corrections if one.stratum is not None)),
            "trained_on": [one.sample for one in estimates if one.sample in trained_on],
            "unknown_labels": dict(unknown.most_common(MAX_NAMES)),
            "unknown_labels_listed": listed_labels(unknown, _possible_labels(head)),
        },
        "estimate": next((one for one in valid if one["of_corpus"]), None),
        "other_estimates": [one for place, one in enumerate(valid) if place or not one["of_corpus"]],
        "confident_mistakes": _mistakes(evaluator.mistakes.most_severe_first(), labeled, documents),
    }


def _reviewed_model(labeled: Labeled, corrections: Sequence[Correction], asked: str | None) -> str | None:
    """The model to evaluate: the one that was asked for, else the reviewed one."""
    reviewed, models = corrections[0].model, labeled.columns.by_model()
    if not reviewed or reviewed not in models:
        return asked
    if asked is not None and asked != reviewed and asked in models:
        raise UserError(f"--model: {asked!r}, but the labels that were reviewed are those of {reviewed!r}; leave it out")
    return reviewed


def _possible_labels(head: Head) -> list[str]:
    return [*(head.bin_labels if head.bins else head.labels), *filter(None, [head.fallback_label])]


def _relabeled(documents: ReviewedDocuments, labels: Sequence[str]) -> int:
    """Documents that have another label than when they were reviewed; of sets of labels this is not counted."""
    pairs = zip(documents.found, labels, strict=True)
    return sum(isinstance(one.predicted, str) and one.predicted != label for one, label in pairs if isinstance(one.label, str))


def _estimate_fields(one: SampleEstimate) -> dict[str, Any]:
    effective = one.estimate.effective_documents
    return {
        "sample": one.sample,
        "of_corpus": one.is_of_corpus,
        "accuracy": number(one.estimate.accuracy),
        "interval": [number(one.estimate.low), number(one.estimate.high)],
        "effective_documents": None if effective is None else number(effective),
        "documents": one.documents,
        "of_documents": one.of_documents,
        "corpus_bounds": [number(bound) for bound in one.corpus_bounds],
        "reviewed": one.reviewed,
        "not_reviewed": sum(one.not_reviewed.values()),
        "strata": [
            {
                "stratum": stratum.name,
                "documents": stratum.documents,
                "reviewed": stratum.reviewed,
                "not_reviewed": one.not_reviewed[stratum.name],
                "right": stratum.right,
                "accuracy": number(stratum.right / stratum.reviewed),
                "interval": [number(bound) for bound in (alone.low, alone.high)],
            }
            for stratum, alone in ((stratum, estimate_accuracy([stratum])) for stratum in one.strata)
        ],
    }


def _mistakes(mistakes: Sequence[Mistake], labeled: Labeled, documents: ReviewedDocuments) -> list[dict[str, Any]]:
    names = labeled.columns
    sources = (documents.table.column(name) for name in (names.source_file_column, names.source_row_column))
    files, rows = sources
    return [
        {
            "source_file": files[mistake.row].as_py(),
            "source_row": rows[mistake.row].as_py(),
            "truth": mistake.truth,
            "label": mistake.label,
            "score": mistake.score,
            **({} if mistake.about is None else {"about": mistake.about}),
            "text": (documents.found[mistake.row].text or "")[:MAX_TEXT] or None,
        }
        for mistake in mistakes
    ]
