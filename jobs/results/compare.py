"""`label-corpus compare A B`: differences between two outputs over the same input, such as two models or dtypes.

Reads the committed rows of both; loads no model.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from jobs.results.truth_columns import check_truth_column, column_types, no_common_value
from jobs.run.fingerprint import current_name
from pipeline_ops.analysis.agreement import (
    agreement,
    changed_flows,
    changes_by_label,
    interpret_kappa,
    score_differences,
    value_differences,
)
from pipeline_ops.analysis.aligned_rows import ComparedLists, Side, TrueLabels, TruthColumn
from pipeline_ops.analysis.comparison import Change, Comparison, compare_outputs
from pipeline_ops.output.labeled_output import Labeled
from pipeline_ops.reviewing.corrections import fit_labels, listed_labels, read_corrections
from pipeline_ops.reviewing.reviewed_documents import check_found, find_reviewed
from pipeline_ops.schema.errors import UserError

MAX_FLOWS = 20
MAX_LABELS = 30
MAX_NAMES = 20  # of labels that only one output has
TEXT_CHARACTERS = 300
SETTING_CHARACTERS = 200


def compare(
    a: Labeled,
    b: Labeled,
    *,
    truth: str | None = None,
    corrections: Sequence[str] = (),
    model: str | None = None,
    model_b: str | None = None,
    on_part: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Compare two outputs over the same input.

    Args:
        truth: column of the input with the true labels, which one of the outputs has kept.
        corrections: files of reviewed documents, in place of `truth`.
        model: name of the model whose labels are compared, where an output has several; in B `model_b`, if given.
        on_part: called with (parts done, parts in total).

    Returns:
        documents (labeled in both), agreement, kappa, flows, labels and so on; of bounded size.

    Raises:
        UserError: as comparison.compare_outputs, or no such model or truth column.
        OSError: a labeled file cannot be read.
    """
    started = time.monotonic()
    sides = (
        Side(a, _model_of(a, model, "--model", "A")),
        Side(b, _model_of(b, model if model_b is None else model_b, "--model" if model_b is None else "--model-b", "B")),
    )
    truths, facts = None if truth is None else _truth_column(truth, sides), {}
    if corrections:
        truths, facts = _true_labels(corrections, sides)
    found = compare_outputs(*sides, truths, on_part)
    return {
        "a": _description(sides[0]),
        "b": _description(sides[1]),
        "differences": _differences(*sides),
        "matched_by": found.matching.by,
        "documents": found.counts.documents,
        "only_a": found.only_a,
        "only_b": found.only_b,
        "rejected_in_a": found.rejected_in_a,
        "rejected_in_b": found.rejected_in_b,
        "changed_files": len(found.matching.changed),
        "changed_input": max(found.changed_a, found.changed_b),
        **_labels(found, sides),
        **_scores(found, sides),
        **_truth(found, truths, facts),
        "most_changed": [_change(change) for change in found.most_changed],
        "seconds": round(time.monotonic() - started, 2),
    }


def _model_of(labeled: Labeled, asked: str | None, option: str, which: str) -> str:
    names = list(labeled.record["models"])
    if names == [""]:  # unnamed, so the option is about the other output
        return ""
    if asked is None and len(names) == 1:
        return names[0]
    if asked is None or asked not in names:
        reason = "missing value" if asked is None else f"invalid value {asked!r}"
        raise UserError(f"{option}: {reason}; output {which} has several models, expected one of {', '.join(names)}")
    return asked


def _truth_column(name: str, sides: tuple[Side, Side]) -> TruthColumn:
    """The column of the side that has kept it, A's if both have."""
    if any(side.head.kind == "value" for side in sides):
        raise UserError(
            f"--truth: {name!r} cannot be compared with values, only with labels; leave it out, and evaluate each output"
        )
    for side in sides:
        if name in column_types(side.labeled) and name not in side.labeled.columns.added_columns().values():
            return TruthColumn(name, side)
    check_truth_column(sides[0].labeled, name, column_types(sides[0].labeled))
    raise AssertionError(name)


def _true_labels(paths: Sequence[str], sides: tuple[Side, Side]) -> tuple[TrueLabels, dict[str, Any]]:
    """(the labels that reviewers have given, by the sources of the side that has more of the documents; facts about them)."""
    key = "--corrections"
    if any(side.head.kind == "value" for side in sides):
        raise UserError(f"{key}: labels cannot be compared with values; leave it out, and evaluate each output")
    labels = [*dict.fromkeys(name for side in sides for name in (*side.possible_labels, *side.head.labels))]
    corrections = read_corrections(paths, sides[0].labeled.store.config, key)
    fitted, unknown = fit_labels(corrections, labels, are_sets=ComparedLists.of(*sides).labels, key=key)
    (side, documents), *_ = sorted(
        ((side, find_reviewed(side.labeled, fitted, [])) for side in sides), key=lambda found: -len(found[1].found)
    )
    check_found(documents, side.labeled.path, key)
    samples = {one.stratum.sample for one in corrections if one.stratum is not None}
    facts = {
        "corrections": [*paths],
        "reviewed": len(documents.found) + len(documents.gone) + len(documents.changed),
        "trained_on": [[sample for sample in side.reviewed_samples if sample in samples] for side in sides],
        "unknown_labels": listed_labels(unknown, labels),
    }
    return TrueLabels({one.source: one.label for one in documents.found if one.source is not None}, side), facts


def _description(side: Side) -> dict[str, Any]:
    facts = side.labeled.record["models"][side.model]
    return {
        "output": side.labeled.path,
        "model": facts["path"],
        **({"model_name": side.model} if side.model else {}),
        "documents": sum(commit.labeled for commit in side.labeled.commits),
    }


def _differences(a: Side, b: Side) -> dict[str, list[Any]]:
    """{setting: [in A, in B]} of the settings in the job fingerprint that differ, the model's first."""
    of_a, of_b = _settings(a), _settings(b)
    differing = [key for key in {**of_a, **of_b} if of_a.get(key) != of_b.get(key)]
    return {current_name(key): [_short(of_a.get(key)), _short(of_b.get(key))] for key in differing}


def _settings(side: Side) -> dict[str, Any]:
    """The settings in _job.json; those of a named model under the keys of a job with a single model."""
    prefix = f"models.{side.model}."
    return {
        key.replace(prefix, "model.", 1): value
        for key, value in side.labeled.record["settings"].items()
        if key.startswith(prefix) or not key.startswith("models.")
    }


def _short(value: Any) -> Any:
    text = str(value)
    return value if len(text) <= SETTING_CHARACTERS else text[:SETTING_CHARACTERS] + "…"


def _labels(found: Comparison, sides: tuple[Side, Side]) -> dict[str, Any]:
    """The fields about labels; none for heads with a value and no bins."""
    a, b = sides
    if any(side.head.kind == "value" and not side.head.bins for side in sides):
        return {}
    flows, names = found.counts.flows, list(found.names)
    agreed, kappa = agreement(flows)
    changed, labels = changed_flows(flows, names), changes_by_label(flows, names)
    only_a, only_b = (
        [name for name in one.possible_labels if name not in other.possible_labels] for one, other in ((a, b), (b, a))
    )
    fields = {
        "agreed": agreed,
        "agreement": _rounded(agreed / found.counts.documents if found.counts.documents else None),
        "kappa": _rounded(kappa),
        "kappa_reading": interpret_kappa(kappa),
        "labels_only_a": only_a[:MAX_NAMES],
        "labels_only_b": only_b[:MAX_NAMES],
        "num_labels_only": [len(only_a), len(only_b)],
        "flows": [{**flow, "share": _rounded(flow["share"])} for flow in changed[:MAX_FLOWS]],
        "num_flows": len(changed),
        "labels": labels[:MAX_LABELS],
        "num_labels": len(labels),
    }
    if found.counts.jaccard_documents:
        fields["jaccard"] = _rounded(found.counts.jaccard_sum / found.counts.jaccard_documents)
    return fields


def _scores(found: Comparison, sides: tuple[Side, Side]) -> dict[str, Any]:
    a, b = (side.head for side in sides)
    if a.kind == "value":
        return {"value_difference": _all_rounded(value_differences(found.counts.values))}
    if a.activation != b.activation or a.activation == "none":
        return {}
    return {"score_difference": _all_rounded(score_differences(found.counts))}


def _truth(found: Comparison, truth: TruthColumn | TrueLabels | None, facts: dict[str, Any]) -> dict[str, Any]:
    """The field `truth`: which output is right how often, where both are compared with a column or with corrections.

    Args:
        facts: about the corrections.
    """
    if found.truth is None or truth is None:
        return {}
    column = truth.name if isinstance(truth, TruthColumn) else None
    names = list(found.true_labels)
    counts = found.truth.result(names)
    if found.counts.documents and not counts["documents"]:
        if column is None:
            raise UserError(f"--corrections: none of the {facts['reviewed']:,} documents is labeled in both outputs")
        raise UserError(f"--truth: {column!r} is null in all {counts['without_truth']:,} documents; give another column")
    if column and counts["labels"] and all(found.names.get(row["label"]) is None for row in counts["labels"]):
        raise no_common_value(column, [row["label"] for row in counts["labels"]], list(found.names))
    labels = [_all_rounded(row) for row in counts.pop("labels")]
    if column is None:
        counts["without_truth"] = 0  # all that nobody has reviewed
    return {
        "truth": {
            "column": column,
            **facts,
            **(_all_rounded(counts) or {}),
            "difference_interval": [_rounded(limit) for limit in counts["difference_interval"]],
            "labels": labels[:MAX_LABELS],
            "num_labels": len(labels),
            "became_wrong_documents": [_change(change) for change in found.became_wrong],
        }
    }


def _change(change: Change) -> dict[str, Any]:
    text = change.text
    return {
        **({} if change.truth is None else {"truth": change.truth}),
        "source_file": change.source_file,
        "source_row": change.source_row,
        "distance": _rounded(change.distance),
        "label_a": change.label_a,
        "score_a": _rounded(change.score_a),
        "label_b": change.label_b,
        "score_b": _rounded(change.score_b),
        "text": text if text is None or len(text) <= TEXT_CHARACTERS else text[:TEXT_CHARACTERS] + "…",
    }


def _all_rounded(facts: dict[str, Any] | None) -> dict[str, Any] | None:
    return facts and {key: _rounded(value) if isinstance(value, float) else value for key, value in facts.items()}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
