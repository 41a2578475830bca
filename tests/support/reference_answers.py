"""Answers of transformers itself, one document or window at a time, and the comparison of a labeled output with them."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

TOLERANCE = 1e-5
Answers = list[dict[str, Any]]  # of a document, the best first: label and score


def check_answers(labeled: pa.Table, expected: Sequence[Answers], labels: Sequence[str]) -> None:
    """Compares labeled documents with transformers' answers.

    Args:
        labels: of the model, in the order of its ids.
    """
    assert labeled["label"].to_pylist() == [answers[0]["label"] for answers in expected]
    np.testing.assert_allclose(labeled["score"], [answers[0]["score"] for answers in expected], rtol=0, atol=TOLERANCE)
    names = [answer["label"] for answer in sorted(expected[0], key=lambda answer: labels.index(answer["label"]))]
    scores = [[{answer["label"]: answer["score"] for answer in answers}[name] for name in names] for answers in expected]
    np.testing.assert_allclose(labeled["scores"].to_pylist(), scores, rtol=0, atol=TOLERANCE)


def pipeline_of(model: Path, **arguments: Any) -> Callable[[list[Any]], list[Answers]]:
    """The text-classification pipeline in float32, for texts or {"text": ..., "text_pair": ...}, one at a time."""
    torch.set_num_threads(1)
    classify: Any = pipeline("text-classification", model=str(model), device="cpu", dtype=torch.float32)
    return partial(classify, truncation=True, top_k=None, batch_size=1, **arguments)


def said_window_by_window(
    model: Path, documents: list[tuple[str, ...]], how: str, *, max_length: int, stride: int
) -> list[Answers]:
    """A straightforward reference: each window alone through the model, then the mean of the logits or scores."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    classifier = AutoModelForSequenceClassification.from_pretrained(model).eval()
    names = list(classifier.config.id2label.values())
    answers = []
    for texts in documents:
        lengths = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
        # of a pair the longer text is read in windows
        strategy = "only_first" if len(texts) == 1 or lengths[0] > lengths[1] else "only_second"
        windows = tokenizer(
            *texts, truncation=strategy, max_length=max_length, stride=stride, return_overflowing_tokens=True, padding=False
        )
        found = []
        for number in range(len(windows["input_ids"])):
            inputs = {name: torch.tensor([windows[name][number]]) for name in tokenizer.model_input_names if name in windows}
            with torch.inference_mode():
                found.append(classifier(**inputs).logits[0])
        values = torch.stack(found)
        scores = values.mean(dim=0).softmax(dim=-1) if how == "logits" else values.softmax(dim=-1).mean(dim=0)
        named = [{"label": name, "score": float(score)} for name, score in zip(names, scores, strict=True)]
        answers.append(sorted(named, key=lambda answer: -answer["score"]))
    return answers
