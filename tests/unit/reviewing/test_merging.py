"""Corrections and training data as one corpus: no document stands there twice, and the last correction counts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline_ops.reviewing.corrections import read_corrections
from pipeline_ops.reviewing.merging import CorrectedDocuments, merge_corrections
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.training.training import split_held_out
from tests.support.corpora import write_jsonl

TEXTS = ["one", "two", "three", "two"]
LABELS = ["a", "b", "a", "a"]
SOURCES = [("/in", row) for row in range(4)]


@pytest.fixture
def merged(tmp_path: Path):
    def merge(*rows: dict[str, Any], corpus: bool = True) -> CorrectedDocuments:
        path = write_jsonl(tmp_path / "c.jsonl", rows)
        corrections = read_corrections([str(path)], StorageConfig(), "input.corrections")
        return merge_corrections(*((TEXTS, LABELS, SOURCES) if corpus else ([], [], [])), corrections)

    return merge


def test_correction_takes_the_place_of_the_same_row_and_of_the_same_text(merged) -> None:
    by_row = {"label": "b", "text": "on▇▇▇", "source_file": "/in", "source_row": 0, "sample": "s"}
    by_text = {"label": "c", "text": "two", "source_file": "/big", "source_row": 9}
    new = {"label": "a", "text": "four"}
    found = merged(by_row, by_text, new)
    assert list(zip(found.texts, found.labels, strict=True)) == [("one", "b"), ("two", "c"), ("four", "a"), ("three", "a")]
    assert (found.corrections, found.in_corpus, found.relabeled, found.new_labels) == (3, 2, 2, {"c": 1})
    for seed in range(20):
        train, held_out = split_held_out(np.unique(found.labels, return_inverse=True)[1], 0.5, seed)
        assert not {found.texts[row] for row in train} & {found.texts[row] for row in held_out}


def test_row_that_holds_another_text_by_now_keeps_its_label(merged) -> None:
    found = merged({"label": "b", "text": "an earlier text", "source_file": "/in", "source_row": 0})
    assert dict(zip(found.texts, found.labels, strict=True))["one"] == "a"
    assert found.in_corpus == 0


def test_later_correction_of_a_row_or_a_text_wins_and_those_without_text_are_counted(merged) -> None:
    rows = [{"label": label, "text": "four", "source_file": "/big", "source_row": row} for row, label in enumerate("ab")]
    found = merged(*rows, {**rows[0], "label": "c"}, {"label": "a"}, {"label": "a", "text": " "})
    assert found.labels[0] == "c"
    assert (found.corrections, found.without_text) == (1, 2)


def test_corrections_alone_are_a_corpus(merged) -> None:
    found = merged(*({"label": label, "text": text} for text, label in zip(TEXTS, LABELS, strict=True)), corpus=False)
    assert (found.texts, found.labels) == (["one", "three", "two"], ["a", "a", "a"])
    assert not found.new_labels


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"label": ["a", "b"], "text": "x"}, r"line 1 of .*: has 2 labels, where each document has one"),
        ({"label": "A", "text": "x"}, r"line 1 of .*: there is no label 'A'; did you mean 'a'\?"),
        ({"label": "a", "text": "x", "text_pair": "y"}, "line 1 of .*: is a pair of texts"),
    ],
)
def test_corrections_that_no_training_can_use_are_named(merged, row: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^input.corrections: {message}"):
        merged(row)
