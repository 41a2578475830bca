"""Classifiers of real shapes with seeded random weights, and documents of random token ids for them, made on the device.

Speed depends on shapes and lengths alone. As labels are compared as well, each document draws its ids from a few of its own,
and the head is scaled until every logit has mean 0 and deviation 1 over documents.
"""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from pipeline_ops.loading import padded_attention
from pipeline_ops.loading.float32_head import keep_head_in_float32
from pipeline_ops.loading.fused_layers import fuse_layers
from pipeline_ops.tokenizing.batching import TokenBatches, make_batches
from pipeline_ops.tokenizing.encoding import Encodings

NUM_LABELS = 4
FIRST_ID = 8  # lower ones are special tokens in every configuration here
IDS_PER_DOCUMENT = 24
CALIBRATION_DOCUMENTS = 128
MEDIAN_TOKENS, LENGTH_SIGMA = 200, 0.7  # of mixed lengths, log-normal; as in pipeline_ops.synthetic.benchmark_corpus
INITIALIZER_RANGE = 0.05  # with 0.02 the logits of an untrained model hardly differ between documents


def bert_base(tiny: bool) -> Any:
    """The configuration of bert-base-uncased: 110M parameters."""
    from transformers import BertConfig

    return BertConfig(**_shape(tiny, layers=12, hidden=768, inner=3072, heads=12), vocab_size=2000 if tiny else 30_522)


def small_bert(tiny: bool) -> Any:
    """A BERT with the shape of all-MiniLM-L6: 22M parameters."""
    from transformers import BertConfig

    return BertConfig(**_shape(tiny, layers=6, hidden=384, inner=1536, heads=12), vocab_size=2000 if tiny else 30_522)


def deberta_base(tiny: bool) -> Any:
    """The configuration of deberta-v3-base: 184M parameters."""
    from transformers import DebertaV2Config

    of_version_3: dict[str, Any] = {
        "position_buckets": 16 if tiny else 256,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
    }
    return DebertaV2Config(
        **_shape(tiny, layers=12, hidden=768, inner=3072, heads=12),
        **of_version_3,
        vocab_size=2000 if tiny else 128_100,
        relative_attention=True,
        max_relative_positions=-1,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        type_vocab_size=0,
    )


def _shape(tiny: bool, layers: int, hidden: int, inner: int, heads: int) -> dict[str, Any]:
    sizes = (2, 32, 64, 2) if tiny else (layers, hidden, inner, heads)
    names = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")
    return {**dict(zip(names, sizes, strict=True)), "num_labels": NUM_LABELS, "initializer_range": INITIALIZER_RANGE}


def make_classifier(config: Any, device: str, length: int, seed: int = 0) -> Any:
    """A sequence classifier in float32 in eval mode; its head gives every label to some documents of `length` tokens."""
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.manual_seed(seed)
    with torch.device(device):
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).eval()
    model.requires_grad_(False)
    head = [one for one in model.modules() if isinstance(one, torch.nn.Linear) and one.out_features == NUM_LABELS][-1]
    ids = np.stack([*document_ids(np.full(CALIBRATION_DOCUMENTS, length), config.vocab_size, seed=10_000)])
    with torch.inference_mode(False), torch.no_grad():
        parts = [model(**inputs_of(part, device)).logits for part in np.array_split(ids, CALIBRATION_DOCUMENTS // 32)]
        logits = torch.cat(parts)
        scale = 1 / logits.std(dim=0)
        head.weight.mul_(scale[:, None])
        bias = torch.zeros(NUM_LABELS, device=device) if head.bias is None else head.bias
        head.bias = torch.nn.Parameter((bias - logits.mean(dim=0)) * scale, requires_grad=False)
    return model


def in_dtype(model: Any, dtype: str, attention: str | None = None) -> Any:
    """A copy of the model in another dtype, its head in float32 as load_classifier has it; the original keeps its weights.

    Args:
        attention: padded_attention.MASKED or SEGMENTED; None: transformers' own.
    """
    import torch

    copied = copy.deepcopy(model).to(getattr(torch, dtype)).eval()
    keep_head_in_float32(copied)
    if attention is not None:
        padded_attention.use(copied, attention)
    return copied


def as_classifier(model: Any, dtype: str) -> Any:
    """A copy of the model as ClassifyActor has it on the model's device: with attention and fused layers for a GPU."""
    copied = in_dtype(model, dtype, padded_attention.ON_A_GPU)
    if copied.device.type == "cuda":
        fuse_layers(copied)
    return copied


def document_ids(lengths: np.ndarray, vocab_size: int, seed: int = 0) -> Iterator[np.ndarray]:
    """int32 (length,) per document, special tokens left out."""
    rng = np.random.default_rng(seed)
    for length in lengths.tolist():
        yield rng.choice(rng.integers(FIRST_ID, vocab_size, IDS_PER_DOCUMENT), length).astype(np.int32)


def encodings_of(lengths: np.ndarray, vocab_size: int, *, type_ids: bool, seed: int = 0) -> Encodings:
    """Documents of such lengths, as a tokenizer would give them."""
    ids = np.concatenate([*document_ids(lengths, vocab_size, seed)])
    types = np.zeros(len(ids), np.int8) if type_ids else None
    return Encodings(ids, types, lengths.astype(np.int32), np.zeros(len(lengths), bool))


def batches_of(lengths: np.ndarray, config: Any, batch_tokens: int, seed: int = 0) -> TokenBatches:
    """The same as the job's batches: sorted by length, padded, at most batch_tokens each."""
    type_ids = bool(getattr(config, "type_vocab_size", 0))
    encodings = encodings_of(lengths, config.vocab_size, type_ids=type_ids, seed=seed)
    return make_batches(encodings, batch_tokens=batch_tokens, pad_id=config.pad_token_id, max_width=512)


def mixed_lengths(count: int, longest: int, seed: int = 0) -> np.ndarray:
    """int32 (count,): log-normal around MEDIAN_TOKENS, truncated at `longest`."""
    lengths = np.random.default_rng(seed).lognormal(np.log(min(MEDIAN_TOKENS, longest / 2)), LENGTH_SIGMA, count)
    return lengths.clip(4, longest).astype(np.int32)


def inputs_of(ids: np.ndarray, device: str, lengths: np.ndarray | None = None) -> dict[str, Any]:
    """The model's arguments on the device for ids, int (documents, width); a mask only if `lengths` are given."""
    import torch

    inputs = {"input_ids": torch.from_numpy(np.ascontiguousarray(ids)).to(device).long()}
    if lengths is not None:
        inputs["attention_mask"] = torch.from_numpy((np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)).to(device)
    return inputs


def split_batches(batches: TokenBatches) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """(ids (documents, width), lengths or None if there is no padding) of each batch, for inputs_of."""
    cell = row = 0
    for rows, width in zip(batches.rows.tolist(), batches.widths.tolist(), strict=True):
        lengths = batches.lengths[row : row + rows]
        yield (
            batches.ids[cell : cell + rows * width].reshape(rows, width),
            lengths if lengths.min() < width else None,
        )
        cell, row = cell + rows * width, row + rows


def label_facts(logits: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """How far logits (documents, labels) are from those of a reference, for a row of findings.

    label_agreement: share of documents with the same label; largest_difference: of two logits, and mean_difference, as shares
    of the reference's spread (its standard deviation over documents); commonest_label: its share of the reference's labels.
    """
    labels = reference.argmax(axis=1)
    spread = float(reference.std(axis=0).mean())
    difference = np.abs(logits - reference)
    return {
        "label_agreement": float((logits.argmax(axis=1) == labels).mean()),
        "largest_difference": float(difference.max()) / spread,
        "mean_difference": float(difference.mean()) / spread,
        "commonest_label": float(np.bincount(labels).max() / len(labels)),
    }
