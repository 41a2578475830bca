"""What only the machine of a classifier knows: its GPU, the memory for a batch, and the dtype that is fast there."""

import os
from collections.abc import Sequence
from typing import Any

from pipeline_ops.loading.device_errors import usable_device
from pipeline_ops.loading.load import load_classifier
from pipeline_ops.loading.memory import token_budget
from pipeline_ops.models.config import JobModel
from pipeline_ops.models.resolve import FLOAT32_KINDS
from pipeline_ops.storage.config import StorageConfig


def probe_models(models: Sequence[JobModel], storage: StorageConfig, gpus_per_classifier: float) -> dict[str, Any]:
    """Resolve the settings that are `auto` on this machine, which has to be one that runs classifiers.

    Args:
        models: the models of one classifier.
        gpus_per_classifier: 0 for CPUs; a classifier gets this share of the GPU's free memory.

    Returns:
        dtypes: one per model; device: the GPU's name; batch_tokens: tokens per forward pass that fit beside all models. The
        latter two are None on a CPU.

    Raises:
        UserError: as load_classifier, or the GPU cannot be used.
    """
    with usable_device():
        dtypes = [resolve_dtype(model.config.dtype, gpus_per_classifier > 0, model.facts.model_type) for model in models]
    if not gpus_per_classifier:  # importing torch would delay the first label by seconds
        return {"dtypes": dtypes, "device": None, "batch_tokens": None}
    import torch

    with usable_device():
        free_bytes = torch.cuda.mem_get_info()[0] * min(gpus_per_classifier, 1)
    without_data = [
        load_classifier(model.config, storage, revision=model.facts.revision, dtype=dtype, device="meta")
        for model, dtype in zip(models, dtypes, strict=True)
    ]
    budget = token_budget(without_data, [model.facts.max_length for model in models], free_bytes)
    return {"dtypes": dtypes, "device": torch.cuda.get_device_name(), "batch_tokens": budget}


def resolve_dtype(dtype: str, use_gpu: bool, kind: str = "") -> str:
    """`model.dtype` on this machine. auto: bfloat16 if it is native, else float16 on a GPU and float32 on a CPU.

    For a `kind` of FLOAT32_KINDS, an architecture's name in transformers, it is float32.

    Emulated bfloat16 is up to 100 times slower than float32 on CPUs. GPUs have it from compute capability 8 (Ampere) on.
    """
    if dtype != "auto":
        return dtype
    if kind in FLOAT32_KINDS:
        return "float32"
    if use_gpu:
        import torch

        return "bfloat16" if torch.cuda.get_device_capability()[0] >= 8 else "float16"
    return "bfloat16" if cpu_flags() & {"amx_bf16", "avx512_bf16", "bf16"} else "float32"


def cpu_flags() -> set[str]:
    """What this machine's CPU can do, as Linux names it, among other words of /proc/cpuinfo; empty on other systems."""
    if not os.path.exists("/proc/cpuinfo"):
        return set()
    with open("/proc/cpuinfo") as cpuinfo:
        return set(cpuinfo.read().split())
