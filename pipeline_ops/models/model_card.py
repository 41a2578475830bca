"""Descriptive facts about a model: its architecture, size and model card. For display; labels do not depend on them."""

import json
import math
import os
from typing import Any

from pipeline_ops.models.adapters import adapted_config, adapter_folder
from pipeline_ops.models.config import ModelConfig
from pipeline_ops.models.fetch import is_hub_id, local_copy
from pipeline_ops.storage.config import StorageConfig

REVIEWED_SAMPLES = "reviewed_samples"  # ids of the samples of `review` that the model was trained on
CARD_KEYS = ("license", "language", "base_model", "datasets", "tags", "pipeline_tag", REVIEWED_SAMPLES)
CONFIG_KEYS = ("hidden_size", "dim", "num_hidden_layers", "n_layers", "vocab_size")


def card_of(config: ModelConfig, storage: StorageConfig) -> dict[str, Any]:
    """Facts by name, from the files that this machine has; without network access for local folders and hub models.

    Returns:
        Of the model, or of the one that an adapter adapts: architecture, model_type and those of CONFIG_KEYS that config.json
        has, parameters (a number; single safetensors files only). Those of CARD_KEYS that the model's or adapter's card has.
    """
    facts: dict[str, Any] = {}
    whole = config if config.base is None else adapted_config(config, config.base, config.base_revision)
    settings = _file(whole, storage, "config.json")
    if settings is not None:
        with open(settings, encoding="utf-8") as file:
            model_config = json.load(file)
        facts = {"architecture": (model_config.get("architectures") or [None])[0], "model_type": model_config.get("model_type")}
        facts |= {key: model_config[key] for key in CONFIG_KEYS if key in model_config}
    weights = _file(whole, storage, "model.safetensors")
    if weights is not None:
        facts["parameters"] = _parameters(weights)
    card = _file(config, storage, "README.md")
    if card is not None:
        facts |= _card_data(card)
    return {name: value for name, value in facts.items() if value is not None}


def _file(config: ModelConfig, storage: StorageConfig, name: str) -> str | None:
    """Local path of a file of the model, if this machine has it; hub models are looked up in the cache only."""
    if is_hub_id(config.path):
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(config.path, name, revision=config.revision)
        return cached if isinstance(cached, str) else None
    adapter = adapter_folder(config, storage) if config.base is not None else None
    path = os.path.join(adapter or local_copy(config, storage, weights=False), name)
    return path if os.path.isfile(path) else None


def _parameters(path: str) -> int:
    """The number of weights in a safetensors file, from the shapes in its header."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as weights:
        return sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118 it is no dict


def _card_data(path: str) -> dict[str, Any]:
    """Those of CARD_KEYS that a model card has; none if it has no metadata or they are invalid YAML, as in some cards."""
    import yaml
    from huggingface_hub import ModelCard

    with open(path, encoding="utf-8-sig", errors="replace") as file:
        content = file.read()
    if not content.startswith("---"):  # ModelCard would log a warning
        return {}
    try:
        data = ModelCard(content, ignore_metadata_errors=True).data.to_dict()
    except (yaml.YAMLError, TypeError, ValueError):
        return {}
    # YAML has dates, JSON has not
    return json.loads(json.dumps({key: data[key] for key in CARD_KEYS if key in data}, default=str))
