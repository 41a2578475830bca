"""Models whose layers torch.compile compiles: the answers of eager ones, from a bounded number of graphs."""

import copy
import logging
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig

from pipeline_ops.classifying import compiled, compiled_passes
from pipeline_ops.classifying.classify import classify_isolating_failures
from pipeline_ops.classifying.compiled import bucket_width, check_compiler, wants_compiling
from pipeline_ops.classifying.compiled_passes import compile_if_wanted
from pipeline_ops.classifying.forward_pass import ForwardPasses
from pipeline_ops.loading import padded_attention
from pipeline_ops.loading.load import load_classifier
from pipeline_ops.models.config import ModelConfig, ModelFacts
from pipeline_ops.models.heads import HeadConfig, resolve_head
from pipeline_ops.models.padding_side import pads_left
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.tokenizing.batching import TokenBatches, make_batches
from pipeline_ops.tokenizing.encoding import encode, truncating_backend
from tests.models.architectures import ARCHITECTURES, SHAPE, make_classifier, untrained_classifier
from tests.support.corpora import real_documents
from tests.support.random_rows import RandomRows

torch.set_num_threads(1)
MAX_LENGTH = 64
NEEDS_COMPILER = pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler")
NOT_COMPILED = {"Longformer": "its layers compare sizes with what attention to chosen tokens finds in the values"}
# layers of two kinds: attention to all tokens and to near ones, or of an encoder and of a decoder
OFTEN = ("BERT", "DeBERTa-v3", "ModernBERT", "Llama, padded left", *NOT_COMPILED)  # the others take minutes
TWO_KINDS = {"ModernBERT", "BART", "PLBart", "BigBird-Pegasus"}


class Counting:
    """A compiler that compiles nothing and counts how often it is asked to."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph: Any, examples: Any) -> Any:
        self.graphs += 1
        return graph.forward


@pytest.fixture(scope="module")
def classifier_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Any]]:
    @cache
    def make(architecture: str) -> tuple[Any, Any]:
        folder = make_classifier(tmp_path_factory.mktemp("classifier") / "model", architecture, ["a", "b"], MAX_LENGTH)
        config = ModelConfig(path=str(folder))
        model = load_classifier(config, StorageConfig(), revision=None, dtype="float32", device="cpu")
        return model, AutoTokenizer.from_pretrained(folder)

    return make


@pytest.fixture(autouse=True)
def nothing_compiled_before(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.compiler.reset()
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)  # pytest records it, at four times the cost


def batches_for(tokenizer: Any, pad_left: bool, batch_tokens: int, count: int = 40) -> TokenBatches:
    texts = [text[: 20 * (number + 1)] for number, text in enumerate(real_documents(count))]
    encodings = encode(
        texts, truncating_backend(tokenizer, MAX_LENGTH), with_type_ids="token_type_ids" in tokenizer.model_input_names
    )
    return make_batches(
        encodings, batch_tokens=batch_tokens, pad_id=tokenizer.pad_token_id, pad_left=pad_left, max_width=MAX_LENGTH
    )


def logits_of(passes: ForwardPasses, batches: TokenBatches) -> np.ndarray:
    logits, failed = classify_isolating_failures(batches, passes, num_labels=2)
    assert failed == {}
    return logits


FACTS = ModelFacts(
    path="",
    revision=None,
    weights="",
    tokenizer_hash="",
    max_length=MAX_LENGTH,
    head=resolve_head(HeadConfig(), ["a", "b"], None),
    pad_id=0,
    pad_type_id=0,
    pad_left=False,
    has_type_ids=False,
    model_type="deberta-v2",
)


def facts_of(model: Any, tokenizer: Any) -> ModelFacts:
    return replace(
        FACTS,
        pad_id=tokenizer.pad_token_id,
        pad_left=pads_left(model.config, tokenizer.padding_side),
        has_type_ids="token_type_ids" in tokenizer.model_input_names,
        model_type=model.config.model_type,
    )


def compare(
    classifier: tuple[Any, Any], backend: Any, padded: bool = True, all_batch_tokens: Sequence[int] = (1, 128, 300, 512, 4096)
) -> set[tuple[int, int]]:
    """Checks that compiled answers are the eager ones; the (rows, width) that there were."""
    model, tokenizer = classifier
    facts = facts_of(model, tokenizer)
    eager = ForwardPasses(model, pad_left=facts.pad_left)
    passes = ForwardPasses(copy.deepcopy(model), pad_left=facts.pad_left, against_padding=None if padded else "for a test")
    compile_if_wanted(passes, True, facts, backend=backend)
    shapes = set()
    for batch_tokens in all_batch_tokens:
        batches = passes.arrange(batches_for(tokenizer, facts.pad_left, batch_tokens))
        shapes |= {*zip(batches.rows.tolist(), batches.widths.tolist(), strict=True)}
        np.testing.assert_allclose(logits_of(passes, batches), logits_of(eager, batches), atol=1e-5)
    return shapes


@pytest.mark.parametrize(
    "architecture",
    [pytest.param(name, marks=pytest.mark.slow if name in OFTEN else pytest.mark.campaign) for name in ARCHITECTURES],
)
def test_answers_of_compiled_layers_are_the_same_from_a_bounded_number_of_graphs(
    classifier_of: Callable[[str], tuple[Any, Any]], architecture: str
) -> None:
    compiler, classifier = Counting(), classifier_of(architecture)
    if architecture in NOT_COMPILED:
        with pytest.raises(UserError, match=r"^model\.compile: models of type longformer cannot be compiled"):
            compare(classifier, compiler)
        return
    shapes = compare(classifier, compiler)
    assert len(shapes) > 20
    widths = {bucket_width(width, MAX_LENGTH) for _, width in shapes}
    assert len(widths) == 4
    kinds = 2 if architecture in TWO_KINDS else 1
    assert 1 <= compiler.graphs <= 4 * len(widths) * kinds, "one row or many, with a mask or without one"


@pytest.mark.slow
def test_models_whose_batches_are_without_padding_have_a_graph_for_all_widths(
    classifier_of: Callable[[str], tuple[Any, Any]],
) -> None:
    compiler = Counting()
    shapes = compare(classifier_of("BERT"), compiler, padded=False)
    assert len({width for _, width in shapes}) > 20
    assert 1 <= compiler.graphs <= 3, "one row or many, at an odd width too"


@pytest.mark.slow
def test_attention_in_segments_takes_no_more_graphs(
    classifier_of: Callable[[str], tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, here with windows and without; in place of the kernel, which needs one, by a mask."""
    monkeypatch.setattr(padded_attention, "has_kernel", lambda device, dtype: True)
    monkeypatch.setattr(padded_attention, "segmented_attention", padded_attention.attention_by_mask)
    compiler, (model, tokenizer) = Counting(), classifier_of("ModernBERT")
    model = copy.deepcopy(model)
    padded_attention.use(model, padded_attention.SEGMENTED)
    compare((model, tokenizer), compiler)
    assert 1 <= compiler.graphs <= 4 * 4 * 2, "widths; one row or many, with bounds or without; two kinds of layers"


@pytest.mark.slow
@NEEDS_COMPILER
@pytest.mark.parametrize("architecture", ["BERT", "DeBERTa-v3"])
def test_answers_of_the_true_compiler_are_the_same(classifier_of: Callable[[str], tuple[Any, Any]], architecture: str) -> None:
    compare(classifier_of(architecture), "inductor", all_batch_tokens=(10**6,))  # of g++ a graph takes half a minute


def miscompiling(graph: Any, examples: Any) -> Any:
    return lambda *inputs: [2 * one for one in graph(*inputs)]


@pytest.mark.slow
def test_compiled_layers_that_answer_something_else_are_refused(classifier_of: Callable[[str], tuple[Any, Any]]) -> None:
    model, tokenizer = classifier_of("BERT")
    passes = ForwardPasses(copy.deepcopy(model), pad_left=False)
    facts = facts_of(model, tokenizer)
    with pytest.raises(UserError, match=r"^model\.compile: .*its answers would be others.*; set it to false"):
        compile_if_wanted(passes, True, facts, backend=miscompiling)
    batches = batches_for(tokenizer, False, 512)
    np.testing.assert_array_equal(logits_of(passes, batches), logits_of(ForwardPasses(model, pad_left=False), batches))


def test_auto_goes_on_eagerly_where_the_compiler_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(device: str) -> None:
        raise UserError("model.compile: torch.compile does not work where the classifiers run: no such\ncompiler")

    model = untrained_classifier("DeBERTa-v3")
    passes = ForwardPasses(model, pad_left=False)
    monkeypatch.setattr(compiled_passes, "wants_compiling", lambda setting, model: True)  # as on a GPU
    monkeypatch.setattr(compiled_passes, "check_compiler", fails)
    compile_if_wanted(passes, "auto", FACTS)
    said = "deberta-v2 runs without being compiled, and slower: model.compile: torch.compile does not work"
    assert str(passes.against_compiling).startswith(said)
    assert "\n" not in str(passes.against_compiling)
    assert passes.compiled is None
    with pytest.raises(UserError):
        compile_if_wanted(passes, True, FACTS)


class Failing(Counting):
    """Fails from its third graph on."""

    def __call__(self, graph: Any, examples: Any) -> Any:
        if self.graphs == 2:
            raise RuntimeError("out of registers")
        return super().__call__(graph, examples)


@pytest.mark.slow
def test_auto_goes_on_eagerly_from_a_shape_that_cannot_be_compiled(
    classifier_of: Callable[[str], tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_passes, "wants_compiling", lambda setting, model: True)  # as on a GPU
    model, tokenizer = classifier_of("DeBERTa-v3")
    passes, facts = ForwardPasses(copy.deepcopy(model), pad_left=False), facts_of(model, tokenizer)
    batches = batches_for(tokenizer, False, 512)
    compile_if_wanted(passes, "auto", facts, backend=Failing())
    assert passes.against_compiling is None
    np.testing.assert_allclose(logits_of(passes, batches), logits_of(ForwardPasses(model, pad_left=False), batches), atol=1e-5)
    assert "out of registers" in str(passes.against_compiling)

    passes = ForwardPasses(copy.deepcopy(model), pad_left=False)
    torch.compiler.reset()
    compile_if_wanted(passes, True, facts, backend=Failing())
    with pytest.raises(RuntimeError, match="out of registers"):
        logits_of(passes, batches)


@pytest.mark.slow
def test_more_graphs_than_expected_are_an_error_that_no_document_is_blamed_for(
    classifier_of: Callable[[str], tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch itself would go on eagerly, without a word."""
    model, tokenizer = classifier_of("BERT")
    monkeypatch.setattr(compiled, "MAX_GRAPHS", 2)
    passes = ForwardPasses(copy.deepcopy(model), pad_left=False)
    compile_if_wanted(passes, True, facts_of(model, tokenizer), backend=Counting())  # two, without a mask and with one
    with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):
        logits_of(passes, batches_for(tokenizer, False, 1, count=3))


def test_graphs_of_a_thread_other_than_the_one_that_has_loaded_the_model_are_as_many() -> None:
    """Ray Data constructs an actor in one thread and calls it in another, which has its own settings of torch."""
    torch.manual_seed(0)
    config = BertConfig(**SHAPE, vocab_size=100, max_position_embeddings=160)
    passes = ForwardPasses(AutoModelForSequenceClassification.from_config(config).eval(), pad_left=False)
    passes.compiled = compiled.CompiledLayers(passes.model, static_widths=True, backend=Counting())
    widths = range(16, 161, 16)
    rows = [RandomRows(np.full(2 * width, 7, np.int32), None, np.full(2, width, np.int32), width) for width in widths]
    with ThreadPoolExecutor(1) as other:
        assert other.submit(lambda: [len(one.through(passes)) for one in rows]).result() == [2] * len(widths)


@pytest.mark.parametrize("most", [512, 500, 8192])
def test_widths_of_graphs_are_few_and_add_little_padding(most: int) -> None:
    widths = np.arange(1, most + 1)
    rounded = np.array([bucket_width(width, most) for width in widths.tolist()])
    assert (rounded >= widths).all()
    assert rounded.max() == most
    assert len({*rounded.tolist()}) == (24 if most < 8192 else 56)
    assert (rounded - widths).max() <= 15 + most // 16
    of_long_documents = widths[127:]
    assert (rounded[127:] / of_long_documents - 1).mean() < 0.05


@pytest.mark.parametrize(
    ("setting", "kind", "device", "wants"),
    [
        ("auto", "deberta-v2", "cuda", True),
        ("auto", "deberta-v2", "cpu", False),
        ("auto", "bert", "cuda", False),
        ("auto", "of-somebody", "cuda", False),
        (True, "of-somebody", "cpu", True),
        (False, "deberta-v2", "cuda", False),
    ],
)
def test_what_auto_compiles_gains_by_it_and_is_on_a_gpu(setting: Any, kind: str, device: str, wants: bool) -> None:
    model = SimpleNamespace(config=SimpleNamespace(model_type=kind), device=torch.device(device), modules=list)
    assert wants_compiling(setting, model) is wants


def raising(error: Exception) -> Callable[[Any], Any]:
    def fail(function: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (RuntimeError("InvalidCxxCompiler: No working C++ compiler found in torch._inductor.config.cpp.cxx"), r"install g\+\+"),
        (RuntimeError("Cannot find a working triton installation. Either the package is"), "Triton is missing"),
        (RuntimeError("Failed to find C compiler. Please specify via CC environment variable"), "install gcc"),
        (RuntimeError("C++ compile error\n\nfatal error: Python.h: No such file or directory"), "install python3-dev"),
        (ValueError("something\nelse"), "something else"),
    ],
)
def test_compiler_that_does_not_work_is_refused_with_what_it_lacks(
    error: Exception, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", raising(error))
    monkeypatch.setattr(os.path, "exists", lambda path: True)
    with pytest.raises(UserError, match=rf"^model\.compile: torch\.compile does not work where .*({remedy})") as caught:
        check_compiler("cpu")
    assert "\n" not in str(caught.value)


def test_headers_that_only_tritons_compiler_misses_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    error = subprocess.CalledProcessError(1, ["/usr/bin/gcc", "cuda_utils.c"])  # what gcc says is on stderr only
    monkeypatch.setattr(torch, "compile", raising(error))
    with pytest.raises(UserError, match=r"Python\.h"):
        check_compiler("cpu")
