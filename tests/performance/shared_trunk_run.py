"""Measures models that share layers, by hand: python -m tests.performance.shared_trunk_run FOLDER [--dtype DTYPE].

The classify stage's passes over the same sorted batches, one thread: of one model; of two and three with one encoder that share
it; of two of which the upper half of the layers differ; and of two with a pass each. Each round measures all of them, one after
the other; the rates are relative to the one model's of the same round. Seconds are the process's CPU time: on a busy machine
wall-clock time says nothing. The model is the benchmark's BERT of 22M parameters, whose copies get other heads.
"""

import argparse
import copy
import json
import os
import time
from itertools import islice
from typing import Any

import numpy as np
import torch

from pipeline_ops.classifying.classify import classify_isolating_failures
from pipeline_ops.classifying.forward_pass import ForwardPasses
from pipeline_ops.classifying.shared_passes import Shareable, share_trunk
from pipeline_ops.loading.load import load_classifier
from pipeline_ops.models.config import ModelConfig, ModelFacts
from pipeline_ops.models.resolve import resolve_model
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.synthetic.benchmark_corpus import ModelShape, make_model_once, real_passages, shaped_texts
from pipeline_ops.synthetic.reference_loops import sorted_batches
from pipeline_ops.tokenizing.batching import TokenBatches

SHAPE = ModelShape(6, 384, 12, 1536)
CHARACTERS_PER_TOKEN = 4.0
BATCH_TOKENS = 2048


def relative(model: Any, seed: int, lowest: int | None = None) -> Any:
    """A copy with another head, and other layers from `lowest` on."""
    torch.manual_seed(seed)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for name, tensor in other.named_parameters():
            parts = name.split(".")
            above = lowest is not None and parts[1] == "encoder" and int(parts[3]) >= lowest
            if parts[0] == "classifier" or above:
                tensor.add_(torch.randn_like(tensor) * 0.01)
    return other


def shared(facts: ModelFacts, *models: Any) -> list[ForwardPasses]:
    loaded: list[Shareable] = []
    for number, model in enumerate(models):
        one = Shareable(f"model {number}", ForwardPasses(model, pad_left=False), "alike", facts)
        share_trunk(one, loaded)
        loaded.append(one)
    assert len(loaded[0].passes.followers) == len(models) - 1
    return [loaded[0].passes]


def seconds_of(passes: list[ForwardPasses], batches: TokenBatches) -> float:
    began = time.process_time()
    for one in passes:
        classify_isolating_failures(batches, one, num_labels=2 * (1 + len(one.followers)))
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--documents", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    passages = real_passages(2000)
    os.makedirs(options.folder, exist_ok=True)
    folder = make_model_once(SHAPE, passages, options.folder)
    texts = list(islice(shaped_texts(passages, CHARACTERS_PER_TOKEN), options.documents))
    batches = sorted_batches(texts, folder, BATCH_TOKENS)
    model = load_classifier(ModelConfig(path=folder), StorageConfig(), revision=None, dtype=options.dtype, device="cpu")
    facts = resolve_model(ModelConfig(path=folder), StorageConfig()).facts
    ways = {
        "one model": [ForwardPasses(model, pad_left=False)],
        "two that share the encoder": shared(facts, relative(model, 0), relative(model, 1)),
        "three that share the encoder": shared(facts, relative(model, 2), relative(model, 3), relative(model, 4)),
        "two that share half of the layers": shared(facts, relative(model, 5), relative(model, 6, SHAPE.layers // 2)),
        "two with a pass each": [ForwardPasses(relative(model, seed), pad_left=False) for seed in (7, 8)],
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for passes in ways.values():  # warm up
        seconds_of(passes, batches)
    for number in range(options.rounds):
        order = list(ways) if number % 2 == 0 else list(reversed(ways))
        for way in order:
            seconds[way].append(seconds_of(ways[way], batches))
    one = np.array(seconds["one model"])
    for way, found in seconds.items():
        rates = one / np.array(found)
        print(
            json.dumps(
                {
                    "what": way,
                    "documents_per_cpu_second": round(options.documents / float(np.median(found)), 1),
                    "rate_of_one_model": round(float(np.median(rates)), 3),
                    "rounds": [round(float(rate), 3) for rate in rates],
                }
            )
        )


if __name__ == "__main__":
    main()
