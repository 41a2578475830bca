"""What the machine has (facts), and what its GPU can do at best (ceilings): memory traffic, matrix products of real shapes."""

import ctypes
import glob
import platform
import shutil
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from cluster.session import this_machine, usable_cores
from jobs.gpu_benchmark.phases import Bench
from pipeline_ops.models.flops import peak_flops
from pipeline_ops.schema.errors import one_line

PACKAGES = ("torch", "triton", "transformers", "tokenizers", "pyarrow", "numpy")
SDPA_BACKENDS = ("flash", "mem_efficient", "math", "cudnn")
NVML_SUCCESS = 0
TOKENS = 65_536  # of a forward pass
LAYERS = {768: ((768, 768), (768, 2304), (768, 3072), (3072, 768)), 384: ((384, 384), (384, 1152), (384, 1536), (1536, 384))}
SQUARE = 8192  # of the reference product
COPIED_BYTES = 2**30
FLOAT8_MAX = 448.0  # of float8_e4m3fn
MESSAGE_CHARACTERS = 160
Shape = tuple[int, int, int]  # rows, inner, outer


def facts(bench: Bench) -> None:
    """Versions, the device, attention kernels in torch's order, the GPUs by each way of counting, cores."""
    bench.row({"what": "versions", "python": sys.version.split()[0], **{name: _version(name) for name in PACKAGES}})
    bench.row({"what": "gpus", **gpu_counts(), "this_machine": int(this_machine().gpus)})
    bench.row({"what": "cores", "usable": usable_cores(), "machine": platform.machine(), "shm_bytes": _free_bytes("/dev/shm")})
    import torch

    bench.row(
        {
            "what": "torch",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "sdpa_order": _sdpa_order(),
            **{f"sdpa_{name}": getattr(torch.backends.cuda, f"{name}_sdp_enabled")() for name in SDPA_BACKENDS},
            "flash_compiled": _call(torch.backends.cuda, "is_flash_attention_available"),
            "varlen_module": _has_module("torch.nn.attention.varlen"),
            "arch_list": " ".join(torch.cuda.get_arch_list()),
        }
    )
    if not bench.on_gpu:
        bench.row({"what": "device", "name": None})
        return
    device = torch.cuda.get_device_properties(0)
    bench.row(
        {
            "what": "device",
            "name": bench.gpu,
            "capability": list(torch.cuda.get_device_capability()),
            "memory_gib": round(device.total_memory / 2**30, 1),
            "free_gib": round(torch.cuda.mem_get_info()[0] / 2**30, 1),
            "multiprocessors": device.multi_processor_count,
            "peak_tflops": (peak_flops(bench.gpu, "bfloat16") or 0) / 1e12 or None,
        }
    )


def gpu_counts() -> dict[str, int | None]:
    """GPUs by each way of counting that needs no CUDA context; None: this way is not there."""
    devices = glob.glob("/dev/nvidia[0-9]*")
    return {
        "proc": len(glob.glob("/proc/driver/nvidia/gpus/*")),
        "dev": len(devices),
        "nvml": _nvml_count(),
        "torch": _torch_count(),
    }


def _nvml_count() -> int | None:
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    count = ctypes.c_uint()
    if nvml.nvmlInit_v2() != NVML_SUCCESS or nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != NVML_SUCCESS:
        return None
    return count.value


def _torch_count() -> int:
    import torch

    return torch.cuda.device_count()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _free_bytes(folder: str) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def _sdpa_order() -> str | None:
    """torch's kernels of scaled_dot_product_attention, the preferred one first; some may be disabled."""
    import torch

    order = _call(torch._C, "_get_sdp_priority_order")
    members: Any = torch.nn.attention.SDPBackend.__members__
    names = {int(value): name for name, value in members.items()}
    return None if order is None else " > ".join(names.get(int(kernel), str(kernel)) for kernel in order)


def _call(place: Any, name: str) -> Any:
    """The result of a function that not all releases of torch have; None without it."""
    return getattr(place, name)() if hasattr(place, name) else None


def _has_module(name: str) -> bool:
    return find_spec(name) is not None


def ceilings(bench: Bench) -> None:
    """TB/s of a copy, TFLOP/s of the products of BERT's layers at a full batch: plain, with GELU, and in float8.

    Inputs are random: on zeros a GPU draws less power and runs faster than on data.
    """
    import torch

    _copy(bench)
    torch.manual_seed(0)
    size = 128 if bench.tiny else SQUARE
    square = torch.randn(size, size, dtype=torch.bfloat16, device=bench.device)
    _products(bench, (size, size, size), {"matmul": lambda: square @ square}, what="reference")
    # fused as it would be in a model; a rehearsal on a CPU has no compiler to wait for
    by_row = torch.compile(quantize_by_row) if bench.on_gpu and not bench.tiny else quantize_by_row
    for hidden, shapes in LAYERS.items():
        for shape in shapes:
            sizes = (64, shape[0] // 24, shape[1] // 24) if bench.tiny else (TOKENS, *shape)
            _products(bench, sizes, _layer(bench, sizes, by_row), what="layer", hidden=hidden)


def _copy(bench: Bench) -> None:
    import torch

    size = 2**20 if bench.tiny else COPIED_BYTES
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    bench.row(
        {"what": "copy", "bytes": size, "tb_per_second": 2 * size / bench.milliseconds(lambda: target.copy_(source)) / 1e9}
    )
    if bench.on_gpu:
        host = torch.empty(size // 8, dtype=torch.uint8, pin_memory=True)
        milliseconds = bench.milliseconds(lambda: target[: size // 8].copy_(host, non_blocking=True))
        bench.row({"what": "pinned copy", "bytes": size // 8, "gb_per_second": size / 8 / milliseconds / 1e6})


def _products(bench: Bench, sizes: Shape, functions: Mapping[str, Callable[[], Any]], **row: Any) -> None:
    """A row with the TFLOP/s of each way to multiply (rows, inner) by (inner, outer), and what the others were refused for."""
    rows, inner, outer = sizes
    tflops, refused = {}, {}
    for name, function in functions.items():
        if not bench.has_time(1):
            refused[name] = "no time left"
            continue
        try:
            tflops[name] = 2 * rows * inner * outer / bench.milliseconds(function) / 1e9
        except Exception as error:  # a product that this device, or this torch, does not have
            refused[name] = one_line(error)[:MESSAGE_CHARACTERS]
    bench.row(
        {**row, "rows": rows, "inner": inner, "outer": outer, "tflops": tflops, **({"refused": refused} if refused else {})}
    )


def _layer(bench: Bench, sizes: Shape, compiled_by_row: Callable[..., Any]) -> dict[str, Callable[[], Any]]:
    """The ways to compute one linear layer with bias; with GELU where one follows: of the wider one."""
    import torch
    from torch.nn.functional import gelu, linear

    rows, inner, outer = sizes
    bfloat16 = {"dtype": torch.bfloat16, "device": bench.device}
    inputs, weight, bias = (
        torch.randn(rows, inner, **bfloat16),
        torch.randn(outer, inner, **bfloat16),
        torch.randn(outer, **bfloat16),
    )
    weight /= inner**0.5
    functions: dict[str, Callable[[], Any]] = {"linear": lambda: linear(inputs, weight, bias)}
    if outer == 4 * inner:
        functions["linear, then gelu"] = lambda: gelu(linear(inputs, weight, bias))
        # the epilogue of cuBLASLt, which is the approximation by tanh
        functions["linear with gelu"] = lambda: torch.ops.aten._addmm_activation(bias, inputs, weight.t(), use_gelu=True)

    def product(inputs8: Any, input_scale: Any, weight8: Any, weight_scale: Any) -> Any:
        return torch.ops.aten._scaled_mm(
            inputs8,
            weight8.t(),
            scale_a=input_scale,
            scale_b=weight_scale.t(),
            bias=bias,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,  # without it Hopper adds up in registers, at half the speed
        )

    def quantizing(quantize: Callable[..., Any], weights8: Any) -> Any:
        return product(*quantize(inputs), *weights8)

    for kind, quantize, measured in (
        ("tensor", quantize_by_tensor, quantize_by_tensor),
        ("row", quantize_by_row, compiled_by_row),
    ):
        weights8 = quantize(weight)
        functions[f"float8 by {kind}"] = partial(product, *quantize(inputs), *weights8)
        functions[f"float8 by {kind}, quantizing"] = partial(quantizing, measured, weights8)
    return functions


def quantize_by_tensor(values: Any) -> tuple[Any, Any]:
    """float8_e4m3fn values, and their scale: float32 (1, 1)."""
    return _quantize(values, values.abs().amax().view(1, 1))


def quantize_by_row(values: Any) -> tuple[Any, Any]:
    """float8_e4m3fn values, and the scale of each row: float32 (rows, 1)."""
    return _quantize(values, values.abs().amax(dim=1, keepdim=True))


def _quantize(values: Any, largest: Any) -> tuple[Any, Any]:
    import torch

    scale = (largest.float() / FLOAT8_MAX).clamp(min=1e-12)
    return (values / scale).to(torch.float8_e4m3fn), scale
