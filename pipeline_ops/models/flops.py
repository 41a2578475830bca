"""FLOPs of a model by its architecture, and the peak FLOP/s of devices. Needs neither weights nor documents."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

TRACED_ROWS = 2**20  # makes FLOPs per pass negligible beside those per document; tensors on "meta" hold no data


@dataclass(frozen=True)
class DocumentFlops:
    """FLOPs of one document of n tokens, without padding: constant + linear * n + quadratic * n**2."""

    constant: float
    linear: float
    quadratic: float

    def total(self, lengths: np.ndarray) -> float:
        """FLOPs of all documents; `lengths`: their tokens, one-dimensional."""
        tokens = lengths.astype(np.float64)
        return float(self.constant * len(tokens) + self.linear * tokens.sum() + self.quadratic * np.square(tokens).sum())


def document_flops(model: Any, max_length: int, without: Sequence[str] = ()) -> DocumentFlops | None:
    """The FLOPs of one document as a quadratic in its tokens, fitted to a trace on "meta" tensors of three lengths.

    Source: torch.utils.flop_counter.FlopCounterMode: matrix products only, attention's included, with two FLOPs for a
    multiplication and an addition. Shared layers count each time they run. Attention counts as dense, even if a model computes
    a window of it only. What a pass computes once for all documents, such as DeBERTa's relative positions, is left out.

    For BERT with L layers of size h, inner size f and k labels, a document of n tokens costs

        L * (n * (8 * h**2 + 4 * h * f) + n**2 * 4 * h) + 2 * h**2 + 2 * h * k

    Args:
        model: on any device; a copy without weights is traced.
        max_length: tokens of the longest document.
        without: names of modules, none within another, whose FLOPs another model computes for this one.

    Returns:
        None if the architecture cannot be traced without data (some read token ids or the mask), or max_length is below 4.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    lengths = (max_length // 4, max_length // 2, max_length)
    if not lengths[0]:
        return None

    try:
        with torch.device("meta"):
            twin = type(model)(model.config).eval()
        twin.to("meta")  # XLNet makes weights in memory whatever the device: products of all rows would be there, too
        twin.requires_grad_(False)  # the counter follows gradients, which fails in places
    except Exception:  # of any kind: the model's own code runs here
        return None

    def count(length: int, with_mask: bool) -> float:
        shape = (TRACED_ROWS, length)
        inputs = {"input_ids": torch.zeros(shape, dtype=torch.int64, device="meta")}
        if with_mask:
            inputs["attention_mask"] = torch.ones(shape, dtype=torch.int64, device="meta")
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            twin(**inputs)
        counts = counter.get_flop_counts()
        elsewhere = sum(sum(counts.get(f"{type(twin).__name__}.{name}", {}).values()) for name in without)
        return (counter.get_total_flops() - elsewhere) / TRACED_ROWS

    # most architectures read the values of a mask, which "meta" tensors lack; some read the ids if there is no mask
    for with_mask in (False, True):
        try:
            short, middle, long = (count(length, with_mask) for length in lengths)
        except Exception:  # of any kind: the model's own code runs here
            continue
        first, second, third = lengths
        slopes = (middle - short) / (second - first), (long - middle) / (third - second)
        quadratic = (slopes[1] - slopes[0]) / (third - first)
        linear = slopes[0] - quadratic * (first + second)
        return DocumentFlops(short - linear * first - quadratic * first**2, linear, quadratic)
    return None


# Dense FLOP/s of the tensor cores in float16 and, from Ampere on, bfloat16, by torch.cuda.get_device_name. Source: NVIDIA's
# data sheets; numbers that they give with sparsity are halved.
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
    """The peak FLOP/s of a device in a dtype; None for CPUs, GPUs that are not in PEAK_FLOPS, MIG slices, and float32.

    Args:
        device: torch.cuda.get_device_name(); None for a CPU.
    """
    if device is None or "MIG" in device or dtype not in ("bfloat16", "float16"):
        return None
    if dtype == "bfloat16" and re.search(rf"\b{FLOAT16_ONLY}", device):
        return None
    return next((peak for name, peak in PEAK_FLOPS.items() if re.search(rf"\b{name}", device)), None)


# name on the command line -> a device name of PEAK_FLOPS; H100 is the one with NVLink
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
    """`model.dtype: auto` on a GPU of PEAK_FLOPS."""
    return "float16" if re.search(rf"\b{FLOAT16_ONLY}", device) else "bfloat16"


def inner_size_of(config: Any) -> int:
    """The inner size of a feed-forward block; four times the hidden size if the configuration does not name it."""
    names = ("intermediate_size", "hidden_dim", "ffn_dim", "d_ff", "d_inner", "n_inner", "encoder_ffn_dim")
    return max((size for name in names if (size := getattr(config, name, None))), default=4 * config.hidden_size)


def token_flops_of(config: Any) -> float | None:
    """Estimated FLOPs per token: layers * (8 * hidden**2 + 4 * hidden * inner), as in BERT, without attention's products.

    For sizing without torch; document_flops is exact. None if the configuration does not name the sizes.
    """
    layers, hidden_size = getattr(config, "num_hidden_layers", None), getattr(config, "hidden_size", None)
    if not layers or not hidden_size:
        return None
    return float(layers * (8 * hidden_size**2 + 4 * hidden_size * inner_size_of(config)))


def utilization(flops: float | None, seconds: float, peak: float | None) -> float | None:
    """Model FLOPs utilization (MFU): FLOP/s on tokens without padding over the peak FLOP/s; None if one is not known.

    Source: Chowdhery et al. 2022, PaLM (arXiv:2204.02311), section 4.1.
    """
    if flops is None or peak is None or seconds <= 0:
        return None
    return flops / seconds / peak
