"""Each way to run a model on a GPU against float32 on the CPU, on real text: `pytest -m gpu`."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, MPNetConfig

from pipeline_ops.classifying.classify import classify, classify_isolating_failures
from pipeline_ops.classifying.compiled import check_compiler
from pipeline_ops.classifying.compiled_passes import compile_if_wanted
from pipeline_ops.classifying.forward_pass import ForwardPasses
from pipeline_ops.classifying.pinned_copy import PinnedCopier
from pipeline_ops.loading.device import probe_models
from pipeline_ops.loading.device_errors import is_out_of_memory
from pipeline_ops.loading.load import load_classifier
from pipeline_ops.loading.memory import MAX_BATCH_TOKENS, MIN_BATCH_TOKENS, bytes_per_token
from pipeline_ops.models.config import JobModel, ModelConfig
from pipeline_ops.models.resolve import resolve_model
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.tokenizing.batching import TokenBatches, make_batches
from pipeline_ops.tokenizing.encoding import encode, truncating_backend
from tests.models.architectures import make_classifier
from tests.models.tiny import ARCHITECTURES, Architecture
from tests.support.corpora import real_documents

NUM_DOCUMENTS = 600
ATOL = {"float32": 1e-4, "bfloat16": 0.1, "float16": 0.02}  # logits spread by 0.5

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@cache
def expected(folder: Path) -> np.ndarray:
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    return classify(batches_for(folder, 2048), model, num_labels=2, pad_left=False)


@cache
def batches_for(folder: Path, batch_tokens: int) -> TokenBatches:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    backend = truncating_backend(tokenizer, 128)
    encodings = encode(real_documents(NUM_DOCUMENTS), backend, with_type_ids="token_type_ids" in tokenizer.model_input_names)
    return make_batches(encodings, batch_tokens=batch_tokens, pad_id=tokenizer.pad_token_id, max_width=128)


def on_gpu(folder: Path, dtype: str) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(folder, dtype=getattr(torch, dtype)).to("cuda").eval()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_on_a_gpu_are_near_those_of_float32_on_the_cpu(
    model_of: Callable[[Architecture], Path], architecture: Architecture, dtype: str
) -> None:
    folder = model_of(architecture)
    passes = ForwardPasses(on_gpu(folder, dtype), pad_left=False)
    for batch_tokens in (1, 256, 16384):  # small ones take the buffers' turns often
        logits, failed = classify_isolating_failures(batches_for(folder, batch_tokens), passes, num_labels=2)
        assert failed == {}
        np.testing.assert_allclose(logits, expected(folder), atol=ATOL[dtype])
        assert passes.take_seconds() > 0


@pytest.mark.parametrize("architecture", ["BERT", "DeBERTa-v3"])
def test_logits_of_compiled_layers_on_a_gpu_are_near_those_of_float32_on_the_cpu(architecture: str, tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "model", architecture, ("bad", "good"), 128)
    config = ModelConfig(path=str(folder))
    model = load_classifier(config, StorageConfig(), revision=None, dtype="bfloat16", device="cuda")
    torch.compiler.reset()
    passes = ForwardPasses(model, pad_left=False)
    compile_if_wanted(passes, True, resolve_model(config, StorageConfig())[0])
    for batch_tokens in (2048, 16384):
        logits, failed = classify_isolating_failures(batches_for(folder, batch_tokens), passes, num_labels=2)
        assert failed == {}
        np.testing.assert_allclose(logits, expected(folder), atol=ATOL["bfloat16"])


def test_copies_of_many_batches_arrive_unharmed_while_the_gpu_computes() -> None:
    device = torch.device("cuda")
    copies, rng = PinnedCopier(device), np.random.default_rng(0)
    busy = torch.randn(4096, 4096, device=device)
    sent = [rng.integers(0, 2**31 - 1, int(rng.integers(1, 200_000))).astype(np.int32) for _ in range(60)]
    arrived = []
    for array in sent:
        busy = torch.tanh(busy @ busy)
        arrived.append(copies([array[:1], array[1:]]).clone())
    for array, there in zip(sent, arrived, strict=True):
        np.testing.assert_array_equal(there.cpu().numpy(), array)


def test_documents_that_make_the_model_raise_are_found_on_a_gpu(model: Path) -> None:
    passes, batches = ForwardPasses(on_gpu(model, "float32"), pad_left=False), batches_for(model, 2048)
    batches.ids[0], kept = 10**6, batches.ids[0]
    try:
        logits, failed = classify_isolating_failures(batches, passes, num_labels=2)
    finally:
        batches.ids[0] = kept
    bad = int(batches.order[0])
    assert list(failed) == [bad]
    good = np.arange(NUM_DOCUMENTS) != bad
    np.testing.assert_allclose(logits[good], expected(model)[good], atol=ATOL["float32"])


def test_memory_that_a_gpu_lacks_makes_passes_smaller_and_changes_no_logits(model: Path) -> None:
    """Three quarters of what the largest pass takes are left, of which cuBLAS takes 32 MiB on Hopper."""
    passes, batches = ForwardPasses(on_gpu(model, "float32"), pad_left=False), batches_for(model, 65536)
    largest = int((batches.rows * batches.widths).max())
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    classify_isolating_failures(batches, passes, num_labels=2)
    taken = torch.cuda.max_memory_allocated() - held
    torch.cuda.empty_cache()
    try:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 0.75 * taken) / total)
        for _ in range(2):
            logits, failed = classify_isolating_failures(batches, passes, num_labels=2)
            assert failed == {}
            np.testing.assert_allclose(logits, expected(model), atol=ATOL["float32"])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert passes.max_tokens < largest
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, device="cuda")
    assert is_out_of_memory(caught.value)


def test_memory_of_a_pass_is_what_was_measured_without_a_gpu() -> None:
    """Of BERT-base and an eager model; the head and what cuBLAS takes are in what is allowed."""
    for config in (BertConfig(num_hidden_layers=4), MPNetConfig(num_hidden_layers=4)):
        with torch.device("meta"):
            predicted = bytes_per_token(
                AutoModelForSequenceClassification.from_config(config, dtype=torch.bfloat16).eval(), 512
            )
        classifier = AutoModelForSequenceClassification.from_config(config, dtype=torch.bfloat16).to("cuda").eval()
        passes, lengths = ForwardPasses(classifier, pad_left=False), np.full(128, 512, np.int32)
        with torch.inference_mode():
            passes(np.full(65536, 5, np.int32), None, lengths, 512)
            torch.cuda.synchronize()
            held = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            passes(np.full(65536, 5, np.int32), None, lengths, 512)
            torch.cuda.synchronize()
        assert predicted == pytest.approx((torch.cuda.max_memory_allocated() - held) / 65536, rel=0.15)
        del classifier, passes


def test_probe_on_a_gpu_says_what_is_known_only_there(model: Path) -> None:
    config = ModelConfig(path=str(model))
    facts = resolve_model(config, StorageConfig())[0]
    probed = probe_models([JobModel("", config, facts, "", OutputConfig(path="out"))], StorageConfig(), 1.0)
    assert probed["dtypes"][0] in ("bfloat16", "float16")
    assert probed["device"] == torch.cuda.get_device_name()
    assert MIN_BATCH_TOKENS <= probed["batch_tokens"] <= MAX_BATCH_TOKENS
    check_compiler("cuda")
