"""Tokenizers without a fast version: ids, type ids and truncation as in the tokenizer's own call."""

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from pipeline_ops.models.tokenizer import tokenizer_hash
from pipeline_ops.tokenizing.encoding import Encodings
from pipeline_ops.tokenizing.python_tokenizer import MAX_BPE_WORD, MAX_CHARACTERS
from pipeline_ops.tokenizing.sequences import TextEncoder, definition_of
from pipeline_ops.tokenizing.windows import Windows
from tests.models.python_tokenizers import FAMILIES, JAPANESE, TWEETS, save_tokenizer, texts
from tests.support.tiers import mostly_slow

QUICK = ["PhoBERT"]
SIDES = ["right", "left"]


@cache
def _folder(root: Path, family: str) -> Path:
    save_tokenizer(root / family, family, 128)
    return root / family


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


def tokenizer_of(root: Path, family: str, side: str = "right") -> Any:
    return AutoTokenizer.from_pretrained(_folder(root, family), truncation_side=side)


def encode(tokenizer: Any, max_length: int, *columns: Sequence[str], windows: Windows | None = None) -> Encodings:
    encoder = TextEncoder(definition_of(tokenizer, max_length), with_type_ids=True, pairs=len(columns) > 1, windows=windows)
    return encoder.encode([list(column) for column in columns])


def rows_of(encodings: Encodings) -> list[tuple[list[int], list[int]]]:
    """(ids, type ids) of each sequence."""
    assert encodings.type_ids is not None
    bounds = pairwise([0, *np.cumsum(encodings.lengths).tolist()])
    return [(encodings.ids[begin:end].tolist(), encodings.type_ids[begin:end].tolist()) for begin, end in bounds]


def own_call(tokenizer: Any, max_length: int, *texts: str) -> tuple[list[int], list[int]]:
    encoded = tokenizer(*texts, truncation=True, max_length=max_length, return_token_type_ids=True)
    return encoded["input_ids"], encoded["token_type_ids"]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("family", mostly_slow(FAMILIES, quick=QUICK))
def test_ids_are_those_of_the_tokenizers_own_call(root: Path, family: str, side: str) -> None:
    tokenizer = tokenizer_of(root, family, side)
    documents = [*texts(), "", " ", "</s> x <mask> y <pad>", JAPANESE * 40, " ".join(TWEETS * 20)]
    others = documents[3:] + documents[:3]
    for max_length in (16, 33):
        found = encode(tokenizer, max_length, documents)
        assert rows_of(found) == [own_call(tokenizer, max_length, text) for text in documents]
        assert found.truncated.tolist() == [len(tokenizer(text)["input_ids"]) > max_length for text in documents]
        pairs = [(one, other) for one, other in zip(documents, others, strict=True) if other.strip() or side == "right"]
        found = encode(tokenizer, max_length, *zip(*pairs, strict=True))
        assert rows_of(found) == [own_call(tokenizer, max_length, *pair) for pair in pairs]


@pytest.mark.parametrize("family", mostly_slow(FAMILIES, quick=QUICK))
def test_windows_hold_all_tokens_and_the_first_is_what_truncation_keeps(root: Path, family: str) -> None:
    tokenizer, stride = tokenizer_of(root, family), 5
    special = tokenizer.num_special_tokens_to_add()
    found = encode(tokenizer, 32, texts(), windows=Windows(stride, None, "mean", "logits"))
    assert found.windows is not None
    rows, bounds = rows_of(found), pairwise([0, *np.cumsum(found.windows).tolist()])
    for text, (begin, end) in zip(texts(), bounds, strict=True):
        assert rows[begin] == own_call(tokenizer, 32, text)
        kept = [ids[1 : len(ids) - special + 1] for ids, _ in rows[begin:end]]
        joined = kept[0] + [token for ids in kept[1:] for token in ids[stride:]]
        assert joined == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert not found.truncated.any()
    assert max(found.windows) > 3


@pytest.mark.parametrize("family", mostly_slow(["PhoBERT", "XLM"], quick=QUICK))
def test_of_a_long_text_the_beginning_is_tokenized_and_a_word_that_would_take_minutes_is_refused(
    root: Path, family: str
) -> None:
    tokenizer, word = tokenizer_of(root, family), "x" * (MAX_BPE_WORD + 1)
    prose = " ".join(texts()) * (MAX_CHARACTERS // 2000)
    assert len(prose) > MAX_CHARACTERS
    found = encode(tokenizer, 64, [f"{prose} {word}"])
    assert rows_of(found) == [own_call(tokenizer, 64, prose[:5000])]
    assert found.truncated.tolist() == [True]
    with pytest.raises(ValueError, match="a word of more than 20,000 characters"):
        encode(tokenizer, 64, [f"{word} {prose}"])
    assert rows_of(encode(tokenizer, 64, [" " * (MAX_BPE_WORD + 1)])) == [own_call(tokenizer, 64, "")]


@pytest.mark.parametrize("family", mostly_slow(FAMILIES, quick=QUICK))
def test_hash_follows_vocabulary_and_settings_and_not_the_folder(tmp_path: Path, root: Path, family: str) -> None:
    found = tokenizer_hash(tokenizer_of(root, family))
    assert tokenizer_hash(save_tokenizer(tmp_path / "elsewhere", family, 128)) == found
    changed = {tokenizer_hash(tokenizer_of(root, family, "left"))}
    changed.add(tokenizer_hash(save_tokenizer(tmp_path / "other", family, 128, mask_token="~")))
    files = [file for file in _folder(root, family).iterdir() if not file.name.endswith("config.json")]
    for file in files:
        save_tokenizer(tmp_path / file.name, family, 128)
        lines = file.read_text().splitlines(keepends=True)
        swapped = [*lines[:-2], *lines[:-3:-1]] if len(lines) > 1 else [lines[0].replace(": 20,", ": 2000,")]
        (tmp_path / file.name / file.name).write_text("".join(swapped))
        changed.add(tokenizer_hash(AutoTokenizer.from_pretrained(tmp_path / file.name)))
    assert found not in changed
    assert len(changed) == 2 + len(files)
