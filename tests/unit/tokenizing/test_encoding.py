"""Texts -> token ids -> padded batches, against transformers' own tokenizer calls and published numbers."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from pipeline_ops.schema.bisection import ALL_FAILED_MIN
from pipeline_ops.tokenizing.batching import attention_mask, make_batches
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
