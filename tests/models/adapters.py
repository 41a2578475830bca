"""Adapters of PEFT for tiny models, made on the spot: seeded weights of their own and a head, as if trained."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.models.tiny import SPREAD_TEXTS, spread_logits
from tests.support.corpora import real_documents

SPREAD = 0.2  # of an adapter's weights: logits differ from the model's by far more than 1e-3


def make_adapter(folder: Path, base: Path, config: PeftConfig, num_labels: int = 3, texts: Sequence[str] | None = None) -> Path:
    """Saves an adapter, without a tokenizer, whose head is centered on `texts`."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=num_labels, ignore_mismatched_sizes=True)
    adapted: Any = get_peft_model(model, config).eval()
    with torch.no_grad():
        for name, weights in adapted.named_parameters():
            if weights.requires_grad and "modules_to_save" not in name:
                weights.add_(torch.randn_like(weights) * SPREAD)
    texts = [text[:1000] for text in (real_documents(60) if texts is None else texts) if text][:SPREAD_TEXTS]
    spread_logits(adapted, AutoTokenizer.from_pretrained(base), texts)
    adapted.save_pretrained(folder)
    return folder


def unmerged(folder: Path, base: Path, num_labels: int = 3) -> Any:
    """The model with the adapter beside its weights, as peft loads it."""
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=num_labels, ignore_mismatched_sizes=True)
    return PeftModel.from_pretrained(model, str(folder)).eval()
