"""Logits -> scores -> labels, as transformers' text-classification pipeline computes them.

A head has one of three kinds: one label of several, any number of labels, or a single value. It follows from the model's
configuration unless the job overrides it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.output_columns import OutputConfig

Activation = Literal["softmax", "sigmoid", "none"]
ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
Kind = Literal["single_label", "multi_label", "value"]
# what an activation follows from: the kind of head, as in the pipeline; settings of sentence-transformers; the job file
ActivationSource = Literal["head", "CrossEncoder", "job"]
THRESHOLD = 0.5
FALLBACK_LABEL = "unsure"
JOINS_TOKENS = {"funnel"}  # kinds of models whose last hidden states are fewer than the tokens
GENERIC_LABEL = re.compile(r"LABEL_\d+")  # transformers' default for a label without a name


class HeadConfig(BaseModel):
    """How logits become labels; part of the keys `model.*`."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    problem_type: Literal["auto"] | ProblemType = Field(default="auto", description="what the head was trained for")
    activation: Literal["auto"] | Activation = Field(
        default="auto", description="logits -> scores; auto: as saved, or as the pipeline"
    )
    threshold: Annotated[float, Field(ge=0, le=1)] | dict[str, Annotated[float, Field(ge=0, le=1)]] | None = Field(
        default=None, description="multi-label: the score from which a label is given, 0.5 unless set; or {label: score}"
    )
    bins: tuple[float, ...] | None = Field(default=None, description="a head with one value: ascending limits between labels")
    bin_labels: tuple[str, ...] | None = Field(
        default=None, description="names of the bins, one more than limits; else 0, 1, …"
    )
    min_score: float | None = Field(default=None, description="below it the label is fallback_label")
    fallback_label: str | None = Field(default=None, description=f"the label of what is not sure, else {FALLBACK_LABEL!r}")
    id2label: dict[int | str, str] | None = Field(default=None, description="new names for labels, by id or by their old name")

    @field_validator("bins")
    @classmethod
    def _ascend(cls, bins: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if bins is not None and (not bins or any(left >= right for left, right in pairwise(bins))):
            raise ValueError("give ascending limits, such as [0.5, 1.5]")
        return bins

    @field_validator("bin_labels")
    @classmethod
    def _name_all_bins(cls, names: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        bins: tuple[float, ...] = info.data.get("bins") or ()
        if names is None:
            return None
        if not bins:
            raise ValueError("there are no bins to name; give model.bins as well")
        if len(names) != len(bins) + 1:
            raise ValueError(f"{len(names)} names for the {len(bins) + 1} bins between and beside {len(bins)} limits")
        if len(set(names)) < len(names):
            raise ValueError("two bins have the same name")
        return names

    @field_validator("fallback_label")
    @classmethod
    def _falls_back(cls, name: str | None, info: ValidationInfo) -> str | None:
        if name is not None and info.data.get("min_score") is None:
            raise ValueError("nothing falls back without model.min_score; give it as well")
        return name


@dataclass(frozen=True)
class Head:
    """HeadConfig resolved for one model."""

    labels: tuple[str, ...]  # in id2label order
    activation: Activation
    kind: Kind = "single_label"
    thresholds: tuple[float, ...] = ()  # multi_label: one per label
    bins: tuple[float, ...] = ()  # value: ascending limits
    bin_labels: tuple[str, ...] = ()  # one more than limits
    min_score: float | None = None
    fallback_label: str | None = None
    activation_from: ActivationSource = "head"

    @property
    def has_generic_labels(self) -> bool:
        """True if some labels have only the default names of transformers."""
        return self.kind != "value" and any(GENERIC_LABEL.fullmatch(label) for label in self.labels)


def resolve_head(
    config: HeadConfig, labels: Sequence[str], problem_type: str | None, saved_activation: Activation | None = None
) -> Head:
    """The resolved head of a model.

    Args:
        labels: the model's own names, in id2label order.
        problem_type: of the model's configuration.
        saved_activation: of a CrossEncoder; see cross_encoder.saved_activation.

    Raises:
        UserError: a setting that does not fit this kind of head, or names a label that the model does not have.
    """
    asked = problem_type if config.problem_type == "auto" else config.problem_type
    names = _renamed(config.id2label or {}, list(labels))
    activation, source = _activation(config, saved_activation, activation_for(asked, len(names)))
    kind = kind_of(asked, len(names))
    if config.threshold is not None and kind != "multi_label":
        raise UserError(
            f"model.threshold: {config.threshold!r} is for multi-label models, and this one gives"
            f" {'one value' if kind == 'value' else 'one label'}; set model.problem_type: multi_label_classification, or"
            f" {'model.bins' if kind == 'value' else 'model.min_score'}"
        )
    if config.bins is not None and kind != "value":
        raise UserError(f"model.bins: {list(config.bins)} is for models with a single value; this one has {len(names)} labels")
    if config.min_score is not None and kind == "value":
        raise UserError(
            f"model.min_score: {config.min_score} is for models with several labels; this one gives one value: use model.bins"
        )
    thresholds = _thresholds(config.threshold, names) if kind == "multi_label" else ()
    bins = config.bins or ()
    bin_labels = config.bin_labels or tuple(map(str, range(len(bins) + 1))) if bins else ()
    fallback = None if config.min_score is None else config.fallback_label or FALLBACK_LABEL
    return Head(tuple(names), activation, kind, thresholds, bins, bin_labels, config.min_score, fallback, source)


def _activation(config: HeadConfig, saved: Activation | None, of_head: Activation) -> tuple[Activation, ActivationSource]:
    if config.activation != "auto":
        return config.activation, "job"
    return (of_head, "head") if saved is None else (saved, "CrossEncoder")


def activation_for(problem_type: str | None, num_labels: int) -> Activation:
    """The activation of a head: none for regression, sigmoid for multi-label or a single label, otherwise softmax.

    Source: transformers, pipelines/text_classification.py.
    """
    if problem_type == "regression":
        return "none"
    if problem_type == "multi_label_classification" or num_labels == 1:
        return "sigmoid"
    return "softmax"


def kind_of(problem_type: str | None, num_labels: int) -> Kind:
    """The kind of a head. A regression with several values is single-label (the largest wins), as in the pipeline."""
    if problem_type == "multi_label_classification":
        return "multi_label"
    return "value" if num_labels == 1 else "single_label"


def _renamed(new_names: Mapping[int | str, str], labels: list[str]) -> list[str]:
    renamed = list(labels)
    for key, name in new_names.items():
        place = labels.index(key) if key in labels else int(key) if str(key).isdecimal() else -1
        if not 0 <= place < len(labels):
            raise UserError(f"model.id2label: {key!r} is no label of the model; it has {_listed(labels)}")
        renamed[place] = name
    twice = [name for name in new_names.values() if renamed.count(name) > 1]
    if twice:
        raise UserError(f"model.id2label: two labels would be called {twice[0]!r}; give each a name of its own")
    alike = [number for number, name in enumerate(renamed) if renamed.count(name) > 1]
    if alike:
        ids = [number for number in alike if renamed[number] == renamed[alike[0]]]
        names = ", ".join(f"{number}: NAME" for number in ids[:3]) + (", ..." if len(ids) > 3 else "")
        raise UserError(
            f"model.path: the labels {', '.join(map(str, ids))} of the model are all called {renamed[ids[0]]!r}: a label would"
            f" not say which it is; give each a name of its own: model.id2label='{{{names}}}'"
        )
    return renamed


def _thresholds(threshold: float | dict[str, float] | None, labels: list[str]) -> tuple[float, ...]:
    if not isinstance(threshold, dict):
        return (THRESHOLD if threshold is None else threshold,) * len(labels)
    unknown = [name for name in threshold if name not in labels]
    if unknown:
        raise UserError(f"model.threshold: {unknown[0]!r} is no label of the model; it has {_listed(labels)}")
    return tuple(threshold.get(label, THRESHOLD) for label in labels)


def _listed(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - 10} more" if len(labels) > 10 else ""
    return ", ".join(map(repr, labels[:10])) + more


def check_output(head: Head, output: OutputConfig, *, windows: bool = False, model_type: str = "") -> OutputConfig:
    """The output's settings with `auto` resolved for a head.

    Args:
        windows: long documents are read in windows.

    Raises:
        UserError: a column that this head or kind of model, or truncated documents, cannot have, or two columns of one name.
    """
    if output.embedding == "mean" and model_type in JOINS_TOKENS:
        raise UserError(
            f"output.embedding: a {model_type} model joins tokens, which then have no mean of their own; set it to cls"
        )
    if output.labels is True and head.kind != "multi_label":
        raise UserError(
            "output.labels: true is for multi-label models, and this one gives one label; set model.problem_type:"
            " multi_label_classification, or output.top_k"
        )
    if output.top_k is not None and head.kind == "value":
        raise UserError(f"output.top_k: {output.top_k} is for models with several labels; this one gives one value")
    for key in ("num_windows", "window_scores"):
        if getattr(output, key) is True and not windows:
            raise UserError(f"output.{key}: true is for documents in windows; set model.long_documents: windows")
    multi_label = head.kind == "multi_label" and output.labels is not False
    resolved = output.model_copy(
        update={
            "labels": multi_label,
            "scores": output.scores or multi_label,
            "num_windows": windows and output.num_windows is not False,
        }
    )
    try:
        resolved.check_names()
    except ValueError as error:
        raise UserError(f"output: {error}") from error
    return resolved


def scores_of(logits: np.ndarray, activation: Activation) -> np.ndarray:
    """Scores of logits, float32 (documents, labels) as these; no overflow for any finite logits.

    softmax: exp(x - max) / sum(exp(x - max)); sigmoid: 1 / (1 + exp(-x)), for x < 0 computed as exp(x) / (1 + exp(x)).
    """
    if activation == "none":
        return logits
    if activation == "sigmoid":
        # exp of negative numbers only cannot overflow
        small = np.exp(-np.abs(logits))
        return (np.where(logits >= 0, 1, small) / (1 + small)).astype(np.float32)
    with np.errstate(over="ignore"):  # a difference beyond float32 is -inf: a score of 0
        shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (shifted / shifted.sum(axis=-1, keepdims=True)).astype(np.float32)


@dataclass(frozen=True)
class Predictions:
    """The label of each document.

    names: the labels that occur; labels: int32 (documents,), indices into names; score: float32 (documents,), the best label's,
    or the value.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    score: np.ndarray


def predict(scores: np.ndarray, head: Head) -> Predictions:
    """The label of each document: the one of the highest score, the value's bin, or fallback_label below min_score.

    Args:
        scores: float32 (documents, labels), what scores_of returns.
    """
    best = scores.argmax(axis=1).astype(np.int32) if len(scores) else np.empty(0, np.int32)
    score = scores[np.arange(len(best)), best]
    if head.bins:
        return Predictions(head.bin_labels, np.searchsorted(head.bins, score, side="right").astype(np.int32), score)
    if head.min_score is None or head.fallback_label is None:
        return Predictions(head.labels, best, score)
    unsure = np.int32(len(head.labels))
    return Predictions((*head.labels, head.fallback_label), np.where(score < head.min_score, unsure, best), score)


def labels_above_threshold(scores: np.ndarray, head: Head) -> tuple[np.ndarray, np.ndarray]:
    """The labels of a multi-label head whose score is at least their threshold, highest score first.

    Args:
        scores: float32 (documents, labels).

    Returns:
        (int32 (documents + 1,): offsets of each document's labels among all; int32: label ids).
    """
    order = np.argsort(-scores, axis=1, kind="stable").astype(np.int32)
    given = np.take_along_axis(scores >= np.array(head.thresholds, np.float32), order, axis=1)
    return np.concatenate([[0], given.sum(axis=1).cumsum()]).astype(np.int32), order[given]


def top_k_labels(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(int32 label ids, float32 scores), each (documents, k): the k highest scores in descending order, ties by id."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k].astype(np.int32)
    return order, np.take_along_axis(scores, order, axis=1)


def head_settings(head: Head) -> dict[str, Any]:
    """The settings that results depend on, by config key; without those that this kind of head does not have."""
    settings = {
        "model.labels": list(head.labels),
        "model.activation": head.activation,
        "model.threshold": list(head.thresholds),
        "model.bins": list(head.bins),
        "model.bin_labels": list(head.bin_labels),
        "model.min_score": head.min_score,
        "model.fallback_label": head.fallback_label,
    }
    return {key: value for key, value in settings.items() if value not in (None, [])}
