"""Pairs and windows, token by token as the tokenizers library lays them out; what windows say together."""

import random
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from pipeline_ops.schema.errors import UserError
from pipeline_ops.tokenizing.encoding import Encodings, encode_isolating_failures
from pipeline_ops.tokenizing.layout import longest_first
from pipeline_ops.tokenizing.rust_tokenizer import RustTokenizer
from pipeline_ops.tokenizing.sequences import TextEncoder
from pipeline_ops.tokenizing.windows import (
    Windows,
)
from tests.models.tokenizer_families import FAMILIES, definition_of
from tests.support.corpora import EDGE_CASES, real_documents
from tests.support.tiers import mostly_slow

SIDES = ["right", "left"]
FEW = ["bert", "roberta", "xlm_roberta", "llama_3"]  # with token types, without, with a token twice in the middle, without any


@cache
def texts() -> tuple[str, ...]:
    return tuple(text[:400] for text in real_documents(60)) + EDGE_CASES


def definition(family: str, max_length: int, side: str) -> str:
    """As the driver gives it to the actors."""
    tokenizer = Tokenizer.from_str(definition_of(family))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length, direction=side)
    return tokenizer.to_str()


def reference(family: str) -> Tokenizer:
    tokenizer = Tokenizer.from_str(definition_of(family))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def rows_of(encodings: Encodings) -> list[list[int]]:
    """The ids of each sequence."""
    ends = np.cumsum(encodings.lengths)
    return [encodings.ids[stop - count : stop].tolist() for stop, count in zip(ends, encodings.lengths, strict=True)]


def by_document(rows: list[Any], windows: np.ndarray) -> list[list[Any]]:
    return [rows[start:stop] for start, stop in pairwise([0, *np.cumsum(windows).tolist()])]


def windows_of(stride: int = 0, max_windows: int | None = None) -> Windows:
    return Windows(stride, max_windows, "mean", "logits")


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("family", mostly_slow(FAMILIES, quick=["bert"]))
def test_pairs_have_the_ids_and_types_that_the_tokenizers_library_gives_them(family: str, side: str) -> None:
    shuffled = random.Random(1).sample(texts(), len(texts()))
    pairs = list(zip(texts(), shuffled, strict=True))
    plain = reference(family)
    for max_length in (9, 16, 33, 128):
        encoder = TextEncoder(definition(family, max_length, side), with_type_ids=True, pairs=True)
        found = encoder.encode([list(texts()), shuffled])
        plain.enable_truncation(max_length, direction=side)
        expected = plain.encode_batch(pairs)
        assert rows_of(found) == [encoding.ids for encoding in expected]
        assert found.type_ids is not None
        assert found.type_ids.tolist() == [type_id for encoding in expected for type_id in encoding.type_ids]
        assert found.truncated.tolist() == [bool(encoding.overflowing) for encoding in expected]
        assert found.windows is None


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("family", mostly_slow(FEW, quick=["xlm_roberta"]))
def test_pairs_of_long_texts_of_which_only_a_part_is_tokenized_are_cut_like_short_ones(family: str, side: str) -> None:
    long = " ".join(text for text in texts() if text.isascii())[:4000]
    first = [long, long + long[:500], "short", long, long]
    second = ["short", long, long * 2, long, long[3:]]
    plain = reference(family)
    for max_length in (64, 65):
        encoder = TextEncoder(definition(family, max_length, side), with_type_ids=False, pairs=True)
        tokenizer = RustTokenizer(Tokenizer.from_str(definition(family, max_length, side)), pairs=True, windows=None)
        assert tokenizer.early_truncation is not None
        plain.enable_truncation(max_length, direction=side)
        expected = [plain.encode(*pair).ids for pair in zip(first, second, strict=True)]
        assert rows_of(encoder.encode([first, second])) == expected


@pytest.mark.parametrize("stride", [0, 1, 5])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("family", mostly_slow(FAMILIES, quick=FEW))
def test_windows_are_the_overflow_of_the_tokenizers_library(family: str, side: str, stride: int) -> None:
    plain = reference(family)
    plain.enable_truncation(16, stride=stride, direction=side)
    expected = [[encoding, *encoding.overflowing] for encoding in plain.encode_batch(list(texts()))]
    encoder = TextEncoder(definition(family, 16, side), with_type_ids=True, windows=windows_of(stride))
    found = encoder.encode([list(texts())])
    assert found.windows is not None
    assert found.windows.tolist() == [len(parts) for parts in expected]
    assert rows_of(found) == [part.ids for parts in expected for part in parts]
    assert found.type_ids is not None
    assert found.type_ids.tolist() == [type_id for parts in expected for part in parts for type_id in part.type_ids]
    assert not found.truncated.any()
    assert found.num_tokens.tolist() == [sum(len(part.ids) for part in parts) for parts in expected]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("family", FEW)
def test_max_windows_keeps_the_first_ones_and_says_that_there_were_more(family: str, side: str) -> None:
    given = [*texts(), " ".join(texts()) * 5]
    everything = TextEncoder(definition(family, 16, side), with_type_ids=True, windows=windows_of(3)).encode([given])
    assert everything.windows is not None
    all_windows = by_document(rows_of(everything), everything.windows)
    for most in (1, 2, 7):
        encoder = TextEncoder(definition(family, 16, side), with_type_ids=True, windows=windows_of(3, most))
        found = encoder.encode([given])
        assert found.windows is not None
        assert by_document(rows_of(found), found.windows) == [rows[:most] for rows in all_windows]
        assert found.truncated.tolist() == [len(rows) > most for rows in all_windows]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("long", [0, 1])
@pytest.mark.parametrize("family", FEW)
def test_windows_of_a_pair_go_over_its_longer_text(family: str, long: int, side: str) -> None:
    question = "where is it?"
    plain = reference(family)
    documents = [text for text in texts() if len(plain.encode(text, add_special_tokens=False)) > 20]
    plain.enable_truncation(40, stride=4, strategy="only_first" if long == 0 else "only_second", direction=side)
    pairs = [(text, question) if long == 0 else (question, text) for text in documents]
    expected = [[encoding, *encoding.overflowing] for encoding in plain.encode_batch(pairs)]
    encoder = TextEncoder(definition(family, 40, side), with_type_ids=True, pairs=True, windows=windows_of(4))
    found = encoder.encode([list(column) for column in zip(*pairs, strict=True)])
    assert found.windows is not None
    assert by_document(rows_of(found), found.windows) == [[part.ids for part in parts] for parts in expected]
    assert not found.truncated.any()
    assert max(found.windows) > 3


def test_first_window_of_a_pair_is_what_truncation_leaves() -> None:
    shuffled = random.Random(2).sample(texts(), len(texts()))
    columns = [list(texts()), shuffled]
    cut = TextEncoder(definition("bert", 33, "right"), with_type_ids=True, pairs=True).encode(columns)
    found = TextEncoder(definition("bert", 33, "right"), with_type_ids=True, pairs=True, windows=windows_of(2)).encode(columns)
    assert found.windows is not None
    assert [rows[0] for rows in by_document(rows_of(found), found.windows)] == rows_of(cut)


def test_windows_of_documents_of_which_one_makes_the_tokenizer_raise_are_the_others() -> None:
    encoder = TextEncoder(definition("bert", 16, "right"), with_type_ids=False, windows=windows_of())
    given = list(dict.fromkeys(texts()))
    expected = encoder.encode([[*given[:7], *given[8:]]])

    def encode(rows: slice) -> Encodings:
        if given[7] in given[rows]:
            raise ValueError("a bad text")
        return encoder.encode([given[rows]])

    found, failed = encode_isolating_failures(encode, len(given))
    assert list(failed) == [7]
    assert rows_of(found) == rows_of(expected)
    assert found.windows is not None
    assert expected.windows is not None
    assert found.windows.tolist() == expected.windows.tolist()


def test_texts_in_another_order_than_they_are_given_are_refused() -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "<s>": 1}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $B $A", special_tokens=[("<s>", 1)])
    tokenizer.enable_truncation(16)
    with pytest.raises(UserError, match=r"input\.text_pair_column: this model's tokenizer"):
        TextEncoder(tokenizer.to_str(), with_type_ids=False, pairs=True)
    assert TextEncoder(tokenizer.to_str(), with_type_ids=False, windows=windows_of()).encode([["a a"]]).ids.tolist() == [
        1,
        0,
        0,
    ]


def test_longest_first_keeps_the_odd_token_of_the_longer_text() -> None:
    assert longest_first(10, 10, 15) == (7, 8)
    assert longest_first(11, 10, 15) == (8, 7)
    assert longest_first(3, 20, 15) == (3, 12)
    assert longest_first(20, 3, 15) == (12, 3)
    assert longest_first(5, 10, 15) == (5, 10)
