"""Other ways to compute BERT-base and DeBERTa-v3-base: their speed on documents of 512 tokens, and what they do to labels.

Each variant is measured on the bare model, its inputs on the device, and its logits are compared with float32's on the same
device. Variants come in the order of what they may gain: a phase that is cut off has lost the least.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from jobs.gpu_benchmark.eager import LENGTH, TINY_LENGTH, Workload, attention_switch_kept
from jobs.gpu_benchmark.phases import Bench
from pipeline_ops.loading.device_errors import is_device_lost
from pipeline_ops.loading.fused_layers import fuse_layers
from pipeline_ops.loading.padded_attention import MASKED, SEGMENTED
from pipeline_ops.models.flops import document_flops
from pipeline_ops.schema.errors import one_line
from pipeline_ops.synthetic import random_models
from pipeline_ops.synthetic.bert_layer import BertLayerVariant

TOKENS, TINY_TOKENS = 65_536, 256
COMPARED_BATCHES = 4  # of TOKENS each, whose logits are compared


@dataclass(frozen=True)
class Variant:
    """One way to compute a model.

    Attributes:
        seconds: what it takes on an H200, compilation included; by estimate.
        compiled: "layers": each by itself, all by one graph; "widths": as a classifier's, by CompiledLayers, for all numbers of
            rows; "model": as a whole.
        dynamic: the graph is for all shapes.
        freezing: weights are constants of the graph.
        mask: an attention mask is given, which masks nothing.
        attention: as of random_models.in_dtype.
        cudnn: SDPA may use cuDNN's.
        fused: as classifiers on a GPU are (loading/fused_layers.py).
        layer: settings of BertLayerVariant that replaces each layer; None: transformers' layers.
    """

    name: str
    seconds: float = 3
    compiled: str | None = None
    dynamic: bool = False
    freezing: bool = False
    mask: bool = False
    attention: str | None = None
    cudnn: bool = False
    fused: bool = False
    layer: dict[str, Any] | None = None

    @property
    def is_exact(self) -> bool:
        """The same function as transformers', but for rounding in the model's dtype."""
        return not self.fused and not any((self.layer or {}).get(setting) for setting in ("gelu_in_gemm", "fp8"))


FUSED = {"fused_qkv": True, "gelu_in_gemm": True}
FP8 = {"fused_qkv": True, "fp8": "all"}
VARIANTS = (
    Variant("eager"),
    Variant("eager, cudnn", cudnn=True),
    Variant("fused layers", 10, fused=True),
    Variant("fused layers, cudnn", fused=True, cudnn=True),
    Variant("fused qkv + gelu epilogue + cudnn + compile layers", 10, layer=FUSED, cudnn=True, compiled="layers"),
    Variant("fp8 + fused qkv + cudnn + compile layers", 12, layer=FP8, cudnn=True, compiled="layers"),
    Variant("compile layers, cudnn", 10, compiled="layers", cudnn=True),
    Variant("compile layers by width", 10, compiled="widths"),
    Variant("segments", mask=True, attention=SEGMENTED),
    Variant("no-sync mask", mask=True, attention=MASKED),
    Variant("fused qkv + gelu epilogue + cudnn", layer=FUSED, cudnn=True),
    Variant("fused qkv", layer={"fused_qkv": True}),
    Variant("gelu epilogue", layer={"gelu_in_gemm": True}),
    Variant(
        "fp8 feed-forward + fused qkv + cudnn + compile layers",
        12,
        layer={**FP8, "fp8": "feed-forward"},
        cudnn=True,
        compiled="layers",
    ),
    Variant("fused qkv + gelu epilogue + varlen + compile layers", 10, layer={**FUSED, "varlen": True}, compiled="layers"),
    Variant("compile layers", 10, compiled="layers"),
    Variant("mask", mask=True),
    Variant("fused qkv + gelu epilogue + varlen", layer={**FUSED, "varlen": True}),
    Variant("fp8 + fused qkv + cudnn + compile model", 20, layer=FP8, cudnn=True, compiled="model"),
    Variant("compile no mask", 20, compiled="model", cudnn=True),
    Variant("compile no mask, freezing", 25, compiled="model", cudnn=True, freezing=True),
    Variant("compile", 25, compiled="model", mask=True, dynamic=True),
    Variant("compile layers, dynamic", 15, compiled="layers", dynamic=True),
)
DEBERTA_VARIANTS = (
    Variant("fused layers", 20, mask=True, fused=True),
    Variant("compile layers by width", 15, compiled="widths", mask=True),
    Variant("compile layers", 15, compiled="layers", mask=True),
    Variant("compile", 28, compiled="model", mask=True),
    Variant("compile layers, dynamic", 25, compiled="layers", mask=True, dynamic=True),
)
DEBERTA_TOKENS = (32_768, 65_536, 16_384)  # the most important first


def measure(bench: Bench) -> None:
    """BERT-base in bfloat16, every variant beside float32 on the same device."""
    length, tokens = (TINY_LENGTH, TINY_TOKENS) if bench.tiny else (LENGTH, TOKENS)
    config = random_models.bert_base(bench.tiny)
    comparison = Comparison(bench, config, length, tokens)
    compiler = compiler_fault(bench)
    for variant in VARIANTS:
        if (variant.compiled or variant.fused) and compiler is not None:
            bench.row({"variant": variant.name, "left_out": compiler})
        else:
            comparison.report(variant)


def deberta(bench: Bench) -> None:
    """DeBERTa-v3-base in bfloat16: eager by tokens per pass, with its memory; compiled."""
    length = TINY_LENGTH if bench.tiny else LENGTH
    config = random_models.deberta_base(bench.tiny)
    sizes = (TINY_TOKENS,) if bench.tiny else DEBERTA_TOKENS
    comparison = Comparison(bench, config, length, sizes[0], compared=2)
    comparison.report(Variant("eager", mask=True))
    compiler = compiler_fault(bench)
    for number, variant in enumerate(DEBERTA_VARIANTS):
        if compiler is not None:
            bench.row({"variant": variant.name, "left_out": compiler})
        else:
            comparison.report(variant)
        if number == 0:  # before whole models are compiled, which may take all of the time
            for tokens in sizes[1:]:
                comparison.at(tokens).report(Variant("eager", mask=True))
                comparison.at(tokens).report(variant)


def compiler_fault(bench: Bench) -> str | None:
    """Why nothing is compiled here; None: it can be. A rehearsal on a CPU compiles nothing."""
    if bench.tiny and not bench.on_gpu:
        return "a rehearsal on a CPU compiles nothing"
    import torch

    try:
        torch.compile(torch.nn.functional.gelu)(torch.ones(8, device=bench.device))
    except Exception as error:  # of the compiler, of any kind
        return one_line(error)[:200]
    return None


class Comparison:
    """Variants of one model on the same documents, and what float32 makes of these."""

    def __init__(self, bench: Bench, config: Any, length: int, tokens: int, compared: int = COMPARED_BATCHES):
        self.bench, self.length = bench, length
        self.original = random_models.make_classifier(config, bench.device, length)
        self.work = Workload(bench, random_models.in_dtype(self.original, "bfloat16"), document_flops(self.original, length))
        self.rows = max(1, tokens // length)
        self.batches = self.ids_of(compared)
        self.expected = self.logits(lambda inputs: self.original(**inputs).logits, mask=False)

    def ids_of(self, batches: int) -> list[np.ndarray]:
        config = self.original.config
        whole = random_models.batches_of(np.full(self.rows * batches, self.length, np.int32), config, self.rows * self.length)
        return [ids for ids, _ in random_models.split_batches(whole)]

    def at(self, tokens: int) -> "Comparison":
        """The same model with other tokens per pass; logits of one batch are compared."""
        other = copy.copy(self)
        other.rows = max(1, tokens // self.length)
        other.batches = other.ids_of(1)
        other.expected = other.logits(lambda inputs: self.original(**inputs).logits, mask=False)
        return other

    def logits(self, run: Callable[[dict[str, Any]], Any], mask: bool) -> np.ndarray:
        """Of all compared batches, in float32."""
        import torch

        with torch.inference_mode():
            return torch.cat([run(self.inputs(ids, mask)).float() for ids in self.batches]).cpu().numpy()

    def inputs(self, ids: np.ndarray, mask: bool) -> dict[str, Any]:
        return random_models.inputs_of(ids, self.bench.device, np.full(len(ids), ids.shape[1]) if mask else None)

    def report(self, variant: Variant) -> None:
        """Reports a variant's speed and how far its logits are from float32's, or why not."""
        what = {
            "variant": variant.name,
            "tokens": self.rows * self.length,
            "length": self.length,
            "cudnn": variant.cudnn,
            "compiled": variant.compiled,
            "dynamic": variant.dynamic,
            "exact": variant.is_exact,
        }
        if not self.bench.has_time(variant.seconds):
            self.bench.row({**what, "left_out": "no time"})
            return
        try:
            with _switches(variant):
                self.bench.row({**what, **self.measured(variant)})
        except Exception as error:  # the rest of the phase goes on, unless the device is lost
            if is_device_lost(error):
                raise
            self.bench.row({**what, "error": f"{type(error).__name__}: {one_line(error)[:300]}"})

    def measured(self, variant: Variant) -> dict[str, Any]:
        import torch

        model = random_models.in_dtype(self.original, "bfloat16", variant.attention)
        if variant.layer is not None:
            layers = model.bert.encoder.layer
            for number, layer in enumerate(layers):
                layers[number] = BertLayerVariant(layer, **variant.layer)
        if variant.fused:
            fuse_layers(model)
        run = _compiled(variant, model)
        inputs = self.inputs(self.batches[0], variant.mask)
        with torch.inference_mode():
            seconds_of_first = self.bench.seconds(lambda: run(**inputs))
            if self.bench.on_gpu:
                torch.cuda.reset_peak_memory_stats()
                used = torch.cuda.memory_allocated()
            milliseconds = self.bench.milliseconds(lambda: run(**inputs), repeat=20)
        found = {
            **self.work.speed(np.full(self.rows, self.length), milliseconds / 1000),
            "milliseconds": milliseconds,
            "compile_seconds": seconds_of_first if variant.compiled else None,
            "first_seconds": seconds_of_first,
        }
        if self.bench.on_gpu:
            found["bytes_per_token"] = (torch.cuda.max_memory_allocated() - used) / (self.rows * self.length)
        return {**found, **random_models.label_facts(self.logits(lambda one: run(**one).logits, variant.mask), self.expected)}


@contextmanager
def _switches(variant: Variant) -> Iterator[None]:
    """SDPA's choice of kernels and the compiler's settings for a variant; as before afterwards."""
    import torch
    import torch._dynamo.config as dynamo
    import torch._inductor.config as inductor

    names = ("recompile_limit", "accumulated_recompile_limit", "fail_on_recompile_limit_hit")  # CompiledLayers sets them
    limits = {name: getattr(dynamo, name) for name in names}
    with attention_switch_kept(), inductor.patch(freezing=variant.freezing), dynamo.patch(limits):
        torch.backends.cuda.enable_cudnn_sdp(variant.cudnn)
        try:
            yield
        finally:
            if variant.compiled:
                torch.compiler.reset()


def _compiled(variant: Variant, model: Any) -> Any:
    import torch

    if variant.compiled == "widths":
        from pipeline_ops.classifying.compiled import CompiledLayers

        config = model.config
        CompiledLayers(model, static_widths=True, max_width=config.max_position_embeddings, pad_id=config.pad_token_id)
    if variant.compiled == "layers":
        for layer in model.base_model.encoder.layer:
            layer.compile(dynamic=variant.dynamic)
    return torch.compile(model, dynamic=variant.dynamic) if variant.compiled == "model" else model
