"""Texts -> token ids -> padded batches, against transformers' own tokenizer calls and published numbers."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from pipeline_ops.schema.bisection import ALL_FAILED_MIN
from pipeline_ops.tokenizing.batching import (
    TokenBatches,
    attention_mask,
    batches_from_columns,
    batches_to_columns,
    make_batches,
)
from pipeline_ops.tokenizing.encoding import Encodings, encode, encode_isolating_failures, truncating_backend
from tests.models.harmful import KNOWN_WORDS, UNKNOWN_WORD, save_word_tokenizer
from tests.models.tiny import ARCHITECTURES, Architecture
from tests.support.corpora import real_documents

TRANSFORMERS_LIBRARY = "We are very happy to show you the 🤗 Transformers library."
TRANSFORMERS_LIBRARY_IDS = [101, 2057, 2024, 2200, 3407, 2000, 2265, 2017, 1996, 100, 19081, 3075, 1012, 102]
HATE_IT = "We hope you don't hate it."
HATE_IT_IDS = [101, 2057, 3246, 2017, 2123, 1005, 1056, 5223, 2009, 1012, 102]


@cache
def documents() -> tuple[str, ...]:
    return tuple(document[:20_000] for document in real_documents(150))


def load(folder: Path, **settings: Any) -> Any:
    return AutoTokenizer.from_pretrained(folder, **settings)


def backend(tokenizer: Any, max_length: int) -> Any:
    """What the actors have: it has traveled as JSON."""
    return Tokenizer.from_str(truncating_backend(tokenizer, max_length).to_str())


def random_encodings(seed: int, count: int, longest: int = 100, with_types: bool = True) -> Encodings:
    """Documents of token ids that differ everywhere, so that a token in a wrong place shows."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest + 1, count).astype(np.int32)
    total = int(lengths.sum())
    types = rng.integers(0, 2, total).astype(np.int8) if with_types else None
    return Encodings(np.arange(1000, 1000 + total, dtype=np.int32), types, lengths, np.zeros(count, bool))


def unpadded(batches: TokenBatches, flat: np.ndarray, pad_left: bool) -> tuple[list[list[int]], list[int]]:
    """(each document's values, in the unit's row order; all values that stand on padding)."""
    found: list[list[int]] = [[] for _ in batches.order]
    padding: list[int] = []
    position = row = 0
    for count, width in zip(batches.rows.tolist(), batches.widths.tolist(), strict=True):
        block = flat[position : position + count * width].reshape(count, width)
        mask = attention_mask(batches.lengths[row : row + count], width, pad_left)
        for index in range(count):
            found[int(batches.order[row + index])] = block[index][mask[index] == 1].tolist()
            padding += block[index][mask[index] == 0].tolist()
        position, row = position + count * width, row + count
    assert position == len(flat)
    return found, padding


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (TRANSFORMERS_LIBRARY, TRANSFORMERS_LIBRARY_IDS),
        (HATE_IT, HATE_IT_IDS),
        (
            "I've been waiting for a HuggingFace course my whole life.",
            [101, 1045, 1005, 2310, 2042, 3403, 2005, 1037, 17662, 12172, 2607, 2026, 2878, 2166, 1012, 102],
        ),
        ("I hate this so much!", [101, 1045, 5223, 2023, 2061, 2172, 999, 102]),
    ],
)
def test_encode_of_known_sentences_gives_the_published_ids(golden_tokenizer: Path, text: str, ids: list[int]) -> None:
    encodings = encode([text], backend(load(golden_tokenizer), 512), with_type_ids=True)
    assert encodings.ids.tolist() == ids
    assert encodings.lengths.tolist() == [len(ids)]
    assert encodings.truncated.tolist() == [False]
    assert encodings.type_ids is not None
    assert encodings.type_ids.tolist() == [0] * len(ids)


def test_batch_of_two_known_sentences_is_padded_and_masked_as_published(golden_tokenizer: Path) -> None:
    encodings = encode([TRANSFORMERS_LIBRARY, HATE_IT], backend(load(golden_tokenizer), 512), with_type_ids=True)
    batches = make_batches(encodings, batch_tokens=1000, pad_id=0, pad_multiple=1)
    assert (batches.rows.tolist(), batches.widths.tolist(), batches.order.tolist()) == ([2], [14], [1, 0])
    shorter, longer = batches.ids.reshape(2, 14).tolist()
    assert shorter == [*HATE_IT_IDS, 0, 0, 0]
    assert longer == TRANSFORMERS_LIBRARY_IDS
    assert attention_mask(batches.lengths, 14, False).tolist() == [[1] * 11 + [0] * 3, [1] * 14]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("max_length", [3, 128])
def test_encode_of_real_documents_gives_what_the_tokenizer_call_gives(
    model_of: Callable[[Architecture], Path], architecture: Architecture, max_length: int
) -> None:
    texts = list(documents())
    reference = load(model_of(architecture))
    expected = reference(texts, truncation=True, max_length=max_length)
    whole = reference(texts)["input_ids"]
    with_types = "token_type_ids" in expected
    encodings = encode(texts, backend(load(model_of(architecture)), max_length), with_type_ids=with_types)

    ends = np.cumsum(encodings.lengths)[:-1]
    assert [part.tolist() for part in np.split(encodings.ids, ends)] == expected["input_ids"]
    assert encodings.truncated.tolist() == [len(ids) > max_length for ids in whole]
    if encodings.type_ids is not None:
        assert [part.tolist() for part in np.split(encodings.type_ids, ends)] == expected["token_type_ids"]
    assert (encodings.ids.dtype, encodings.lengths.dtype, encodings.truncated.dtype) == (np.int32, np.int32, bool)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_encode_with_a_tokenizer_that_truncates_left_keeps_the_ends(
    model_of: Callable[[Architecture], Path], architecture: Architecture
) -> None:
    texts = list(documents())[:50]
    expected = load(model_of(architecture), truncation_side="left")(texts, truncation=True, max_length=10)["input_ids"]
    encodings = encode(texts, backend(load(model_of(architecture), truncation_side="left"), 10), with_type_ids=False)
    assert encodings.ids.tolist() == [token for ids in expected for token in ids]


def test_encode_with_a_tokenizer_that_pads_by_itself_gives_no_padding(model: Path) -> None:
    tokenizer = load(model)
    tokenizer.backend_tokenizer.enable_padding(length=64)
    encodings = encode(["a", "a b c"], backend(tokenizer, 128), with_type_ids=False)
    assert encodings.lengths.tolist() == [len(ids) for ids in load(model)(["a", "a b c"])["input_ids"]]


def test_encode_again_with_another_max_length_forgets_the_first(model: Path) -> None:
    tokenizer = load(model)
    encode(list(documents())[:20], backend(tokenizer, 5), with_type_ids=False)
    again = encode(list(documents())[:20], backend(tokenizer, 64), with_type_ids=False)
    fresh = encode(list(documents())[:20], backend(load(model), 64), with_type_ids=False)
    np.testing.assert_array_equal(again.ids, fresh.ids)
    np.testing.assert_array_equal(again.truncated, fresh.truncated)


def test_encode_of_a_megabyte_document_gives_what_the_tokenizer_call_gives(model: Path) -> None:
    text = " ".join(documents())[: 2**20]
    encodings = encode(["short", text, "", text[:5000]], backend(load(model), 128), with_type_ids=False)
    expected = load(model)(["short", text, "", text[:5000]], truncation=True, max_length=128)["input_ids"]
    assert encodings.ids.tolist() == [token for ids in expected for token in ids]
    assert encodings.truncated.tolist() == [False, True, False, True]


@pytest.mark.parametrize("with_type_ids", [True, False])
def test_encode_of_no_documents_gives_none(model: Path, with_type_ids: bool) -> None:
    encodings = encode([], backend(load(model), 128), with_type_ids=with_type_ids)
    assert (len(encodings.ids), len(encodings.lengths), len(encodings.truncated)) == (0, 0, 0)
    batches = make_batches(encodings, batch_tokens=100, pad_id=0)
    assert (len(batches.ids), len(batches.order), len(batches.rows), len(batches.widths)) == (0, 0, 0, 0)


def test_encode_of_texts_with_the_padding_token_keeps_it_a_token(model_of: Callable[[Architecture], Path]) -> None:
    """RoBERTa's pad id is 1; a text may hold it, and the mask is 1 there."""
    tokenizer = load(model_of("roberta"))
    encodings = encode(
        ["<pad> a <pad>", "a long text that makes the other one be padded"], backend(tokenizer, 128), with_type_ids=False
    )
    batches = make_batches(encodings, batch_tokens=1000, pad_id=tokenizer.pad_token_id)
    found, padding = unpadded(batches, batches.ids, pad_left=False)
    assert tokenizer.pad_token_id == 1
    assert found[0].count(1) == 2
    assert set(padding) == {1}


def word_texts(count: int, bad: set[int]) -> list[str]:
    """Texts of known words, of different lengths; those in `bad` hold one that makes the word tokenizer raise."""
    texts = [" ".join(KNOWN_WORDS[(row + place) % 5] for place in range(row % 7)) for row in range(count)]
    return [f"{text} {UNKNOWN_WORD}" if row in bad else text for row, text in enumerate(texts)]


def encode_rows_of(texts: list[str], backend: Any, with_type_ids: bool) -> tuple[Encodings, dict[int, BaseException]]:
    return encode_isolating_failures(lambda rows: encode(texts[rows], backend, with_type_ids=with_type_ids), len(texts))


@pytest.mark.parametrize("with_type_ids", [True, False])
@pytest.mark.parametrize("bad", [set(), {0}, {29}, {0, 1, 2, 17}, {*range(1, 30)}, {*range(0, 30, 2)}])
def test_encode_of_texts_of_which_some_raise_gives_the_others_as_they_are(
    tmp_path: Path, bad: set[int], with_type_ids: bool
) -> None:
    tokenizer = load(save_word_tokenizer(tmp_path))
    texts = word_texts(30, bad)
    encodings, failed = encode_rows_of(texts, backend(tokenizer, 5), with_type_ids)
    good = [text for row, text in enumerate(texts) if row not in bad]
    expected = encode(good, backend(tokenizer, 5), with_type_ids=with_type_ids)
    assert failed.keys() == bad
    for name in ("ids", "type_ids", "lengths", "truncated"):
        found = getattr(encodings, name)
        assert (found is None) == (getattr(expected, name) is None)
        if found is not None:
            assert found.dtype == getattr(expected, name).dtype
            np.testing.assert_array_equal(found, getattr(expected, name))


def test_encode_of_few_texts_that_all_raise_gives_none_and_of_many_blames_the_tokenizer(tmp_path: Path) -> None:
    tokenizer = load(save_word_tokenizer(tmp_path))
    encodings, failed = encode_rows_of([UNKNOWN_WORD] * 3, backend(tokenizer, 5), True)
    assert list(failed) == [0, 1, 2]
    assert all("UNK" in str(error) for error in failed.values())
    assert (len(encodings.ids), len(encodings.lengths), len(encodings.truncated)) == (0, 0, 0)
    with pytest.raises(Exception, match="UNK"):
        encode_rows_of([UNKNOWN_WORD] * ALL_FAILED_MIN, backend(tokenizer, 5), True)


class PanicException(BaseException):
    """As pyo3's, which is no Exception either."""


class Panicking:
    """A tokenizer's backend that panics at some texts."""

    def __init__(self, backend: Any):
        self.backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def encode_batch_fast(self, texts: list[str], **settings: Any) -> Any:
        if any("panic" in text for text in texts):
            raise PanicException("index out of bounds")
        return self.backend.encode_batch_fast(texts, **settings)


@pytest.mark.parametrize("count", [3, ALL_FAILED_MIN])
def test_encode_of_texts_that_make_rust_panic_gives_exceptions_that_handlers_see(model: Path, count: int) -> None:
    tokenizer = SimpleNamespace(backend_tokenizer=Panicking(load(model).backend_tokenizer), truncation_side="right")
    encodings, failed = encode_rows_of(["a panic", "a text"], truncating_backend(tokenizer, 128), False)
    assert encodings.ids.tolist() == load(model)("a text")["input_ids"]
    assert isinstance(failed[0], Exception)
    assert "panicked: index out of bounds" in str(failed[0])
    if count == ALL_FAILED_MIN:
        with pytest.raises(RuntimeError, match="panicked"):
            encode_rows_of(["a panic"] * count, truncating_backend(tokenizer, 128), False)


@pytest.mark.parametrize("pad_left", [False, True])
@pytest.mark.parametrize("pad_id", [0, 1, 7])
@pytest.mark.parametrize("seed", range(3))
def test_batches_hold_every_token_once_and_the_pad_id_elsewhere(seed: int, pad_id: int, pad_left: bool) -> None:
    encodings = random_encodings(seed, count=150)
    assert encodings.type_ids is not None
    batches = make_batches(encodings, batch_tokens=500, pad_id=pad_id, pad_type_id=3, pad_left=pad_left)
    found, padding = unpadded(batches, batches.ids, pad_left)
    ends = np.cumsum(encodings.lengths)[:-1]
    assert found == [part.tolist() for part in np.split(encodings.ids, ends)]
    assert set(padding) == {pad_id}
    found_types, type_padding = unpadded(batches, batches.type_ids, pad_left)
    assert found_types == [part.tolist() for part in np.split(encodings.type_ids, ends)]
    assert set(type_padding) == {3}


@pytest.mark.parametrize("batch_tokens", [1, 64, 500, 2048, 10**6])
@pytest.mark.parametrize("max_width", [None, 100])
def test_batches_keep_the_token_budget_and_their_widths(batch_tokens: int, max_width: int | None) -> None:
    encodings = random_encodings(4, count=300)
    batches = make_batches(encodings, batch_tokens=batch_tokens, pad_id=0, max_width=max_width)
    assert int(batches.rows.sum()) == 300
    assert sorted(batches.order.tolist()) == list(range(300))
    np.testing.assert_array_equal(batches.lengths, encodings.lengths[batches.order])
    assert (np.diff(batches.lengths) >= 0).all()
    row = 0
    for count, width in zip(batches.rows.tolist(), batches.widths.tolist(), strict=True):
        longest = int(batches.lengths[row : row + count].max())
        assert count == 1 or count * width <= batch_tokens
        assert width == min(-(-longest // 8) * 8, max_width or 10**9)
        row += count


def test_batches_are_as_large_as_the_budget_allows() -> None:
    lengths = np.full(100, 16, np.int32)
    encodings = Encodings(np.zeros(1600, np.int32), None, lengths, np.zeros(100, bool))
    assert make_batches(encodings, batch_tokens=640, pad_id=0).rows.tolist() == [40, 40, 20]


def test_batches_with_equal_lengths_keep_the_row_order() -> None:
    lengths = np.array([5, 3, 5, 3, 3], np.int32)
    encodings = Encodings(np.arange(19, dtype=np.int32), None, lengths, np.zeros(5, bool))
    assert make_batches(encodings, batch_tokens=1000, pad_id=0).order.tolist() == [1, 3, 4, 0, 2]


def test_batches_of_sorted_real_documents_hold_little_padding(model: Path) -> None:
    encodings = encode(list(documents()), backend(load(model), 128), with_type_ids=False)
    batches = make_batches(encodings, batch_tokens=1024, pad_id=0, max_width=128)
    assert 1 - encodings.lengths.sum() / len(batches.ids) < 0.1  # of 150 documents; it shrinks with their number


@pytest.mark.parametrize("seed", range(20))
def test_a_batch_is_as_full_as_its_budget_and_little_padding_allow(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.lognormal(4, 1, rng.integers(1, 60)).astype(np.int32).clip(1, 256)
    encodings = Encodings(np.ones(lengths.sum(), np.int32), None, lengths, np.zeros(len(lengths), bool))
    batches = make_batches(encodings, batch_tokens=320, pad_id=0, pad_multiple=1)
    ends = np.cumsum(batches.rows)
    for start, end, width in zip(ends - batches.rows, ends, batches.widths, strict=True):

        def fits(documents: np.ndarray) -> bool:
            padded = len(documents) * int(documents.max())
            return padded <= 320 and padded - documents.sum() <= 10

        assert width == batches.lengths[start:end].max()
        assert fits(batches.lengths[start:end]) or end - start == 1
        assert end == len(lengths) or not fits(batches.lengths[start : end + 1])


def test_batches_of_a_model_without_type_ids_hold_none() -> None:
    batches = make_batches(random_encodings(5, 20, with_types=False), batch_tokens=100, pad_id=0)
    assert (len(batches.type_ids), batches.type_ids.dtype) == (0, np.int8)


@pytest.mark.parametrize(("pad_left", "expected"), [(False, [[1, 0, 0], [1, 1, 1]]), (True, [[0, 0, 1], [1, 1, 1]])])
def test_mask_is_0_on_the_padded_side(pad_left: bool, expected: list[list[int]]) -> None:
    mask = attention_mask(np.array([1, 3], np.int32), 3, pad_left)
    assert mask.tolist() == expected
    assert mask.dtype == np.int64


@pytest.mark.parametrize("count", [0, 1, 50])
def test_batches_as_arrow_columns_come_back_the_same(count: int) -> None:
    batches = make_batches(random_encodings(6, count), batch_tokens=300, pad_id=0)
    row = pa.table(batches_to_columns(batches))
    assert row.num_rows == 1
    back = batches_from_columns(row)
    for name, array in vars(batches).items():
        assert getattr(back, name).dtype == array.dtype
        np.testing.assert_array_equal(getattr(back, name), array)
