"""Padded batches -> logits in the order of the rows, whatever the batches were."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, GPT2Config, GPT2ForSequenceClassification

from pipeline_ops.classifying import classify
from pipeline_ops.tokenizing import Encodings, TokenBatches, encode, make_batches
from tests.corpora import real_documents
from tests.models import ARCHITECTURES, Architecture

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
    encodings = encode(list(texts(count)), tokenizer, 128, with_type_ids="token_type_ids" in tokenizer.model_input_names)
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
