"""Classifiers that share their lowest layers, as fine-tuning a frozen encoder, or its upper layers alone, makes them."""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer


def make_relative(model: Path, folder: Path, labels: Sequence[str], *, lowest: int | None = None, seed: int = 1) -> Path:
    """Saves a classifier with another head than `model` into `folder`.

    Args:
        lowest: layers that it has in common with `model`, counted from the embeddings; None: everything but the head.
    """
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: index for index, label in enumerate(labels)}}
    torch.manual_seed(seed)
    classifier = AutoModelForSequenceClassification.from_pretrained(model, ignore_mismatched_sizes=True, **names)
    with torch.no_grad():
        for name, tensor in classifier.named_parameters():
            layer = re.search(r"\.(\d+)\.", name)
            is_above = layer is not None and lowest is not None and int(layer[1]) >= lowest
            if is_above or (lowest is not None and "pooler" in name):
                tensor.add_(torch.randn_like(tensor) * 0.05)
            elif not name.startswith(f"{classifier.base_model_prefix}."):
                tensor.copy_(torch.randn_like(tensor) * 0.2)
    classifier.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder
