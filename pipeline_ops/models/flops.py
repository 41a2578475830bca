"""What a model costs, from its architecture alone, and what a device can do at most. No weights, no documents."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

TRACED_ROWS = 2**20  # what a pass does once for all of its documents vanishes beside so many; tensors on "meta" hold nothing


@dataclass(frozen=True)
class DocumentFlops:
    """FLOPs of one document of n tokens, without padding: constant + linear * n + quadratic * n**2."""

    constant: float
    linear: float
    quadratic: float

    def total(self, lengths: np.ndarray) -> float:
        """Of documents of so many tokens each, together."""
        tokens = lengths.astype(np.float64)
        return float(self.constant * len(tokens) + self.linear * tokens.sum() + self.quadratic * np.square(tokens).sum())


def document_flops(model: Any, max_length: int) -> DocumentFlops | None:
    """The FLOPs of one document, counted by running the model on "meta" tensors of three lengths.

    A multiplication and an addition are two FLOPs; only matrix products count, attention's included (FlopCounterMode), each
    as often as it runs, so layers with shared weights as often as there are layers. Attention counts as dense, also where a
    model looks at a window of it only. What a pass does once for all of its documents, such as DeBERTa's relative positions,
    is left out. For BERT with L layers of size h, inner size f and k labels, a document of n tokens costs

        L * (n * (8 * h**2 + 4 * h * f) + n**2 * 4 * h) + 2 * h**2 + 2 * h * k

    Args:
        model: on any device; a twin of it without weights is traced.
        max_length: tokens of the longest document.

    Returns:
        None where an architecture cannot be traced without data (some look at token ids or at the mask), or a document has
        fewer than four tokens at the most: better no number than one that is made up.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    lengths = (max_length // 4, max_length // 2, max_length)
    if not lengths[0]:
        return None

    try:
        with torch.device("meta"):
            twin = type(model)(model.config).eval()
        twin.requires_grad_(False)  # the counter follows gradients, which fails in places
    except Exception:  # of whatever kind: the model's own code runs here
        return None

    def count(length: int, with_mask: bool) -> float:
        shape = (TRACED_ROWS, length)
        inputs = {"input_ids": torch.zeros(shape, dtype=torch.int64, device="meta")}
        if with_mask:
            inputs["attention_mask"] = torch.ones(shape, dtype=torch.int64, device="meta")
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            twin(**inputs)
        return counter.get_total_flops() / TRACED_ROWS

    # most architectures look whether a mask masks anything, which "meta" cannot say; some look for padding if there is none
    for with_mask in (False, True):
        try:
            short, middle, long = (count(length, with_mask) for length in lengths)
        except Exception:  # of whatever kind: the model's own code runs here
            continue
        first, second, third = lengths
        slopes = (middle - short) / (second - first), (long - middle) / (third - second)
        quadratic = (slopes[1] - slopes[0]) / (third - first)
        linear = slopes[0] - quadratic * (first + second)
        return DocumentFlops(short - linear * first - quadratic * first**2, linear, quadratic)
    return None


# dense FLOP/s of the tensor cores in float16 and, from Ampere on, bfloat16, from NVIDIA's data sheets, which give some with
# sparsity, that is doubled; by what torch.cuda.get_device_name says
PEAK_FLOPS = {
    r"B200\b": 2250e12,
    r"(H200 NVL|H100 NVL)\b": 835e12,
    r"(H200|GH200)\b": 989e12,
    r"H100 PCIe\b": 756e12,
    r"H100\b.*\b(HBM3|SXM5?)\b": 989e12,
    r"A100\b": 312e12,
    r"L40S\b": 362e12,
    r"L40\b": 181e12,
    r"L4\b": 121e12,
    r"A10G\b": 70e12,
    r"A10\b": 125e12,
    r"T4\b": 65e12,
    r"V100-SXM\d?\b": 125e12,
}
FLOAT16_ONLY = r"(T4|V100-SXM\d?)\b"


def peak_flops(device: str | None, dtype: str) -> float | None:
    """The most FLOP/s that a device can do in a dtype; None where that is not known.

    That is so for CPUs, for other GPUs than those in PEAK_FLOPS, for slices of a GPU (MIG), and for float32.

    Args:
        device: what torch.cuda.get_device_name says; None for a CPU.
    """
    if device is None or "MIG" in device or dtype not in ("bfloat16", "float16"):
        return None
    if dtype == "bfloat16" and re.search(rf"\b{FLOAT16_ONLY}", device):
        return None
    return next((peak for name, peak in PEAK_FLOPS.items() if re.search(rf"\b{name}", device)), None)


# what people call a GPU -> one of those names; of H100 the usual one, with NVLink
GPU_NAMES = {
    "A10": "A10",
    "A10G": "A10G",
    "A100": "A100",
    "B200": "B200",
    "GH200": "GH200",
    "H100": "H100 SXM",
    "H100-NVL": "H100 NVL",
    "H100-PCIe": "H100 PCIe",
    "H200": "H200",
    "H200-NVL": "H200 NVL",
    "L4": "L4",
    "L40": "L40",
    "L40S": "L40S",
    "T4": "T4",
    "V100": "V100-SXM2",
}


def gpu_dtype(device: str) -> str:
    """What model.dtype: auto becomes on a GPU of PEAK_FLOPS."""
    return "float16" if re.search(rf"\b{FLOAT16_ONLY}", device) else "bfloat16"


MIN_BATCH_TOKENS, MAX_BATCH_TOKENS = 8192, 262_144  # below, a GPU waits for launches; above, nothing gets faster
ACTIVATION_MEMORY_SHARE = 0.5  # of the memory beside the weights: the rest is for fragments, workspaces and other processes


def token_budget(
    free_bytes: float,
    *,
    weight_bytes: int,
    value_bytes: int,
    hidden_size: int,
    inner_size: int,
    heads: int,
    max_length: int,
    fused_attention: bool,
) -> int:
    """Tokens of a forward pass, padding included, that the memory of a GPU allows: a power of two from 8,192 to 262,144.

    What lives at once in a layer, per token of a document of max_length, is taken to be

        value_bytes * (8 * hidden_size + 3 * inner_size + 2 * max_length)
        + (0 if fused_attention else heads * max_length * (2 * value_bytes + 4))

    bytes: the residual, what goes in and comes out, queries, keys, values and their use; the layer between, gated ones too;
    the mask as a bias; and, where attention is not fused, its scores and their softmax in float32. Layers follow each other in
    the same memory and labels are few, so neither counts. Half of what the weights leave is given to it. Where that is too
    much after all, ForwardPasses halves it.
    """
    per_token = value_bytes * (8 * hidden_size + 3 * inner_size + 2 * max_length)
    if not fused_attention:
        per_token += heads * max_length * (2 * value_bytes + 4)
    tokens = int(max(ACTIVATION_MEMORY_SHARE * (free_bytes - weight_bytes) / per_token, 1))
    return min(max(2 ** (tokens.bit_length() - 1), MIN_BATCH_TOKENS), MAX_BATCH_TOKENS)


def inner_size_of(config: Any) -> int:
    """The size between the two layers of a feed-forward block; four times the hidden size where no name says it."""
    names = ("intermediate_size", "hidden_dim", "ffn_dim", "d_ff", "d_inner", "n_inner", "encoder_ffn_dim")
    return max((size for name in names if (size := getattr(config, name, None))), default=4 * config.hidden_size)


def token_flops_of(config: Any) -> float | None:
    """FLOPs per token, about: layers * (8 * hidden**2 + 4 * hidden * inner), as of BERT, without attention's products.

    For sizing only, where torch is not at hand; document_flops counts. None where the configuration names no sizes.
    """
    layers, hidden_size = getattr(config, "num_hidden_layers", None), getattr(config, "hidden_size", None)
    if not layers or not hidden_size:
        return None
    return float(layers * (8 * hidden_size**2 + 4 * hidden_size * inner_size_of(config)))


def token_budget_of(model: Any, free_bytes: float, max_length: int) -> int:
    """token_budget for a model of transformers, on any device; sizes that its configuration does not name are as BERT's."""
    config = model.config
    hidden_size = config.hidden_size
    weights = list(model.parameters())
    return token_budget(
        free_bytes,
        weight_bytes=sum(weight.numel() * weight.element_size() for weight in weights),
        value_bytes=model.dtype.itemsize,
        hidden_size=hidden_size,
        inner_size=inner_size_of(config),
        heads=getattr(config, "num_attention_heads", None) or max(1, hidden_size // 64),
        max_length=max_length,
        fused_attention=getattr(config, "_attn_implementation", "eager") != "eager",
    )


def utilization(flops: float | None, seconds: float, peak: float | None) -> float | None:
    """Model FLOPs utilization (MFU): FLOP/s on real tokens over the device's peak; None where one of them is not known."""
    if flops is None or peak is None or seconds <= 0:
        return None
    return flops / seconds / peak
