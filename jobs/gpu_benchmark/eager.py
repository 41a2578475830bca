"""BERT-base and a 22M model as classifiers have them, by tokens per pass: ForwardPasses beside the bare model.

The bare model is a plain loop of calls of the same model on the same batches, on the device already. What ForwardPasses loses
against it is the host's.
"""

import statistics
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from jobs.gpu_benchmark.phases import Bench
from pipeline_ops.classifying.classify import classify_isolating_failures
from pipeline_ops.classifying.forward_pass import ForwardPasses
from pipeline_ops.loading.device_errors import is_device_lost
from pipeline_ops.loading.padded_attention import MASKED, SEGMENTED, RecurringShapes
from pipeline_ops.models.flops import DocumentFlops, document_flops, peak_flops, utilization
from pipeline_ops.schema.errors import one_line
from pipeline_ops.synthetic import random_models
from pipeline_ops.tokenizing.batching import TokenBatches

LENGTH, TINY_LENGTH = 512, 32
TOKENS = (65_536, 16_384, 262_144, 32_768, 131_072, 8_192)  # per pass; the most important first
TINY_TOKENS = (256, 64)
PASSED_TOKENS = 2**20  # in a measurement; at 2.5M tokens/s less than half a second
REPEAT = 3
SMALL_LENGTH = 104  # of the 22M model's documents: about 100, and a multiple of batching.PAD_MULTIPLE
SMALL_TOKENS = (16_384, 65_536, 262_144, 32_768, 8_192, 131_072)
KERNELS = (  # (what attends where there is padding, random_models.in_dtype's attention, cuDNN's allowed)
    ("segments", SEGMENTED, False),
    ("efficient", None, False),  # SDPA with a mask
    ("no-sync mask", MASKED, False),
    ("cudnn", None, True),
)
GRAPH_TOKENS = (16_384, 8_192)
KERNEL_KINDS = {  # part of a kernel's name -> what it does; the first that fits
    "attention": ("flash", "fmha", "attention", "sdpa", "softmax"),
    "gemm": ("gemm", "nvjet", "cutlass", "xmma", "cublas"),
    "norm": ("layer_norm", "layernorm", "norm_kernel"),
    "copy": ("memcpy", "memset", "copy_kernel", "catarray"),
    "gather": ("embedding", "index", "gather", "vectorized_gather"),
    "elementwise": ("elementwise", "gelu", "triton"),
}


class OneKernel(RecurringShapes):
    """cuDNN's attention for all shapes or for none, to compare them."""

    def __init__(self, cudnn: bool):
        super().__init__()
        self.cudnn = cudnn

    def choose(self, rows: int, width: int, *, padded: bool) -> None:
        import torch

        torch.backends.cuda.enable_cudnn_sdp(self.cudnn)


@contextmanager
def attention_switch_kept() -> Iterator[None]:
    """Whether SDPA may use cuDNN's attention is afterwards as before: classifiers change that from pass to pass."""
    import torch

    before = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


class Workload:
    """A classifier in eval mode on the device, and what its speed is measured by.

    Args:
        fused: the model has the fused layers of classifiers on a GPU; for the rows of findings.
    """

    def __init__(self, bench: Bench, model: Any, flops: DocumentFlops | None, fused: bool = False):
        self.bench, self.model, self.flops, self.fused = bench, model, flops, fused
        self.peak = peak_flops(bench.gpu, str(model.base_model.dtype).removeprefix("torch."))

    def speed(self, lengths: np.ndarray, seconds: float) -> dict[str, Any]:
        """documents_per_second, tokens_per_second (without padding) and mfu, for a row of findings."""
        flops = None if self.flops is None else self.flops.total(lengths)
        return {
            "documents_per_second": len(lengths) / seconds,
            "tokens_per_second": float(lengths.sum()) / seconds,
            "mfu": utilization(flops, seconds, self.peak),
        }

    def forward_passes(self, batches: TokenBatches, cudnn: bool) -> dict[str, Any]:
        """Speed of ForwardPasses over the batches, by the clock, logits copied back: medians of some runs, after a first one.

        first_seconds: of the first run, with what is made once per shape; host_seconds: wall_seconds less event_seconds.
        """
        passes = ForwardPasses(self.model, pad_left=False)
        passes.shapes = OneKernel(cudnn)
        wall, events = [], []
        for _ in range(1 + (1 if self.bench.tiny else REPEAT)):
            wall.append(
                self.bench.seconds(lambda: classify_isolating_failures(batches, passes, num_labels=random_models.NUM_LABELS))
            )
            events.append(passes.take_seconds())
        seconds, computing = statistics.median(wall[1:]), statistics.median(events[1:])
        return {
            **self.speed(batches.lengths, seconds),
            "batches": len(batches.rows),
            "wall_seconds": seconds,
            "event_seconds": computing,
            "host_seconds": seconds - computing,
            "first_seconds": wall[0],
        }

    def equal(self, length: int, tokens: int, passes: int) -> TokenBatches:
        """Full batches of `tokens` of documents of one length."""
        rows = max(1, tokens // length)
        return random_models.batches_of(np.full(rows * passes, length, np.int32), self.model.config, rows * length)

    def mixed(self, longest: int, tokens: int) -> TokenBatches:
        """Batches of mixed lengths, as the job makes them."""
        count = 24 if self.bench.tiny else PASSED_TOKENS // random_models.MEDIAN_TOKENS
        return random_models.batches_of(random_models.mixed_lengths(count, longest), self.model.config, tokens)

    def bare(self, batches: TokenBatches, cudnn: bool, repeat: int = REPEAT) -> dict[str, Any]:
        """Speed of the bare model on the same batches, its inputs on the device before."""
        import torch

        torch.backends.cuda.enable_cudnn_sdp(cudnn)
        inputs = [
            random_models.inputs_of(ids, self.bench.device, lengths) for ids, lengths in random_models.split_batches(batches)
        ]

        def run() -> None:
            for one in inputs:
                self.model(**one)

        with torch.inference_mode():
            seconds = self.bench.milliseconds(run, warmup=1, repeat=repeat) / 1000
        return self.speed(batches.lengths, seconds)


def bert_base(bench: Bench) -> None:
    """BERT-base in bfloat16: 8k to 262k tokens per pass of equally long documents; mixed lengths; kernels; synchronizations."""
    longest = TINY_LENGTH if bench.tiny else LENGTH
    config = random_models.bert_base(bench.tiny)
    original = random_models.make_classifier(config, bench.device, longest)
    flops = document_flops(original, longest)
    work = Workload(bench, random_models.as_classifier(original, "bfloat16"), flops, fused=bench.on_gpu)
    sizes = TINY_TOKENS if bench.tiny else TOKENS
    _by_tokens(bench, work, longest, sizes[:1])
    _mixed(bench, work, longest, sizes[0], "segments", cudnn=False)
    for kernel, attention, cudnn in KERNELS:
        other = Workload(bench, random_models.in_dtype(original, "bfloat16", attention), flops)
        _mixed(bench, other, longest, sizes[0], kernel, cudnn)
    _by_tokens(bench, work, longest, sizes[:1], cudnn=True)
    batches = work.equal(longest, sizes[0], passes=2)
    mixed = work.mixed(longest, sizes[0])
    with attention_switch_kept():
        _kernels(bench, work, batches, "none")
        _synchronizations(bench, work, batches, "none")
        _synchronizations(bench, work, mixed, "some")
        _by_tokens(bench, work, longest, sizes[1:])
        _kernels(bench, work, mixed, "some")


def small(bench: Bench) -> None:
    """A 22M model in bfloat16 on documents of about 100 tokens: by tokens per pass, and replayed as a CUDA graph."""
    length = TINY_LENGTH if bench.tiny else SMALL_LENGTH
    config = random_models.small_bert(bench.tiny)
    original = random_models.make_classifier(config, bench.device, length)
    flops = document_flops(original, length)
    work = Workload(bench, random_models.as_classifier(original, "bfloat16"), flops, fused=bench.on_gpu)
    _by_tokens(bench, work, length, TINY_TOKENS if bench.tiny else SMALL_TOKENS)
    for tokens in GRAPH_TOKENS:
        if not bench.on_gpu:
            bench.row({"tokens": tokens, "graph": True, "left_out": "CUDA graphs need a GPU"})
        elif bench.has_time(5):
            _guarded(bench, {"tokens": tokens, "graph": True}, lambda tokens=tokens: _graph(work, length, tokens))


def _by_tokens(bench: Bench, work: Workload, length: int, sizes: tuple[int, ...], cudnn: bool = False) -> None:
    """Equally long documents without padding."""
    for tokens in sizes:
        what = {
            "tokens": tokens,
            "length": length,
            "kernel": "cudnn" if cudnn else "flash",
            "cudnn": cudnn,
            "fused": work.fused,
            "graph": False,
        }
        if not bench.has_time(4):
            bench.row({**what, "left_out": "no time"})
            continue
        batches = work.equal(length, tokens, passes=2 if bench.tiny else max(4, PASSED_TOKENS // tokens))
        _guarded(bench, what, lambda batches=batches: _beside_bare(work, batches, cudnn))


def _mixed(bench: Bench, work: Workload, longest: int, tokens: int, kernel: str, cudnn: bool) -> None:
    """Mixed lengths, with padding. cuDNN makes a plan for each shape, which first_seconds shows."""
    what = {"tokens": tokens, "length": "mixed", "kernel": kernel, "cudnn": cudnn, "fused": work.fused}
    if not bench.has_time(6):
        bench.row({**what, "left_out": "no time"})
        return
    batches = work.mixed(longest, tokens)
    what["padding_percent"] = 100 * (1 - float(batches.lengths.sum()) / len(batches.ids))
    _guarded(bench, what, lambda: _beside_bare(work, batches, cudnn))


def _beside_bare(work: Workload, batches: TokenBatches, cudnn: bool) -> dict[str, Any]:
    """The speed of ForwardPasses, and of_bare: as a share of the bare model's."""
    found, bare = work.forward_passes(batches, cudnn), work.bare(batches, cudnn)
    rate = bare["documents_per_second"]
    return {
        **found,
        "bare_documents_per_second": rate,
        "bare_mfu": bare["mfu"],
        "of_bare": found["documents_per_second"] / rate,
    }


def _graph(work: Workload, length: int, tokens: int) -> dict[str, Any]:
    """The bare model's pass recorded as a CUDA graph and replayed, beside the same pass launched kernel by kernel."""
    import torch

    batches = work.equal(length, tokens, passes=1)
    ((ids, lengths),) = random_models.split_batches(batches)
    inputs = random_models.inputs_of(ids, work.bench.device, lengths)
    torch.backends.cuda.enable_cudnn_sdp(False)
    with torch.inference_mode():
        expected = work.model(**inputs).logits
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):  # what is made at first use must not be recorded
                work.model(**inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            replayed = work.model(**inputs).logits
        milliseconds = work.bench.milliseconds(graph.replay, repeat=50)
        launched = work.bench.milliseconds(lambda: work.model(**inputs), repeat=50)
        difference = float((replayed - expected).abs().max())
    return {
        **work.speed(batches.lengths, milliseconds / 1000),
        "milliseconds": milliseconds,
        "launched_milliseconds": launched,
        "largest_difference": difference,
    }


def _kernels(bench: Bench, work: Workload, batches: TokenBatches, padding: str) -> None:
    """The share of the device's time by kind of kernel, and the kernels that take most."""
    from torch.profiler import ProfilerActivity, profile

    if not bench.has_time(8):
        bench.row({"profile": "kernels", "padding": padding, "left_out": "no time"})
        return
    passes = ForwardPasses(work.model, pad_left=False)
    activity = ProfilerActivity.CUDA if bench.on_gpu else ProfilerActivity.CPU
    with profile(activities=[activity]) as profiler:
        classify_isolating_failures(batches, passes, num_labels=random_models.NUM_LABELS)
        bench.synchronize()
    times = {
        one.key: float(one.self_device_time_total if bench.on_gpu else one.self_cpu_time_total)
        for one in profiler.key_averages()
    }
    total = sum(times.values()) or 1.0
    shares = dict.fromkeys([*KERNEL_KINDS, "other"], 0.0)
    for name, microseconds in times.items():
        shares[_kind_of(name)] += 100 * microseconds / total
    bench.row({"profile": "kernels", "padding": padding, **{f"{kind}_percent": share for kind, share in shares.items()}})
    for name, microseconds in sorted(times.items(), key=lambda one: -one[1])[: 2 if bench.tiny else 12]:
        bench.row(
            {
                "profile": "kernel",
                "padding": padding,
                "kernel": name[:120],
                "kind": _kind_of(name),
                "percent": 100 * microseconds / total,
            }
        )


def _kind_of(kernel: str) -> str:
    name = kernel.lower()
    return next((kind for kind, parts in KERNEL_KINDS.items() if any(part in name for part in parts)), "other")


def _synchronizations(bench: Bench, work: Workload, batches: TokenBatches, padding: str) -> None:
    """How often torch makes the host wait for the device, per batch."""
    import torch

    if not bench.on_gpu:
        bench.row({"synchronizations": "per batch", "padding": padding, "left_out": "counting them needs a GPU"})
        return
    passes = ForwardPasses(work.model, pad_left=False)
    classify_isolating_failures(batches, passes, num_labels=random_models.NUM_LABELS)
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            classify_isolating_failures(batches, passes, num_labels=random_models.NUM_LABELS)
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    found = [one for one in caught if "synchroniz" in str(one.message)]
    places = sorted({f"{one.filename.rpartition('site-packages/')[2]}:{one.lineno}" for one in found})
    bench.row(
        {
            "synchronizations": "per batch",
            "padding": padding,
            "count": len(found),
            "batches": len(batches.rows),
            "per_batch": len(found) / len(batches.rows),  # one more per unit copies the logits back
            "places": "; ".join(places)[:400],
        }
    )


def _guarded(bench: Bench, what: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> None:
    """Reports what `measure` finds, or the error that it raises: the phase goes on, unless the device is lost."""
    try:
        with attention_switch_kept():
            bench.row({**what, **measure()})
    except Exception as error:
        if is_device_lost(error):
            raise
        bench.row({**what, "error": f"{type(error).__name__}: {one_line(error)[:200]}"})
