"""A corpus and a classifier for benchmarks, made offline: real texts of realistic lengths, random weights.

Passages of the installed Python packages (package_corpus.py) -> Parquet files with columns `id` and `text`, and a BERT folder
that the job loads like any other. Speed depends on shapes and lengths only, not on what the weights have learned.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_ops.synthetic.package_corpus import collect_passages
from pipeline_ops.training.base_model import save_model, train_wordpiece

MEDIAN_TOKENS = 200
LENGTH_SIGMA = 0.7  # of the logarithm: one document in eleven has over 512 tokens, the mean is 256
CORPUS_FILES = 8  # so that readers which share out whole files have some to share out
LABELS = ("NEGATIVE", "POSITIVE")
INITIALIZER_RANGE = 0.06  # with BERT's 0.02 an untrained model's logits hardly differ from text to text


@dataclass(frozen=True)
class ModelShape:
    """A BERT; with no heads, bag_of_tokens of its embeddings. `max_length` is in tokens, special ones included."""

    layers: int
    hidden: int
    heads: int
    feed_forward: int
    vocabulary: int = 30_522
    max_length: int = 512


def real_passages(count: int) -> list[str]:
    """About `count` passages of the installed packages, in a fixed mixed order."""
    tables = collect_passages(max_training=count // 2, max_held_out=count // 2)
    return [text for table in tables for text in table["text"].to_pylist()]


def shaped_texts(passages: Sequence[str], characters_per_token: float) -> Iterator[str]:
    """Endless documents of log-normal length, cut from the passages one behind the other, again and again.

    Each begins with its number and at another place than the ones before it, so no two are equal, and no cache of anything
    that looks at whole texts or at their beginnings helps.

    Args:
        characters_per_token: of the tokenizer on such texts; the median length is MEDIAN_TOKENS of them.
    """
    generator = np.random.default_rng(0)
    circle = "\n".join(passages)
    number = position = 0
    while True:
        for length in (
            generator.lognormal(np.log(MEDIAN_TOKENS * characters_per_token), LENGTH_SIGMA, 4096).astype(int).tolist()
        ):
            text = f"{number} {circle[position : position + length]}"
            while len(text) < length:  # over the end of the circle, or longer than all of it
                text += "\n" + circle[: length - len(text)]
            yield text
            number += 1
            position = (position + length + 1 + number % 7) % len(circle)


def write_corpus(texts: Iterator[str], count: int, folder: str, row_groups: int, files: int = CORPUS_FILES) -> int:
    """Writes `count` of the texts as Parquet files into `folder`, in bounded memory; returns the bytes of text (UTF-8).

    Args:
        row_groups: equal ones, of all files together: the job reads each as a unit, when its unit_bytes are a little less.
        files: at the most.
    """
    os.makedirs(folder)
    schema = pa.schema([("id", pa.string()), ("text", pa.string())])
    size = row = 0
    for number in range(files):
        groups = range(row_groups * number // files, row_groups * (number + 1) // files)
        if not groups:
            continue
        with pq.ParquetWriter(os.path.join(folder, f"part-{number:05}.parquet"), schema, compression="zstd") as writer:
            for group in groups:
                held = list(islice(texts, count * (group + 1) // row_groups - row))
                writer.write_table(pa.table([[f"{row + place:09}" for place in range(len(held))], held], schema=schema))
                row += len(held)
                size += sum(len(text.encode()) for text in held)
    return size


def make_model_once(shape: ModelShape, passages: Sequence[str], folder: str) -> str:
    """The folder, inside `folder`, of a classifier of that shape with seeded weights; made when it is not there yet."""
    versions = {name: version(name) for name in ("torch", "transformers", "tokenizers")}
    key = hashlib.sha256(json.dumps([asdict(shape), versions, INITIALIZER_RANGE]).encode()).hexdigest()[:16]
    target = os.path.join(folder, f"model-{key}")
    if not os.path.isdir(target):
        beside = f"{target}.{uuid.uuid4().hex}"
        try:
            _make_model(shape, passages, beside)
            os.rename(beside, target)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return target


def _make_model(shape: ModelShape, passages: Sequence[str], folder: str) -> None:
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = train_wordpiece(passages, shape.vocabulary, lowercase=True)
    tokenizer.model_max_length = shape.max_length
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=shape.vocabulary,  # the embeddings' size, even where the passages do not give as many pieces
        num_hidden_layers=shape.layers,
        hidden_size=shape.hidden,
        num_attention_heads=shape.heads or 1,
        intermediate_size=shape.feed_forward,
        max_position_embeddings=shape.max_length,
        initializer_range=INITIALIZER_RANGE,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )
    if shape.heads:
        model = BertForSequenceClassification(config).eval()
    else:
        from pipeline_ops.synthetic.bag_of_tokens import BagOfTokensForSequenceClassification

        BagOfTokensForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
        model = BagOfTokensForSequenceClassification(config).eval()
    _centre(model, tokenizer, passages[:64])
    save_model(model, tokenizer, folder)


def _centre(model: Any, tokenizer: Any, texts: Sequence[str]) -> None:
    """Shifts and scales the head so that each logit has mean 0 and deviation 1 over `texts`: every label then occurs."""
    import torch

    with torch.inference_mode():
        inputs = tokenizer(list(texts), truncation=True, padding=True, return_tensors="pt")
        logits = model(**inputs).logits
        scale = 1 / logits.std(dim=0)
        model.classifier.weight.mul_(scale[:, None])
        model.classifier.bias.copy_((model.classifier.bias - logits.mean(dim=0)) * scale)
