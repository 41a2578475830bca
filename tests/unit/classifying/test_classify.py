"""Padded batches -> logits in the order of the rows, whatever the batches were."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, GPT2Config, GPT2ForSequenceClassification

from pipeline_ops.classifying.classify import classify, classify_isolating_failures
from pipeline_ops.classifying.forward_pass import ForwardPasses
from pipeline_ops.schema.bisection import ALL_FAILED_MIN
from pipeline_ops.tokenizing.batching import TokenBatches, make_batches
from pipeline_ops.tokenizing.encoding import Encodings, encode, truncating_backend
from tests.models.tiny import ARCHITECTURES, Architecture
from tests.support.corpora import real_documents

torch.set_num_threads(1)


@cache
def load(folder: Path) -> tuple[Any, Any]:
    return AutoModelForSequenceClassification.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


@cache
def one_by_one(folder: Path, count: int) -> np.ndarray:
    """Logits of single forward passes without padding."""
    model, tokenizer = load(folder)
    with torch.inference_mode():
        passes = [
            model(**tokenizer(text, truncation=True, max_length=128, return_tensors="pt")).logits for text in texts(count)
        ]
    return torch.cat(passes).numpy()


@cache
def texts(count: int) -> tuple[str, ...]:
    return tuple(real_documents(count))


def batches_for(folder: Path, count: int, batch_tokens: int, pad_multiple: int = 8) -> TokenBatches:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with_type_ids = "token_type_ids" in tokenizer.model_input_names
    encodings = encode(list(texts(count)), truncating_backend(tokenizer, 128), with_type_ids=with_type_ids)
    return make_batches(
        encodings, batch_tokens=batch_tokens, pad_id=tokenizer.pad_token_id, pad_multiple=pad_multiple, max_width=128
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("batch_tokens", [1, 512, 10**6])
def test_logits_of_batches_equal_those_of_single_documents(
    model_of: Callable[[Architecture], Path], architecture: Architecture, batch_tokens: int
) -> None:
    folder = model_of(architecture)
    logits = classify(batches_for(folder, 60, batch_tokens), load(folder)[0], num_labels=2, pad_left=False)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, one_by_one(folder, 60), atol=1e-5)
    assert np.std(logits[:, 0]) > 0.1  # else any order would do


def test_logits_without_rounded_widths_are_the_same(model: Path) -> None:
    logits = classify(batches_for(model, 60, 512, pad_multiple=1), load(model)[0], num_labels=2, pad_left=False)
    np.testing.assert_allclose(logits, one_by_one(model, 60), atol=1e-5)


def test_logits_of_no_documents_are_none(model: Path) -> None:
    empty = np.empty(0, np.int32)
    batches = make_batches(Encodings(empty, None, empty, np.empty(0, bool)), batch_tokens=100, pad_id=0)
    logits = classify(batches, load(model)[0], num_labels=2, pad_left=False)
    assert (logits.shape, logits.dtype) == ((0, 2), np.float32)


def test_logits_from_read_only_arrow_memory_are_the_same(model: Path) -> None:
    batches = batches_for(model, 20, 512)
    for array in vars(batches).values():
        array.setflags(write=False)
    logits = classify(batches, load(model)[0], num_labels=2, pad_left=False)
    np.testing.assert_allclose(logits, one_by_one(model, 20), atol=1e-5)


def test_logits_of_another_number_than_the_config_says_fail(model: Path) -> None:
    with pytest.raises(ValueError, match="3 labels"):
        classify(batches_for(model, 4, 512), load(model)[0], num_labels=3, pad_left=False)


def test_logits_of_a_bfloat16_model_are_float32_and_near(model: Path) -> None:
    low = AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.bfloat16).eval()
    logits = classify(batches_for(model, 20, 512), low, num_labels=2, pad_left=False)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, one_by_one(model, 20), atol=0.2)


@pytest.mark.parametrize("pad_left", [False, True])
def test_logits_of_a_decoder_do_not_depend_on_the_padding(pad_left: bool) -> None:
    """GPT-2 learned its positions: where padding stands on the left, the first token's position is still 0."""
    torch.manual_seed(0)
    config = GPT2Config(
        **{"vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
        **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "initializer_range": 0.5},
    )
    decoder = GPT2ForSequenceClassification(config).eval()
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 30, 12).astype(np.int32)
    encodings = Encodings(rng.integers(2, 50, lengths.sum()).astype(np.int32), None, lengths, np.zeros(12, bool))
    alone = make_batches(encodings, batch_tokens=1, pad_id=0, pad_left=pad_left, pad_multiple=1)
    together = make_batches(encodings, batch_tokens=1000, pad_id=0, pad_left=pad_left)
    expected = classify(alone, decoder, num_labels=2, pad_left=pad_left)
    assert np.std(expected[:, 0]) > 0.1
    np.testing.assert_allclose(classify(together, decoder, num_labels=2, pad_left=pad_left), expected, atol=1e-4)


def with_unembedded(batches: TokenBatches, model: Any, documents: set[int]) -> TokenBatches:
    """The batches, with a token id in each of these documents that the model has no embedding for."""
    ids, position, row = batches.ids.copy(), 0, 0
    for count, width in zip(batches.rows.tolist(), batches.widths.tolist(), strict=True):
        for document in batches.order[row : row + count].tolist():
            if document in documents:
                ids[position] = model.get_input_embeddings().num_embeddings
            position += width
        row += count
    return replace(batches, ids=ids)


@pytest.mark.parametrize("batch_tokens", [1, 512, 10**6])
@pytest.mark.parametrize("bad", [{0}, {59}, {3, 4, 5}, {*range(0, 60, 2)}, {*range(1, 60)}])
def test_logits_beside_documents_that_make_the_model_raise_are_the_same(model: Path, bad: set[int], batch_tokens: int) -> None:
    classifier, batches = load(model)[0], batches_for(model, 60, batch_tokens)
    logits, failed = classify_isolating_failures(
        with_unembedded(batches, classifier, bad), ForwardPasses(classifier, pad_left=False), num_labels=2
    )
    expected = classify(batches, classifier, num_labels=2, pad_left=False)
    good = sorted({*range(60)} - bad)
    assert failed.keys() == bad
    assert all(isinstance(error, IndexError) for error in failed.values())
    assert (logits.shape, logits.dtype) == ((60, 2), np.float32)
    assert np.isnan(logits[sorted(bad)]).all()
    np.testing.assert_allclose(logits[good], expected[good], atol=1e-5)  # batches of other shapes, other sums


@pytest.mark.parametrize("most", [1, 2, 127])
def test_logits_beside_documents_with_token_types_that_the_model_lacks_are_the_same(model: Path, most: int) -> None:
    """Checked before the device is: a GPU would be lost to the process."""
    classifier, batches = load(model)[0], batches_for(model, 60, 512)
    type_ids, bad = batches.type_ids.copy(), int(batches.order[0])
    type_ids[0] = most
    logits, failed = classify_isolating_failures(
        replace(batches, type_ids=type_ids), ForwardPasses(classifier, pad_left=False), num_labels=2
    )
    good = [document for document in range(60) if document != bad]
    np.testing.assert_allclose(logits[good], one_by_one(model, 60)[good], atol=1e-5)
    assert {document: str(error).split(";")[0] for document, error in failed.items()} == (
        {} if most == 1 else {bad: f"token type {most}, the model has embeddings for 2"}
    )


@pytest.mark.parametrize("batch_tokens", [1, 512, 10**6])
def test_logits_of_documents_that_all_make_the_model_raise_blame_the_model(model: Path, batch_tokens: int) -> None:
    classifier, batches = load(model)[0], batches_for(model, ALL_FAILED_MIN, batch_tokens)
    with pytest.raises(IndexError, match="token id"):
        classify_isolating_failures(
            with_unembedded(batches, classifier, {*range(60)}), ForwardPasses(classifier, pad_left=False), num_labels=2
        )


def test_logits_of_a_few_documents_that_all_make_the_model_raise_are_not_numbers(model: Path) -> None:
    classifier, batches = load(model)[0], batches_for(model, 3, 512)
    logits, failed = classify_isolating_failures(
        with_unembedded(batches, classifier, {0, 1, 2}), ForwardPasses(classifier, pad_left=False), num_labels=2
    )
    assert sorted(failed) == [0, 1, 2]
    assert (logits.shape, np.isnan(logits).all()) == ((3, 2), True)
    with pytest.raises(IndexError, match="token id"):
        classify(with_unembedded(batches, classifier, {1}), classifier, num_labels=2, pad_left=False)


class Failing(torch.nn.Module):
    """A model that raises when it has too much to do at once, or at all."""

    def __init__(self, model: Any, error: Exception, most: int):
        super().__init__()
        self.model, self.error, self.most = model, error, most
        self.device, self.batches = model.device, 0

    def get_input_embeddings(self) -> Any:
        return self.model.get_input_embeddings()

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        self.batches += 1
        if len(input_ids) > self.most:
            raise self.error
        return self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: device-side assert triggered",
        "Triton Error [CUDA]: an illegal memory access was encountered",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "CUDA error: no kernel image is available for execution on the device",
    ],
)
def test_logits_without_a_device_fail_at_once_and_blame_no_document(model: Path, text: str) -> None:
    failing = Failing(load(model)[0], RuntimeError(text), 0)
    with pytest.raises(RuntimeError, match=re.escape(text)):
        classify_isolating_failures(batches_for(model, 60, 512), ForwardPasses(failing, pad_left=False), num_labels=2)
    assert failing.batches == 1


class Small(Failing):
    """A model on a device whose memory is enough for so many tokens, padding included; counts the times it was not."""

    def __init__(self, model: Any, tokens: int, error: Exception | None = None):
        super().__init__(model, error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), tokens)
        self.tokens, self.errors = tokens, 0

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        if input_ids.numel() > self.tokens:
            self.errors += 1
            raise self.error
        return self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
    ],
)
def test_logits_with_too_little_memory_for_batches_are_the_same_and_the_limit_is_remembered(
    model: Path, error: Exception
) -> None:
    small = Small(load(model)[0], 300, error)
    passes = ForwardPasses(small, pad_left=False)
    for _ in range(3):  # units
        logits, failed = classify_isolating_failures(batches_for(model, 60, 2048), passes, num_labels=2)
        assert failed == {}
        np.testing.assert_allclose(logits, one_by_one(model, 60), atol=1e-5)
    assert 0 < small.errors <= 4, "2048, 1024, 512 and no more, whatever comes behind them"


def test_logits_beside_bad_documents_with_too_little_memory_are_the_same(model: Path) -> None:
    small = Small(load(model)[0], 300)
    batches = with_unembedded(batches_for(model, 60, 2048), small, {3, 40})
    logits, failed = classify_isolating_failures(batches, ForwardPasses(small, pad_left=False), num_labels=2)
    good = sorted({*range(60)} - {3, 40})
    assert sorted(failed) == [3, 40]
    np.testing.assert_allclose(logits[good], one_by_one(model, 60)[good], atol=1e-5)


def test_logits_of_a_document_that_does_not_fit_alone_fail_and_say_the_remedy(model: Path) -> None:
    """Memory is no document's fault, and may be free again: the unit is quarantined, not the document rejected for good."""
    small = Small(load(model)[0], 100)
    with pytest.raises(MemoryError, match=r"104 tokens alone .* model\.max_length, .*Tried to allocate"):
        classify_isolating_failures(batches_for(model, 60, 2048), ForwardPasses(small, pad_left=False), num_labels=2)
    assert small.errors < 20


def test_logits_of_a_model_that_raises_at_large_batches_only_are_the_same(model: Path) -> None:
    failing = Failing(load(model)[0], RuntimeError("too many"), 2)
    logits, failed = classify_isolating_failures(
        batches_for(model, 60, 10**6), ForwardPasses(failing, pad_left=False), num_labels=2
    )
    assert failed == {}
    np.testing.assert_allclose(logits, one_by_one(model, 60), atol=1e-5)
