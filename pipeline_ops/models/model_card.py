"""What a model says of itself: its configuration, the size of its weights, its card. For people; no label depends on it."""

import json
import os
from typing import Any

from pipeline_ops.models.config import ModelConfig
from pipeline_ops.models.fetch import is_hub_id, local_copy
from pipeline_ops.storage.files import StorageConfig

CARD_KEYS = ("license", "language", "base_model", "datasets", "tags", "pipeline_tag")
CONFIG_KEYS = ("hidden_size", "dim", "num_hidden_layers", "n_layers", "vocab_size")


def card_of(config: ModelConfig, storage: StorageConfig) -> dict[str, Any]:
    """Facts by name; what the model's folder does not tell is left out.

    Returns:
        architecture, model_type, parameters (where the weights are safetensors on this machine), some of CONFIG_KEYS, and of
        the card's header CARD_KEYS.
    """
    facts: dict[str, Any] = {}
    settings = _file(config, storage, "config.json")
    if settings is not None:
        with open(settings, encoding="utf-8") as file:
            known = json.load(file)
        facts = {"architecture": (known.get("architectures") or [None])[0], "model_type": known.get("model_type")}
        facts |= {key: known[key] for key in CONFIG_KEYS if key in known}
    weights = _file(config, storage, "model.safetensors")
    if weights is not None:
        facts["parameters"] = _parameters(weights)
    card = _file(config, storage, "README.md")
    if card is not None:
        facts |= _header(card)
    return {name: value for name, value in facts.items() if value is not None}


def _file(config: ModelConfig, storage: StorageConfig, name: str) -> str | None:
    """A file of the model as this machine has it; nothing is fetched from a hub for it."""
    if is_hub_id(config.path):
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(config.path, name, revision=config.revision)
        return cached if isinstance(cached, str) else None
    path = os.path.join(local_copy(config, storage, weights=False), name)
    return path if os.path.isfile(path) else None


def _parameters(path: str) -> int:
    """Numbers in a safetensors file, by its header: 8 bytes of length, then JSON.

    Source: safetensors' format, github.com/huggingface/safetensors, README.
    """
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    total = 0
    for name, tensor in header.items():
        if name != "__metadata__":
            count = 1
            for length in tensor["shape"]:
                count *= length
            total += count
    return total


def _header(path: str) -> dict[str, Any]:
    """Of a card whose header is no YAML, as people write them, nothing."""
    import yaml

    with open(path, encoding="utf-8", errors="replace") as file:
        text = file.read()
    if not text.startswith("---"):
        return {}
    try:
        known = yaml.safe_load(text.split("---", 2)[1])
    except yaml.YAMLError:
        return {}
    return {key: known[key] for key in CARD_KEYS if key in known} if isinstance(known, dict) else {}
