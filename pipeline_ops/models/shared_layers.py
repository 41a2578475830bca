"""Which lowest layers models of a job have in common: by their configurations, and names and values of their tensors. No torch.

Models that were fine-tuned on a frozen encoder, or on its frozen lowest layers, need one pass through these for all of them.
What is decided here, by files, is for plans and estimates; a classifier compares the tensors that it holds, by the same rule.
"""

import os
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline_ops.model_files.weight_files import DamagedFile, Tensor, read_tensors
from pipeline_ops.models.config import JobModel, SharedLayers
from pipeline_ops.models.fetch import is_hub_id
from pipeline_ops.storage.paths import is_local
from pipeline_ops.storage.store import Store

# settings of a configuration that say nothing about the layers: of labels, heads and files, and what only training uses
HEAD_SETTINGS = {
    *("id2label", "label2id", "num_labels", "problem_type", "finetuning_task", "task_specific_params"),
    *("architectures", "_name_or_path", "transformers_version", "dtype", "torch_dtype", "auto_map"),
}
HEAD_PREFIXES = ("classifier_", "summary_")
# modules directly in an encoder that follow its last layer
AFTER_LAYERS = {"pooler", "norm", "final_norm", "ln_f", "norm_f", "final_layernorm", "final_layer_norm"}
CHUNK_BYTES = 2**24


@dataclass(frozen=True)
class CommonPart:
    """What two models have in common.

    Attributes:
        layers: the lowest ones, of the `num_layers` in the module `layer_list`; both 0 and "" if there is no plain list.
        whole: everything below the heads, whatever it is made of.
    """

    layers: int
    num_layers: int
    layer_list: str
    whole: bool

    @property
    def share(self) -> float:
        """Of a pass, about."""
        return 1.0 if self.whole else self.layers / self.num_layers


def common_part(
    names: Collection[str], is_same: Callable[[str], bool], *, encoder: str, num_layers: int | None
) -> CommonPart | None:
    """What two models of the same configuration have in common; None: nothing, or no plain list of layers and not everything.

    A plain list is the only list of modules in the encoder, and has one module for each layer. Then the output of the lowest k
    layers depends on nothing but them and what is neither a layer nor behind them: embeddings, relative positions.

    Args:
        names: of the tensors, in both models.
        is_same: whether both have the same values; asked from the embeddings up, no further than necessary.
        encoder: the name of the module that is everything but the head.
        num_layers: by the configuration.
    """
    layers: dict[int, list[str]] = {}
    below, behind, lists = [], [], set()
    inside = sorted(name for name in names if name.startswith(f"{encoder}."))
    for name in inside:
        found = re.match(r"(.+?)\.(\d+)\.", name)
        if found is not None:
            lists.add(found[1])
            layers.setdefault(int(found[2]), []).append(name)
        elif name.split(".")[1] in AFTER_LAYERS:
            behind.append(name)
        else:
            below.append(name)
    if not inside:
        return None
    if len(lists) != 1 or sorted(layers) != [*range(num_layers or 0)]:
        return CommonPart(0, 0, "", True) if all(map(is_same, inside)) else None
    if not all(map(is_same, below)):
        return None
    same = next((layer for layer in sorted(layers) if not all(map(is_same, layers[layer]))), len(layers))
    whole = same == len(layers) and all(map(is_same, behind))
    return CommonPart(same, len(layers), lists.pop(), whole) if same else None


def same_arithmetic(first: Any, second: Any) -> bool:
    """Whether two transformers configurations compute the same below the head, given the same weights."""
    return type(first) is type(second) and _of_layers(first) == _of_layers(second)


def _of_layers(config: Any) -> dict[str, Any]:
    return {
        key: value
        for key, value in config.to_dict().items()
        if key not in HEAD_SETTINGS and not key.startswith(HEAD_PREFIXES) and "drop" not in key
    }


def sharing_key(model: JobModel) -> tuple[Any, ...] | None:
    """Equal for models of a job that may have layers in common; None for one that runs alone.

    With `compile: true` it does: whether the compiler's graphs can hand tensors from model to model has not been tried. With
    `auto` sharing comes first.
    """
    return None if model.config.compile is True else (model.tokenization_key, model.config.dtype, model.dtype)


def with_shared_layers(models: Sequence[JobModel]) -> tuple[JobModel, ...]:
    """The models, each with what it has in common with an earlier one, as far as their files are on this machine."""
    files = [None if sharing_key(model) is None or len(models) == 1 else _Files.of(model) for model in models]
    found: list[JobModel] = []
    for number, (model, own) in enumerate(zip(models, files, strict=True)):
        best: SharedLayers | None = None
        for earlier in range(number):
            other = files[earlier]
            if own is None or other is None or sharing_key(models[earlier]) != sharing_key(model):
                continue
            part = own.common_with(other)
            if part is not None and (best is None or part.share > best.share):
                best = SharedLayers(models[earlier].name, part.layers, part.num_layers, part.share)
        found.append(replace(model, shared=best))
    return tuple(found)


@dataclass(frozen=True)
class _Files:
    """The configuration and the tensors of a model's folder."""

    config: Any  # transformers'
    tensors: dict[str, Tensor]

    @classmethod
    def of(cls, model: JobModel) -> "_Files | None":
        """None if the weights are not on this machine, or no safetensors."""
        from transformers import AutoConfig

        folder = _local_folder(model)
        if folder is None:
            return None
        try:
            tensors = read_tensors(Store(folder))
        except DamagedFile:  # loading the model says what is wrong
            return None
        if not tensors:
            return None
        return cls(AutoConfig.from_pretrained(folder, trust_remote_code=model.config.trust_remote_code), tensors)

    def common_with(self, other: "_Files") -> CommonPart | None:
        firsts = [name.split(".")[0] for name in self.tensors]
        encoder = max(firsts, key=firsts.count)
        names, its_names = ({name for name in files.tensors if name.startswith(f"{encoder}.")} for files in (self, other))
        if names != its_names or not same_arithmetic(self.config, other.config):
            return None
        layers = getattr(self.config, "num_hidden_layers", None)
        return common_part(
            names, lambda name: _same_bytes(self.tensors[name], other.tensors[name]), encoder=encoder, num_layers=layers
        )


def _same_bytes(first: Tensor, second: Tensor) -> bool:
    if (first.dtype, first.shape) != (second.dtype, second.shape) or first.end - first.begin != second.end - second.begin:
        return False
    if first.begin == first.end:
        return True
    values = [
        np.memmap(one.path, np.uint8, mode="r", offset=one.begin, shape=(one.end - one.begin,)) for one in (first, second)
    ]
    parts = range(0, len(values[0]), CHUNK_BYTES)
    return all(np.array_equal(values[0][at : at + CHUNK_BYTES], values[1][at : at + CHUNK_BYTES]) for at in parts)


def _local_folder(model: JobModel) -> str | None:
    """The folder of a model's files on this machine; None if there is none: on object storage, or not downloaded."""
    config = model.config
    if not is_hub_id(config.path):
        return os.path.expanduser(config.path) if is_local(config.path) else None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(config.path, "config.json", revision=config.revision)
    return os.path.dirname(cached) if isinstance(cached, str) else None
