"""Whether a model's weights hold a classification head: from the names of its tensors, in milliseconds and without torch.

load.py decides, by the modules that the weights leave untrained. This says the same earlier, and says nothing where it cannot
know: for weights that are not safetensors, cannot be read, or belong to code of the model's own.
"""

import json
import os
import struct
from typing import Any

from pipeline_ops.models.config import ModelConfig
from pipeline_ops.models.fetch import is_hub_id
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.store import Store

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit
# the attributes that hold the heads of transformers' sequence classifiers; tests/unit/models/test_head_weights.py compares
HEAD_MODULES = {"classifier", "score", "classification_head", "logits_proj", "sequence_summary"}


def check_head(config: ModelConfig, storage: StorageConfig, model: Any) -> None:
    """Raises UserError for a model whose weights have no tensor of a classification head.

    Args:
        config: with the commit as revision, for a model on the hub.
        model: its configuration, a transformers PreTrainedConfig.
    """
    architectures = model.architectures or []
    if config.allow_new_weights or getattr(model, "auto_map", None):
        return
    if any(name.endswith("ForSequenceClassification") for name in architectures):
        return
    names = _hub_tensor_names(config) if is_hub_id(config.path) else _tensor_names(Store(config.path, storage))
    if names is None or any(HEAD_MODULES.intersection(name.split(".")) for name in names):
        return
    kind = f" is a {architectures[0]}, and" if architectures else ""
    raise UserError(
        f"model.path: {config.path!r}{kind} has no trained classification head: its labels would be random; fine-tune it first"
        f" (label-corpus train), or set model.allow_new_weights"
    )


def _tensor_names(store: Store) -> list[str] | None:
    """Names of the tensors in a folder's safetensors, as from_pretrained would choose the files; None if not known."""
    for name in (WEIGHTS, INDEX):
        try:
            file = store.stat(name)
        except FileNotFoundError:
            continue
        with store.open(file, sequential=False) as source:
            if name == INDEX:
                return _names_of(source.read(), "weight_map")
            length = source.read(8)
            size = struct.unpack("<Q", length)[0] if len(length) == 8 else 0
            return _names_of(source.read(size), None) if 0 < size <= MAX_HEADER_BYTES else None
    return None


def _names_of(content: bytes, key: str | None) -> list[str] | None:
    try:
        parsed = json.loads(content)
        return list(parsed if key is None else parsed[key])
    except (ValueError, KeyError, TypeError):  # damaged; loading it says how
        return None


def _hub_tensor_names(config: ModelConfig) -> list[str] | None:
    """As _tensor_names, of a model on the hub: from the local cache, else by requests for the headers alone."""
    from huggingface_hub import get_safetensors_metadata, try_to_load_from_cache

    for name in (WEIGHTS, INDEX):
        cached = try_to_load_from_cache(config.path, name, revision=config.revision)
        if isinstance(cached, str):
            return _tensor_names(Store(os.path.dirname(cached)))
    try:
        return list(get_safetensors_metadata(config.path, revision=config.revision).weight_map)
    except Exception:  # none there, or not reachable; the HTTP library that raises depends on the huggingface_hub version
        return None
