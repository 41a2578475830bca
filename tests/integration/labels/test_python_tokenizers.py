"""Classifiers whose tokenizer transformers has in Python alone: labels and scores are transformers' own."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from tests.models.python_tokenizers import FAMILIES, make_classifier, texts
from tests.support.corpora import write_jsonl
from tests.support.invariant import check_exactly_once
from tests.support.running import keys, make_job
from tests.support.serial_chain import run_serially

TOLERANCE = 1e-5
LABELS = ("art", "law", "maths")
MAX_LENGTH = 64
TEXTS = [text for text in texts() if len(text) > 1]  # CANINE has no answer for a sequence of three tokens
PAIRS = TEXTS[7:] + TEXTS[:7]
WAYS = {
    "truncated": [],
    "pairs": ["input.text_pair_column=other"],
    "windows": ["model.long_documents=windows"],
}


@pytest.fixture(scope="module")
def classifier_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    return cache(lambda family: make_classifier(tmp_path_factory.mktemp("classifier") / "model", family, LABELS, MAX_LENGTH))


def label(model: Path, folder: Path, *overrides: str) -> pa.Table:
    """The rows in input order."""
    rows = [{"text": text, "other": other} for text, other in zip(TEXTS, PAIRS, strict=True)]
    source = write_jsonl(folder / "in.jsonl", rows)
    run_serially(make_job(source, model, folder / "out", "output.scores=true", *overrides), quiet=True)
    table, rejects = check_exactly_once(folder / "out", keys(source, len(TEXTS)))
    assert rejects == []
    return table.sort_by("source_row")


def said_by_pipeline(model: Path, documents: list[Any]) -> list[list[float]]:
    """The scores of each document, by label in the model's order."""
    torch.set_num_threads(1)
    classify = pipeline("text-classification", model=str(model), device="cpu", dtype=torch.float32)
    answers: Any = classify(documents, truncation=True, max_length=MAX_LENGTH, top_k=None, batch_size=1)
    return [[{answer["label"]: answer["score"] for answer in found}[name] for name in LABELS] for found in answers]


def said_window_by_window(model: Path) -> list[list[float]]:
    """Each window alone through the model, then the mean of the logits."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    classifier = AutoModelForSequenceClassification.from_pretrained(model).eval()
    room, found = MAX_LENGTH - tokenizer.num_special_tokens_to_add(), []
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        parts = [ids[start : start + room] for start in range(0, max(len(ids), 1), room)]
        with torch.inference_mode():
            logits = [
                classifier(**tokenizer.prepare_for_model(part, return_tensors="pt", prepend_batch_axis=True)).logits[0]
                for part in parts
            ]
        found.append(torch.stack(logits).mean(dim=0).softmax(dim=-1).tolist())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_transformers(family: str, way: str, classifier_of: Callable[[str], Path], tmp_path: Path) -> None:
    model = classifier_of(family)
    labeled = label(model, tmp_path, *WAYS[way])
    if way == "windows":
        expected = said_window_by_window(model)
        assert max(labeled["num_windows"].to_pylist()) > 3
    elif way == "pairs":
        pairs = [{"text": text, "text_pair": other} for text, other in zip(TEXTS, PAIRS, strict=True)]
        expected = said_by_pipeline(model, pairs)
    else:
        expected = said_by_pipeline(model, TEXTS)
    np.testing.assert_allclose(labeled["scores"].to_pylist(), expected, rtol=0, atol=TOLERANCE)
    assert labeled["label"].to_pylist() == [LABELS[int(np.argmax(scores))] for scores in expected]
    assert len(set(labeled["label"].to_pylist())) > 1
