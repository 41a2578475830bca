"""Whether the classifier's passes are right on this GPU: logits against float32 on the CPU, copies, failures, memory.

Each check is a row with `ok`. Those of what a CPU does not have are left out in a rehearsal on one.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jobs.gpu_benchmark.eager import attention_switch_kept
from jobs.gpu_benchmark.phases import Bench
from pipeline_ops.classifying.classify import classify, classify_isolating_failures
from pipeline_ops.classifying.forward_pass import ForwardPasses
from pipeline_ops.classifying.pinned_copy import PinnedCopier
from pipeline_ops.loading import memory
from pipeline_ops.loading.device import probe_models
from pipeline_ops.loading.device_errors import is_device_lost
from pipeline_ops.loading.fused_layers import fuse_layers
from pipeline_ops.loading.padded_attention import ON_A_GPU
from pipeline_ops.models.config import JobModel, ModelConfig, ModelFacts
from pipeline_ops.models.heads import Head
from pipeline_ops.schema.errors import one_line
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.synthetic import random_models
from pipeline_ops.tokenizing.batching import TokenBatches, without_padding

DTYPES = ("float32", "bfloat16", "float16")
# largest difference of a logit as a share of the logits' spread; on a CPU with two layers it is a third of that
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.2, "float16": 0.025}
DOCUMENTS, LONGEST = 240, 96
BATCH_TOKENS = 4096
COPIES = 400
SMALL_LENGTH = 104
LEAST_USE, MOST_USE = 0.6, 1.15  # of the memory that a pass was expected to allocate
MEMORY_TOKENS = 32_768
LOST_DEVICE = """
import json, os, torch
from pipeline_ops.loading.device_errors import is_device_lost, is_out_of_memory
def caught(action):
    try:
        action()
        torch.cuda.synchronize()
    except Exception as error:
        return error
device = torch.device("cuda")
memory = caught(lambda: torch.empty(2**50, device=device))
ids, table = torch.full((4,), 10**6, device=device), torch.ones(8, 8, device=device)
lost = caught(lambda: torch.nn.functional.embedding(ids, table))
again = caught(lambda: torch.ones(8, device=device).sum())
print(json.dumps({
    "memory": memory is not None and is_out_of_memory(memory) and not is_device_lost(memory),
    "lost": lost is not None and is_device_lost(lost) and not is_out_of_memory(lost),
    "lost_again": again is not None and is_device_lost(again),
    "error": f"{type(lost).__name__}: {lost}"[:200],
}), flush=True)
os._exit(0)
"""


def measure(bench: Bench) -> None:
    """All checks; the process that loses its device begins first, and is waited for at the end."""
    with attention_switch_kept():
        _checks(bench)


def _checks(bench: Bench) -> None:
    lost = None
    if bench.on_gpu:
        lost = subprocess.Popen([sys.executable, "-c", LOST_DEVICE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        originals = {
            name: random_models.make_classifier(config, "cpu", LONGEST // 2)
            for name, config in tiny_architectures(2 if bench.tiny else 3).items()
        }
        _logits_of(bench, originals, DTYPES)
        checks = {
            "copies": _copies,
            "a bad document": _bad_document,
            "out of memory": _out_of_memory,
            "the probe of a model's memory": _probe,
            "memory of a pass": _pass_memory,
        }
        for check, function in checks.items():
            if bench.on_gpu or function is _bad_document:
                _guarded(bench, check, lambda check=check, function=function: function(bench, check))
            else:
                bench.row({"check": check, "left_out": "needs a GPU"})
        if lost is None:
            bench.row({"check": "a lost device", "left_out": "needs a GPU"})
        else:
            _guarded(bench, "a lost device", lambda: _lost_device(bench, lost))
            _logits_of(bench, originals, ("bfloat16",), fused=True)  # at the end, as kernels are compiled
    finally:
        if lost is not None and lost.poll() is None:
            lost.kill()


def tiny_architectures(layers: int) -> dict[str, Any]:
    """Configurations of eight kinds of classifiers, tiny but for that as people label with them."""
    from transformers import (
        AlbertConfig,
        BertConfig,
        DebertaV2Config,
        DistilBertConfig,
        ElectraConfig,
        ModernBertConfig,
        RobertaConfig,
        XLMRobertaConfig,
    )

    labels = {"num_labels": random_models.NUM_LABELS, "vocab_size": 1000}
    shape: dict[str, Any] = {
        **labels,
        **{"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": layers, "num_attention_heads": 2},
        "initializer_range": 0.1,
    }
    distilled: dict[str, Any] = {
        **labels,
        "dim": 64,
        "hidden_dim": 128,
        "n_layers": layers,
        "n_heads": 2,
        "initializer_range": 0.1,
    }
    of_version_3: dict[str, Any] = {"position_buckets": 16, "norm_rel_ebd": "layer_norm", "share_att_key": True}
    windows: dict[str, Any] = {"global_attn_every_n_layers": 2, "local_attention": 16}
    return {
        "BERT": BertConfig(**shape),
        "RoBERTa": RobertaConfig(**shape, max_position_embeddings=LONGEST + 2, pad_token_id=1),
        "DistilBERT": DistilBertConfig(**distilled),
        "ELECTRA": ElectraConfig(**shape, embedding_size=32),
        "ALBERT": AlbertConfig(**shape, embedding_size=32),
        "XLM-RoBERTa": XLMRobertaConfig(**shape, max_position_embeddings=LONGEST + 2, pad_token_id=1, type_vocab_size=1),
        "ModernBERT": ModernBertConfig(
            **shape, **windows, pad_token_id=1, bos_token_id=None, eos_token_id=None, cls_token_id=6, sep_token_id=7
        ),
        "DeBERTa-v3": DebertaV2Config(
            **shape,
            **of_version_3,
            relative_attention=True,
            pos_att_type=["p2c", "c2p"],
            position_biased_input=False,
            type_vocab_size=0,
        ),
    }


def _logits_of(bench: Bench, originals: dict[str, Any], dtypes: Sequence[str], fused: bool = False) -> None:
    for name, original in originals.items():
        for dtype in dtypes:
            check = f"logits of {name} in {dtype}{', fused' if fused else ''}"
            _guarded(
                bench,
                check,
                lambda check=check, original=original, dtype=dtype: _compare_logits(bench, check, original, dtype, fused),
            )


def _compare_logits(bench: Bench, check: str, original: Any, dtype: str, fused: bool) -> None:
    """With padding and without, in large batches and in small ones, which take the copier's turns often."""
    config = original.config
    lengths = random_models.mixed_lengths(12 if bench.tiny else DOCUMENTS, LONGEST)
    padded = random_models.batches_of(lengths, config, BATCH_TOKENS)
    expected = _logits(original, padded)
    model = random_models.in_dtype(original, dtype, ON_A_GPU).to(bench.device)
    if fused:
        fuse_layers(model)
    arrangements = {
        "padded": padded,
        "unpadded": without_padding(padded, pad_left=False),
        "small_batches": random_models.batches_of(lengths, config, LONGEST),
    }
    found = {name: random_models.label_facts(_logits(model, batches), expected) for name, batches in arrangements.items()}
    largest = {name: facts["largest_difference"] for name, facts in found.items()}
    bench.row(
        {
            "check": check,
            "ok": max(largest.values()) <= TOLERANCE[dtype],
            "largest_difference": max(largest.values()),
            "tolerance": TOLERANCE[dtype],
            **largest,
            "label_agreement": min(facts["label_agreement"] for facts in found.values()),
            "commonest_label": found["padded"]["commonest_label"],
        }
    )


def _logits(model: Any, batches: TokenBatches) -> np.ndarray:
    return classify(batches, model, num_labels=random_models.NUM_LABELS, pad_left=False)


def _copies(bench: Bench, check: str) -> None:
    """Arrays of many sizes arrive unharmed, their buffers taken in turn while the GPU computes."""
    import torch

    device = torch.device(bench.device)
    copier, rng = PinnedCopier(device), np.random.default_rng(0)
    busy = torch.randn(4096, 4096, device=device)
    sent = [rng.integers(0, 2**31 - 1, int(rng.integers(1, 400_000))).astype(np.int32) for _ in range(COPIES)]
    begin = time.monotonic()
    arrived = []
    for array in sent:
        busy = torch.tanh(busy @ busy)
        arrived.append(copier([array[:1], array[1:]]).clone())
    torch.cuda.synchronize()
    seconds = time.monotonic() - begin
    wrong = sum(not np.array_equal(there.cpu().numpy(), array) for array, there in zip(sent, arrived, strict=True))
    bench.row({"check": check, "ok": wrong == 0, "copies": COPIES, "wrong": wrong, "seconds": seconds})


def _bad_document(bench: Bench, check: str) -> None:
    """Of two ids without an embedding, both documents fail, and no other's logits change."""
    config = tiny_architectures(2)["BERT"]
    model = random_models.make_classifier(config, bench.device, LONGEST // 2)
    batches = random_models.batches_of(random_models.mixed_lengths(DOCUMENTS, LONGEST), config, BATCH_TOKENS)
    expected = _logits(model, batches)
    ids = batches.ids.copy()
    ids[[0, len(ids) - batches.widths[-1]]] = 10**6  # the first tokens of the first and of the last document
    bad = sorted(int(row) for row in batches.order[[0, -1]])
    harmed = TokenBatches(ids, batches.type_ids, batches.lengths, batches.order, batches.rows, batches.widths)
    passes = ForwardPasses(model, pad_left=False)
    logits, failed = classify_isolating_failures(harmed, passes, num_labels=random_models.NUM_LABELS)
    good = np.setdiff1d(np.arange(len(logits)), bad)
    difference = float(np.abs(logits[good] - expected[good]).max())
    bench.row({"check": check, "ok": sorted(failed) == bad and difference < 1e-4, "largest_difference": difference})


def _out_of_memory(bench: Bench, check: str) -> None:
    """A pass that gets a third of the memory that it needs is halved until it fits; logits stay the same."""
    import torch

    config = random_models.small_bert(tiny=False)
    model = random_models.make_classifier(config, bench.device, SMALL_LENGTH)
    tokens = 2**17
    batches = random_models.batches_of(np.full(tokens // SMALL_LENGTH, SMALL_LENGTH), config, tokens)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    used = torch.cuda.memory_reserved()
    expected = _logits(model, batches)
    needed = torch.cuda.max_memory_reserved() - used
    torch.cuda.empty_cache()
    used = torch.cuda.memory_reserved()
    passes = ForwardPasses(model, pad_left=False)
    total = torch.cuda.get_device_properties(0).total_memory
    try:
        torch.cuda.set_per_process_memory_fraction((used + needed / 3) / total)
        logits, failed = classify_isolating_failures(batches, passes, num_labels=random_models.NUM_LABELS)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    largest = random_models.label_facts(logits, expected)["largest_difference"]
    bench.row(
        {
            "check": check,
            "ok": not failed and passes.max_tokens < tokens and largest <= TOLERANCE["float32"],
            "largest_difference": largest,
            "tolerance": TOLERANCE["float32"],
            "tokens": tokens,
            "tokens_after": passes.max_tokens,
            "needed_gib": needed / 2**30,
        }
    )


def _probe(bench: Bench, check: str) -> None:
    """What a run's probe resolves on this GPU for a 22M model in a folder."""
    import torch

    config = random_models.small_bert(tiny=False)
    with tempfile.TemporaryDirectory() as folder:
        random_models.make_classifier(config, bench.device, SMALL_LENGTH).save_pretrained(folder)
        model = job_model(folder, dtype="")
        begin = time.monotonic()
        found = probe_models([model], StorageConfig(), 1.0)
        seconds = time.monotonic() - begin
        shared = probe_models([model, model], StorageConfig(), 0.25)
    native = "bfloat16" if torch.cuda.get_device_capability()[0] >= 8 else "float16"
    sane = memory.MIN_BATCH_TOKENS <= shared["batch_tokens"] <= found["batch_tokens"] <= memory.MAX_BATCH_TOKENS
    bench.row(
        {
            "check": check,
            "ok": sane and found["dtypes"] == [native] and found["device"] == torch.cuda.get_device_name(),
            "dtype": found["dtypes"][0],
            "batch_tokens": found["batch_tokens"],
            "batch_tokens_of_a_quarter_for_two": shared["batch_tokens"],
            "seconds": seconds,
        }
    )


def job_model(folder: str, dtype: str) -> JobModel:
    """A job's model whose files are in a folder, without a tokenizer; its documents have at most 512 tokens."""
    labels = tuple(f"LABEL_{number}" for number in range(random_models.NUM_LABELS))
    facts = ModelFacts(
        path=folder,
        revision=None,
        weights="",
        tokenizer_hash="",
        max_length=512,
        head=Head(labels, "softmax"),
        pad_id=0,
        pad_type_id=0,
        pad_left=False,
        has_type_ids=True,
        model_type="bert",
    )
    return JobModel("", ModelConfig(path=folder), facts, "", OutputConfig(path="out"), dtype=dtype)


def _pass_memory(bench: Bench, check: str) -> None:
    """The most that a pass allocates, per token, against what the tokens per pass are chosen by."""
    import torch
    from transformers import AutoModelForSequenceClassification

    configs = {
        "BERT-base": (random_models.bert_base(tiny=False), 512),
        "22M": (random_models.small_bert(tiny=False), SMALL_LENGTH),
        "DeBERTa-v3-base": (random_models.deberta_base(tiny=False), 512),
    }
    for name, (config, length) in configs.items():
        with torch.device("meta"):
            traced = AutoModelForSequenceClassification.from_config(config, dtype=torch.bfloat16).eval()
        expected = memory.bytes_per_token(traced, length)
        with torch.device(bench.device):
            model = AutoModelForSequenceClassification.from_config(config, dtype=torch.bfloat16).eval()
        rows = MEMORY_TOKENS // length
        ids = np.stack([*random_models.document_ids(np.full(rows, length), config.vocab_size)])
        inputs = random_models.inputs_of(ids, bench.device)
        if not config.type_vocab_size:  # looks at the ids if it gets no mask
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        with torch.inference_mode():
            model(**{key: value[:1] for key, value in inputs.items()})  # what is made once
            torch.cuda.synchronize()
            used = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            model(**inputs)
            torch.cuda.synchronize()
        allocated = (torch.cuda.max_memory_allocated() - used) / (rows * length)
        share = None if expected is None else allocated / expected
        bench.row(
            {
                "check": f"{check} of {name}",
                "ok": share is not None and LEAST_USE <= share <= MOST_USE,
                "bytes_per_token": allocated,
                "expected_bytes_per_token": expected,
                "share": share,
            }
        )
        del model, inputs


def _lost_device(bench: Bench, process: subprocess.Popen[str]) -> None:
    output, errors = process.communicate(timeout=40)
    if not output.strip():
        bench.row({"check": "a lost device", "ok": False, "error": errors.strip()[-300:]})
        return
    found = json.loads(output.splitlines()[-1])
    bench.row({"check": "a lost device", "ok": found["memory"] and found["lost"] and found["lost_again"], **found})


def _guarded(bench: Bench, check: str, function: Callable[[], None]) -> None:
    """Runs a check; an exception is its result, and the others go on. One that has lost the device ends the phase."""
    if not bench.has_time(2):
        bench.row({"check": check, "left_out": "no time"})
        return
    try:
        function()
    except Exception as error:
        if is_device_lost(error):
            raise
        bench.row({"check": check, "ok": False, "error": f"{type(error).__name__}: {one_line(error)[:300]}"})
