"""What a head says: scores, labels, bins, thresholds; and which settings a head can have."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline_ops.models.heads import (
    Activation,
    Head,
    HeadConfig,
    activation_for,
    check_output,
    head_settings,
    labels_above_threshold,
    predict,
    resolve_head,
    scores_of,
    top_k_labels,
)
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.output_columns import OutputConfig

MULTI = "multi_label_classification"


def head_of(labels: tuple[str, ...] = ("a", "b", "c"), trained_for: str | None = None, **settings: Any) -> Head:
    return resolve_head(HeadConfig(**settings), labels, trained_for)


def answers(logits: list[list[float]], head: Head) -> list[tuple[str, float]]:
    values = np.array(logits, np.float32).reshape(-1, len(head.labels))
    found = predict(scores_of(values, head.activation), head)
    return [(found.names[label], round(float(score), 4)) for label, score in zip(found.labels, found.score, strict=True)]


@pytest.mark.parametrize(
    ("logits", "scores"),
    [
        ([[-4.0833, 4.3364], [0.0818, -0.0418]], [[2.2043e-04, 9.9978e-01], [5.3086e-01, 4.6914e-01]]),
        ([[-1.5607, 1.6123], [4.1692, -3.3464]], [[4.0195e-02, 9.5980e-01], [9.9946e-01, 5.4418e-04]]),
    ],
)
def test_softmax_of_known_logits_gives_the_published_scores(logits: list, scores: list) -> None:
    np.testing.assert_allclose(scores_of(np.array(logits, np.float32), "softmax"), scores, rtol=1e-4)


@pytest.mark.parametrize("logits", [[1e4, -1e4], [-1e4, -1e4], [1e4, 1e4], [3e38, -3e38], [0, 0], [88.8, -104.0]])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_scores_of_logits_of_any_finite_size_are_finite(logits: list[float], activation: Activation) -> None:
    scores = scores_of(np.array([logits], np.float32), activation)
    expected = [1 / (1 + math.exp(min(-value, 700))) for value in logits]
    if activation == "softmax":
        expected = [1 / (1 + math.exp(min(other - value, 700))) for value, other in zip(logits, logits[::-1], strict=True)]
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, [expected], rtol=1e-5, atol=1e-30)


def test_scores_without_activation_are_the_logits() -> None:
    logits = np.array([[-7.5], [1e4]], np.float32)
    np.testing.assert_array_equal(scores_of(logits, "none"), logits)


@pytest.mark.parametrize(
    ("problem_type", "num_labels", "expected"),
    [
        (None, 2, "softmax"),
        ("single_label_classification", 5, "softmax"),
        ("multi_label_classification", 5, "sigmoid"),
        (None, 1, "sigmoid"),
        ("single_label_classification", 1, "sigmoid"),
        ("regression", 1, "none"),
        ("regression", 3, "none"),
    ],
)
def test_activation_follows_the_problem_type(problem_type: str | None, num_labels: int, expected: str) -> None:
    assert activation_for(problem_type, num_labels) == expected


@pytest.mark.parametrize(
    ("labels", "problem_type", "settings", "kind", "activation"),
    [
        (("a", "b"), None, {}, "single_label", "softmax"),
        (("a", "b"), MULTI, {}, "multi_label", "sigmoid"),
        (("a",), MULTI, {}, "multi_label", "sigmoid"),
        (("a",), None, {}, "value", "sigmoid"),
        (("a",), "regression", {}, "value", "none"),
        (("a", "b"), "regression", {}, "single_label", "none"),
        (("a", "b"), None, {"problem_type": MULTI}, "multi_label", "sigmoid"),
        (("a", "b"), MULTI, {"problem_type": "single_label_classification"}, "single_label", "softmax"),
        (("a",), None, {"problem_type": "regression"}, "value", "none"),
        (("a", "b"), None, {"activation": "none"}, "single_label", "none"),
        (("a", "b"), MULTI, {"activation": "softmax"}, "multi_label", "softmax"),
    ],
)
def test_head_follows_the_model_unless_the_job_says_otherwise(
    labels: tuple[str, ...], problem_type: str | None, settings: dict[str, Any], kind: str, activation: str
) -> None:
    head = head_of(labels, problem_type, **settings)
    assert (head.kind, head.activation) == (kind, activation)


def test_value_falls_into_the_bin_whose_lower_limit_it_reaches() -> None:
    head = head_of(("LABEL_0",), "regression", bins=(0.5, 1.5, 2.5))
    values = [[-3.0], [0.49], [0.5], [1.49], [2.5], [99.0]]
    assert answers(values, head) == [("0", -3.0), ("0", 0.49), ("1", 0.5), ("1", 1.49), ("3", 2.5), ("3", 99.0)]
    named = head_of(("LABEL_0",), "regression", bins=(0.5,), bin_labels=("poor", "good"))
    assert [label for label, _ in answers(values, named)] == ["poor", "poor", "good", "good", "good", "good"]


def test_bins_of_a_sigmoid_value_cut_the_score() -> None:
    head = head_of(("toxic",), bins=(0.5,), bin_labels=("fine", "toxic"))
    assert answers([[-1.0], [1.0]], head) == [("fine", 0.2689), ("toxic", 0.7311)]


def test_label_below_the_least_score_is_the_fallback_and_keeps_its_score() -> None:
    logits = [[0.0, 1.0, 0.0], [0.0, 9.0, 0.0]]
    assert answers(logits, head_of(min_score=0.6)) == [("unsure", 0.5761), ("b", 0.9998)]
    assert answers(logits, head_of(min_score=0.6, fallback_label="a"))[0] == ("a", 0.5761), "it may be one of the labels"


def test_labels_from_the_threshold_on_come_with_the_highest_score_first() -> None:
    head = head_of(trained_for=MULTI, threshold={"c": 0.9})
    assert head.thresholds == (0.5, 0.5, 0.9)
    scores = np.array([[0.6, 0.8, 0.89], [0.1, 0.2, 0.3], [0.5, 0.4999, 0.95], [0.7, 0.7, 0.0]], np.float32)
    offsets, labels = labels_above_threshold(scores, head)
    assert [labels[start:stop].tolist() for start, stop in itertools.pairwise(offsets)] == [
        [1, 0],
        [],
        [2, 0],
        [0, 1],
    ]


def test_threshold_of_a_float_is_reached_by_a_score_that_equals_it() -> None:
    offsets, _ = labels_above_threshold(np.array([[0.7]], np.float32), head_of(("a",), MULTI, threshold=0.7))
    assert offsets.tolist() == [0, 1]


def test_best_labels_are_in_order_and_the_lower_id_of_equals_is_first() -> None:
    ids, scores = top_k_labels(np.array([[0.1, 0.7, 0.2], [0.4, 0.2, 0.4]], np.float32), 2)
    assert ids.tolist() == [[1, 2], [0, 2]]
    np.testing.assert_allclose(scores, [[0.7, 0.2], [0.4, 0.4]])


def test_labels_are_renamed_by_id_or_by_name() -> None:
    assert head_of(("LABEL_0", "LABEL_1", "x"), id2label={0: "bad", "LABEL_1": "good"}).labels == ("bad", "good", "x")
    assert head_of(("LABEL_0", "LABEL_1"), id2label={"0": "LABEL_1", "1": "LABEL_0"}).labels == ("LABEL_1", "LABEL_0")
    assert head_of(("LABEL_0", "good")).has_generic_labels
    assert not head_of(("LABEL_0",)).has_generic_labels, "of a value it does not matter"
    assert not head_of(("LABEL_0", "LABEL_1"), id2label={0: "bad", 1: "good"}).has_generic_labels


@pytest.mark.parametrize(
    ("problem_type", "labels", "settings", "said"),
    [
        (None, ("a", "b"), {"threshold": 0.3}, r"model\.threshold: 0\.3 .*model\.problem_type: multi_label.*model\.min_score"),
        (None, ("a",), {"threshold": 0.3}, r"model\.threshold: 0\.3 .*model\.bins"),
        (MULTI, ("a", "b"), {"threshold": {"c": 0.3}}, r"model\.threshold: 'c' .*'a', 'b'"),
        (None, ("a", "b"), {"bins": (0.5,)}, r"model\.bins: \[0\.5\] .*2 labels"),
        (None, ("a",), {"min_score": 0.5}, r"model\.min_score: 0\.5 .*model\.bins"),
        (None, ("a", "b"), {"id2label": {2: "c"}}, r"model\.id2label: 2 .*'a', 'b'"),
        (None, ("a", "b"), {"id2label": {"x": "c"}}, r"model\.id2label: 'x' .*'a', 'b'"),
        (None, ("a", "b"), {"id2label": {0: "b"}}, r"model\.id2label: .*'b'"),
    ],
)
def test_settings_that_a_head_cannot_have_are_refused_with_the_remedy(
    problem_type: str | None, labels: tuple[str, ...], settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said) as raised:
        head_of(labels, problem_type, **settings)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"bins": ()},
        {"bins": (1.0, 1.0)},
        {"bins": (2.0, 1.0)},
        {"bin_labels": ("a",)},
        {"bins": (1.0,), "bin_labels": ("a",)},
        {"bins": (1.0,), "bin_labels": ("a", "a")},
        {"fallback_label": "none"},
        {"threshold": 1.5},
        {"threshold": {"a": -0.1}},
        {"problem_type": "multi"},
    ],
)
def test_settings_that_make_no_sense_for_any_head_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        HeadConfig(**settings)


def test_output_of_a_multi_label_head_has_its_lists_unless_it_is_switched_off() -> None:
    multi, single, value = head_of(trained_for=MULTI), head_of(), head_of(("a",))
    assert {"labels", "scores"} <= set(check_output(multi, OutputConfig(path="out")).added_columns().values())
    assert not {"labels", "scores"} & set(check_output(single, OutputConfig(path="out")).added_columns().values())
    assert "labels" not in check_output(multi, OutputConfig(path="out", labels=False)).added_columns().values()
    with pytest.raises(UserError, match=r"output\.labels: .*problem_type"):
        check_output(single, OutputConfig(path="out", labels=True))
    with pytest.raises(UserError, match=r"output\.top_k: 2 .*one value"):
        check_output(value, OutputConfig(path="out", top_k=2))
    with pytest.raises(UserError, match=r"output: .*'labels'"):
        check_output(multi, OutputConfig(path="out", label_name="labels"))
    with pytest.raises(UserError, match=r"output\.embedding: .*set it to cls"):
        check_output(single, OutputConfig(path="out", embedding="mean"), model_type="funnel")


def test_settings_that_a_head_does_not_have_are_not_recorded() -> None:
    assert head_settings(head_of(("a", "b"))) == {"model.labels": ["a", "b"], "model.activation": "softmax"}
    assert head_settings(head_of(("a", "b"), MULTI))["model.threshold"] == [0.5, 0.5]
    assert head_settings(head_of(("a",), bins=(0.5,)))["model.bin_labels"] == ["0", "1"]
