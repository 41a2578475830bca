"""Counts and measures of labels against truths: those of scikit-learn on random data, whatever the slices they are read in."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import binomtest
from sklearn import metrics as untyped
from sklearn.dummy import DummyClassifier

from pipeline_ops.analysis.multi_label import MultiLabelEvaluator
from pipeline_ops.analysis.regression import ValueEvaluator
from pipeline_ops.analysis.single_label import MAX_MISTAKES, Rows, SingleLabelEvaluator
from pipeline_ops.models.heads import Head, Kind
from pipeline_ops.schema.errors import UserError

metrics: Any = untyped
NAMES = ("art", "law", "maths", "news", "sport")
DOCUMENTS = 500


def fed(evaluator, truth: pa.Array, label, score, scores=None, step: int = 170):
    """The evaluator, given the rows in slices."""
    label, score = pa.array(label, pa.string()), np.asarray(score, np.float32)
    for start in range(0, len(truth), step):
        part = slice(start, start + step)
        rows = None if scores is None else np.asarray(scores, np.float32)[part]
        evaluator.add(Rows(truth[part], label[part], score[part], rows, (0, start)))
    return evaluator


def single(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(truths, one of which the model does not know; labels, one of which is never given; scores)."""
    random = np.random.default_rng(seed)
    truth = random.choice([*NAMES, "unknown"], DOCUMENTS)
    given = np.where((random.random(DOCUMENTS) < 0.6) & (truth != "unknown"), truth, random.choice(NAMES[:4], DOCUMENTS))
    return truth, np.where(given == "sport", "art", given), random.random(DOCUMENTS)


def test_measures_of_single_labels_are_scikit_learns() -> None:
    truth, label, score = single()
    result = fed(SingleLabelEvaluator(Head(NAMES, "softmax")), pa.array(truth), label, score).result()
    order = [*NAMES, "unknown"]
    expected = metrics.precision_recall_fscore_support(truth, label, labels=order, zero_division=0)
    found = [[one[key] for one in result["per_label"]] for key in ("precision", "recall", "f1", "support")]
    assert [one["label"] for one in result["per_label"]] == order
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert result["accuracy"] == pytest.approx(metrics.accuracy_score(truth, label), abs=1e-6)
    assert result["micro_f1"] == result["accuracy"]
    assert result["macro_f1"] == pytest.approx(metrics.f1_score(truth, label, average="macro"), abs=1e-6)
    assert result["confusion"]["matrix"] == metrics.confusion_matrix(truth, label, labels=order).tolist()


def test_calibration_error_is_that_of_its_definition() -> None:
    truth, label, score = single()
    score[:2] = 0.0, 1.0
    found = fed(SingleLabelEvaluator(Head(NAMES, "softmax")), pa.array(truth), label, score).result()["calibration"]
    score, right, error = score.astype(np.float32).astype(float), truth == label, 0.0
    for number, one in enumerate(found["bins"]):
        inside = (score > number / 15) & (score <= (number + 1) / 15) | ((score == 0) & (number == 0))
        assert one["count"] == inside.sum() > 0
        assert one["accuracy"] == pytest.approx(right[inside].mean(), abs=1e-6)
        assert one["mean_score"] == pytest.approx(score[inside].mean(), abs=1e-6)
        error += inside.mean() * abs(right[inside].mean() - score[inside].mean())
    assert found["expected_calibration_error"] == pytest.approx(error, abs=1e-6)


def test_scores_that_are_no_probabilities_have_no_calibration() -> None:
    truth, label, score = single()
    assert fed(SingleLabelEvaluator(Head(NAMES, "none")), pa.array(truth), label, score * 9).result()["calibration"] is None


def test_confident_mistakes_are_those_of_a_full_sort() -> None:
    truth, label, score = single()
    found = fed(SingleLabelEvaluator(Head(NAMES, "softmax")), pa.array(truth), label, score).mistakes.most_severe_first()
    rows = [row for row in np.argsort(-score.astype(np.float32), kind="stable") if truth[row] != label[row]]
    assert [one.row for one in found] == rows[:MAX_MISTAKES]
    assert [(one.truth, one.label) for one in found] == [(truth[row], label[row]) for row in rows[:MAX_MISTAKES]]


def test_baseline_of_labels_is_scikit_learns_most_frequent_dummy() -> None:
    truth, label, score = single()
    result = fed(SingleLabelEvaluator(Head(NAMES, "softmax")), pa.array(truth), label, score).result()
    dummy = DummyClassifier(strategy="most_frequent").fit(np.zeros((DOCUMENTS, 1)), truth)
    [constant] = dummy.predict([[0]])
    assert (result["baseline"]["label"], result["baseline"]["accuracy"]) == (constant, np.mean(truth == constant))
    for one in result["confusion"]["mistakes"]:
        of_truth = label[truth == one["truth"]]
        assert one["share"] == pytest.approx(np.mean(of_truth == one["label"]), abs=1e-6)


def selective(score: np.ndarray, right: np.ndarray, min_score: float | None = None) -> dict[str, Any]:
    """The risk_coverage of documents with these scores; below min_score the label is the fallback."""
    head = Head(("yes", "no"), "softmax", min_score=min_score, fallback_label=None if min_score is None else "unsure")
    label = np.where(score < (min_score or 0), "unsure", "yes")
    return fed(SingleLabelEvaluator(head), pa.array(np.where(right, "yes", "no")), label, score).result()["risk_coverage"]


@pytest.mark.parametrize("min_score", [None, 0.6])
def test_min_score_of_a_target_is_the_lowest_that_meets_it(min_score: float | None) -> None:
    random = np.random.default_rng(0)
    score = random.random(20_000).astype(np.float32)
    right = random.random(len(score)) < 0.5 + score / 2
    found = selective(score, right, min_score)
    if min_score is not None:
        score = np.where(score < min_score, -1, score)
    assert [one["target"] for one in found["targets"]] == [0.8, 0.9, 0.95, 0.98, 0.99]

    def is_met(threshold: float, target: float) -> bool:
        kept = right[score >= np.float32(threshold)]
        low = binomtest(int(kept.sum()), len(kept)).proportion_ci(0.9, "wilson").low if len(kept) else 0
        return low >= target

    for one in found["targets"]:
        if one["min_score"] is None:
            assert (one["coverage"], one["accuracy"], one["documents"]) == (0, None, 0)
            assert not any(is_met(place / 1000, one["target"]) for place in range(600, 1001))
            continue
        kept = score >= np.float32(one["min_score"])
        assert one["documents"] == kept.sum()
        assert one["coverage"] == pytest.approx(kept.mean(), abs=1e-6)
        assert one["accuracy"] == pytest.approx(right[kept].mean(), abs=1e-6)
        assert is_met(one["min_score"], one["target"])
        assert one["min_score"] in (0, min_score) or not is_met(one["min_score"] - 0.001, one["target"])
    assert found["suggested"] == found["targets"][2]
    for one in found["curve"]:
        kept = right[score >= np.float32(one["min_score"])]
        assert (one["documents"], one["accuracy"]) == (len(kept), pytest.approx(kept.mean(), abs=1e-6))
    assert found["as_labeled"]["min_score"] == min_score
    assert found["as_labeled"]["documents"] == (score >= 0).sum()
    assert found["curve"][0]["min_score"] == (min_score or 0)


@pytest.mark.parametrize(
    ("share_right", "documents", "met"),
    [(0.99, 5000, 4), (0.5, 5000, 0), (1.0, 40, 2), (1.0, 3, 0)],
    ids=["good enough", "bad at any score", "too few for 95 %", "far too few"],
)
def test_no_min_score_is_suggested_where_none_helps(share_right: float, documents: int, met: int) -> None:
    score = np.random.default_rng(1).random(documents)
    found = selective(score, np.arange(documents) % 100 < 100 * share_right)
    assert found["suggested"] is None
    assert sum(one["documents"] > 0 for one in found["targets"]) == met


def test_null_truths_are_left_out_and_counted() -> None:
    evaluator = fed(
        SingleLabelEvaluator(Head(NAMES, "softmax")), pa.array(["art", None, "law"]), ["art", "art", "art"], [0.9, 0.8, 0.7]
    )
    assert (evaluator.result()["evaluated"], evaluator.without_truth, evaluator.result()["accuracy"]) == (2, 1, 0.5)
    assert [one.row for one in evaluator.mistakes.most_severe_first()] == [2]
    assert sum(one["count"] for one in evaluator.result()["calibration"]["bins"]) == 2


@pytest.mark.parametrize("evaluator", [SingleLabelEvaluator, MultiLabelEvaluator, ValueEvaluator])
def test_nothing_evaluated_gives_no_measures(evaluator: type) -> None:
    kinds: dict[type, Kind] = {
        SingleLabelEvaluator: "single_label",
        MultiLabelEvaluator: "multi_label",
        ValueEvaluator: "value",
    }
    head = Head(NAMES, "sigmoid", kinds[evaluator], thresholds=(0.5,) * 5, bins=(1.0,), bin_labels=("low", "high"))
    result = fed(evaluator(head), pa.nulls(2, pa.string()), ["low", "low"], [0.1, 0.2], np.zeros((2, 5))).result()
    assert result["evaluated"] == 0
    assert result.get("per_label", []) == []
    assert result.get("macro_f1") is None


@pytest.mark.parametrize(
    "truth", [pa.array([1, 0, 1]), pa.array([1.0, 0.0, 1.0]), pa.array(["1", "0", "1"]).dictionary_encode()]
)
def test_truths_are_compared_as_text(truth: pa.Array) -> None:
    assert (
        fed(SingleLabelEvaluator(Head(("0", "1"), "softmax")), truth, ["1", "0", "0"], [1, 1, 1]).result()["accuracy"]
        == 0.666667
    )


def test_fallback_label_is_wrong_and_not_in_the_calibration() -> None:
    head = Head(NAMES, "softmax", min_score=0.5, fallback_label="unsure")
    result = fed(SingleLabelEvaluator(head), pa.array(["art", "law"]), ["art", "unsure"], [0.9, 0.4]).result()
    assert result["accuracy"] == 0.5
    assert sum(one["count"] for one in result["calibration"]["bins"]) == 1


def test_column_of_names_of_documents_is_refused() -> None:
    truth = pa.array([f"document {number}" for number in range(12_000)])
    with pytest.raises(UserError, match="distinct values"):
        fed(SingleLabelEvaluator(Head(NAMES, "softmax")), truth, ["art"] * 12_000, np.ones(12_000), step=1000)


def several(seed: int = 1) -> tuple[np.ndarray, np.ndarray, pa.Array]:
    """(bool (documents, labels): truths; scores; truths as lists of names)."""
    random = np.random.default_rng(seed)
    should = random.random((DOCUMENTS, len(NAMES))) < [0.5, 0.3, 0.1, 0.6, 0.02]
    scores = np.clip(random.normal(np.where(should, 0.6, 0.35), 0.2), 0, 1).astype(np.float32)
    scores[0, 0] = scores[1, 1] = 0.5  # on a threshold
    return should, scores, pa.array([[NAMES[place] for place in np.flatnonzero(row)] for row in should], pa.list_(pa.string()))


def test_measures_of_several_labels_are_scikit_learns() -> None:
    should, scores, truth = several()
    head = Head(NAMES, "sigmoid", "multi_label", thresholds=(0.5, 0.5, 0.4, 0.7, 0.5))
    result = fed(MultiLabelEvaluator(head), truth, ["art"] * DOCUMENTS, scores[:, 0], scores).result()
    given = scores >= np.array(head.thresholds, np.float32)
    for average in ("micro", "macro"):
        expected = metrics.f1_score(should, given, average=average, zero_division=0)
        assert result[f"{average}_f1"] == pytest.approx(expected, abs=1e-6)
    assert result["subset_accuracy"] == pytest.approx(metrics.accuracy_score(should, given), abs=1e-6)
    sets = Counter(map(tuple, truth.to_pylist()))
    assert sets[(*result["baseline"]["labels"],)] == max(sets.values())
    assert result["baseline"]["subset_accuracy"] == max(sets.values()) / DOCUMENTS
    expected = metrics.precision_recall_fscore_support(should, given, zero_division=0)
    found = [[one[key] for one in result["per_label"]] for key in ("precision", "recall", "f1", "support")]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_sweep_is_that_of_trying_each_threshold() -> None:
    should, scores, truth = several()
    head = Head(NAMES, "sigmoid", "multi_label", thresholds=(0.5,) * 5)
    sweep = fed(MultiLabelEvaluator(head), truth, ["art"] * DOCUMENTS, scores[:, 0], scores).result()["sweep"]
    best = np.zeros(len(NAMES))
    for one in sweep["overall"]:
        given = scores >= np.float32(one["threshold"])
        by_label = metrics.f1_score(should, given, average=None, zero_division=0)
        best = np.maximum(best, by_label)
        assert one["micro_f1"] == pytest.approx(metrics.f1_score(should, given, average="micro", zero_division=0), abs=1e-6)
        assert one["macro_f1"] == pytest.approx(by_label.mean(), abs=1e-6)
    assert len(sweep["overall"]) == 101
    for place, one in enumerate(sweep["per_label"]):
        at_best = metrics.f1_score(should[:, place], scores[:, place] >= np.float32(one["best"]), zero_division=0)
        assert one["f1_at_best"] == pytest.approx(best[place], abs=1e-6) == pytest.approx(at_best, abs=1e-6)


def test_one_name_nulls_and_unknown_names_as_truths_of_several_labels() -> None:
    head = Head(("art", "law"), "sigmoid", "multi_label", thresholds=(0.5, 0.5))
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.1], [0.1, 0.1]])
    by_name = fed(MultiLabelEvaluator(head), pa.array(["art", "law", None, "sea"]), ["art"] * 4, scores[:, 0], scores)
    lists = pa.array([["art", "art"], ["law", None], None, ["sea", "sea"]], pa.list_(pa.string()))
    by_list = fed(MultiLabelEvaluator(head), lists, ["art"] * 4, scores[:, 0], scores)
    assert by_name.result() == by_list.result()
    result = by_list.result()
    assert (result["evaluated"], by_list.without_truth, result["subset_accuracy"]) == (3, 1, 0.333333)
    assert {one["label"]: (one["support"], one["recall"]) for one in result["per_label"]} == {
        "art": (1, 1.0),
        "law": (1, 0.0),
        "sea": (1, 0.0),
    }
    worst = by_list.mistakes.most_severe_first()[0]
    assert (worst.row, worst.about, worst.label, worst.truth) == (1, "art", ["art"], ["law", None])
    assert worst.score == pytest.approx(0.8)


def test_errors_of_values_are_those_of_numpy_and_bins_are_the_heads() -> None:
    random = np.random.default_rng(2)
    truth = random.normal(1000, 1, DOCUMENTS)  # a mean far from 0: sums of squares would lose their digits
    value = (truth + random.normal(0, 0.5, DOCUMENTS)).astype(np.float32)
    head = Head(("quality",), "none", "value", bins=(999.5, 1000.5), bin_labels=("low", "middle", "high"))
    label = np.array(head.bin_labels)[np.searchsorted(head.bins, value, side="right")]
    result = fed(ValueEvaluator(head), pa.array(truth), label, value).result()
    assert result["mean_absolute_error"] == pytest.approx(metrics.mean_absolute_error(truth, value), abs=1e-6)
    assert result["root_mean_squared_error"] == pytest.approx(metrics.root_mean_squared_error(truth, value), abs=1e-6)
    assert result["pearson_r"] == pytest.approx(np.corrcoef(truth, value.astype(float))[0, 1], abs=1e-6)
    assert result["r2"] == pytest.approx(metrics.r2_score(truth, value), abs=1e-6)
    assert result["baseline"]["value"] == pytest.approx(truth.mean(), abs=1e-6)
    constant = metrics.root_mean_squared_error(truth, np.full(DOCUMENTS, truth.mean()))
    assert result["baseline"]["root_mean_squared_error"] == pytest.approx(constant, abs=1e-6)
    binned = np.array(head.bin_labels)[np.searchsorted(head.bins, truth.astype(np.float32), side="right")]
    assert result["accuracy"] == pytest.approx(metrics.accuracy_score(binned, label), abs=1e-6)
    by_name = fed(ValueEvaluator(head), pa.array(binned), label, value).result()
    assert by_name["confusion"] == result["confusion"]
    assert by_name["mean_absolute_error"] is None
    as_text = fed(ValueEvaluator(head), pa.array(truth.astype(str)), label, value).result()
    assert as_text == result


def test_value_without_bins_has_errors_only_and_truths_that_are_no_numbers_are_counted() -> None:
    evaluator = fed(
        ValueEvaluator(Head(("LABEL_0",), "none", "value")), pa.array(["1", "n/a", None, "2.5"]), ["LABEL_0"] * 4, [1, 1, 1, 2]
    )
    result = evaluator.result()
    assert (result["evaluated"], evaluator.without_truth, result["mean_absolute_error"]) == (2, 2, 0.25)
    assert "accuracy" not in result
    assert [(one.row, one.truth, one.label) for one in evaluator.mistakes.most_severe_first()] == [(3, 2.5, None)]
