"""Weights of a model's folder as they are met and cannot be used: cut, of another format, renamed, not finite."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 267832558\n".format("5e" * 32)
WEIGHTS = "model.safetensors"


def rename_tensors(folder: Path, rename: Callable[[str], str]) -> Path:
    tensors = load_file(folder / WEIGHTS)
    save_file({rename(name): tensor for name, tensor in tensors.items()}, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def change_tensors(folder: Path, change: Callable[[str, Any], Any]) -> Path:
    tensors = load_file(folder / WEIGHTS)
    save_file({name: change(name, tensor) for name, tensor in tensors.items()}, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def layers_compiled(folder: Path) -> Path:
    """As accelerate's regional compilation does."""
    return rename_tensors(folder, lambda name: re.sub(r"(layer\.\d+\.)", r"\1_orig_mod.", name))


def shard_missing(folder: Path) -> Path:
    _shards(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    return folder


def shard_is_a_pointer(folder: Path) -> Path:
    _shards(folder)
    (folder / "model-00002-of-00002.safetensors").write_text(LFS_POINTER)
    return folder


def _shards(folder: Path) -> None:
    tensors = sorted(load_file(folder / WEIGHTS).items())
    (folder / WEIGHTS).unlink()
    half = len(tensors) // 2
    weight_map = {}
    for number, part in enumerate((tensors[:half], tensors[half:]), 1):
        name = f"model-{number:05}-of-00002.safetensors"
        save_file(dict(part), folder / name, metadata={"format": "pt"})
        weight_map |= {tensor: name for tensor, _ in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def weights_cut(folder: Path) -> Path:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1000])
    return folder


def weights_cut_in_their_header(folder: Path) -> Path:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:500])
    return folder


def weights_empty(folder: Path) -> Path:
    (folder / WEIGHTS).write_bytes(b"")
    return folder


def weights_of_another_format(folder: Path) -> Path:
    """An HTML page that a download saved under the name of the weights."""
    (folder / WEIGHTS).write_text("<!DOCTYPE html><html><head><title>Sign in</title></head></html>")
    return folder


def weights_in_float8(folder: Path) -> Path:
    import torch

    return change_tensors(folder, lambda name, tensor: tensor.to(torch.float8_e4m3fn) if tensor.ndim == 2 else tensor)


def weights_in_int8(folder: Path) -> Path:
    import torch

    return change_tensors(folder, lambda name, tensor: (tensor * 100).to(torch.int8) if tensor.ndim == 2 else tensor)


def weights_with_nan(folder: Path) -> Path:
    return change_tensors(folder, lambda name, tensor: tensor * float("nan") if name == "classifier.weight" else tensor)


def weights_of_float16_overflown(folder: Path) -> Path:
    return change_tensors(folder, lambda name, tensor: tensor + float("inf") if "layer.0.output.dense" in name else tensor)


def layers_missing(folder: Path) -> Path:
    """Weights of one layer, a configuration of two."""
    tensors = {name: tensor for name, tensor in load_file(folder / WEIGHTS).items() if ".layer.1." not in name}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def head_of_another_name(folder: Path) -> Path:
    return rename_tensors(folder, lambda name: name.replace("classifier", "my_head"))
