"""Adapters of PEFT: merged when they are loaded, with the labels of the pipeline over the merged and the unmerged model."""

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, pipeline

from pipeline_ops.models.adapters import MERGED_TYPES
from pipeline_ops.schema.errors import UserError
from tests.models.adapters import make_adapter, unmerged
from tests.models.architectures import make_classifier
from tests.models.folders import change_json, facts_of, load
from tests.support.corpora import real_documents, write_jsonl
from tests.support.invariant import check_exactly_once
from tests.support.running import keys, make_job
from tests.support.serial_chain import run_serially

pytestmark = pytest.mark.slow

NUM_DOCUMENTS = 40
TOLERANCE = 1e-5
ARCHITECTURES = ("BERT", "RoBERTa", "DistilBERT", "ModernBERT", "Llama, padded left", "GPT-2", "BART")
# layers that every architecture above has under one of these names
TARGETS = ["query", "value", "q_lin", "v_lin", "Wqkv", "q_proj", "v_proj", "c_attn"]
METHODS: dict[str, Callable[..., peft.PeftConfig]] = {
    "LORA": peft.LoraConfig,
    "LORA with DoRA": lambda **kwargs: peft.LoraConfig(use_dora=True, **kwargs),
    "LORA with biases of all layers": lambda **kwargs: peft.LoraConfig(bias="all", **kwargs),
    "LORA with rank-stabilized scaling and biases": lambda **kwargs: peft.LoraConfig(
        use_rslora=True, bias="lora_only", **kwargs
    ),
    "ADALORA": lambda **kwargs: peft.AdaLoraConfig(total_step=10, **kwargs),
    "BOFT": peft.BOFTConfig,
    "DELORA": peft.DeloraConfig,
    "FOURIERFT": lambda **kwargs: peft.FourierFTConfig(n_frequency=50, **kwargs),
    "HIRA": peft.HiraConfig,
    "HRA": peft.HRAConfig,
    "IA3": lambda **kwargs: peft.IA3Config(feedforward_modules=[], **kwargs),
    "LN_TUNING": lambda **kwargs: peft.LNTuningConfig(**{**kwargs, "target_modules": ["LayerNorm"]}),
    "LOHA": peft.LoHaConfig,
    "LOKR": peft.LoKrConfig,
    "OFT": peft.OFTConfig,
    "VERA": peft.VeraConfig,
}


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [text[:400] for text in real_documents(NUM_DOCUMENTS + 20) if text][:NUM_DOCUMENTS]


@pytest.fixture(scope="module")
def encoder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A model without a head and its tokenizer, as adapters mostly have it for a base."""

    @cache
    def build(architecture: str) -> Path:
        folder = tmp_path_factory.mktemp("base") / "model"
        classifier = make_classifier(folder, architecture, ("A", "B"))
        tokenizer = AutoTokenizer.from_pretrained(classifier)
        AutoModel.from_pretrained(classifier).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return build


def said_by_pipeline(model: Any, tokenizer: Path, texts: list[str]) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    classify: Any = pipeline(
        "text-classification", model=model, tokenizer=AutoTokenizer.from_pretrained(tokenizer), device="cpu"
    )
    return [classify(text, truncation=True)[0] for text in texts]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_labels_are_the_pipelines_over_the_merged_and_the_unmerged_model(
    encoder_of: Callable[[str], Path], tmp_path: Path, texts: list[str], architecture: str
) -> None:
    base = encoder_of(architecture)
    # of a head peft saves by itself what is named `classifier` or `score`
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=TARGETS, modules_to_save=["head"])
    adapter = make_adapter(tmp_path / "adapter", base, config, texts=texts)
    source = write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": text} for text in texts])
    run_serially(make_job(source, adapter, tmp_path / "out", "model.dtype=float32"), quiet=True)
    rows, rejects = check_exactly_once(tmp_path / "out", keys(source, NUM_DOCUMENTS))
    rows = rows.sort_by("source_row")
    assert rejects == []
    assert len(set(rows["label"].to_pylist())) == 3, "each label occurs"
    beside = unmerged(adapter, base)
    beside.config.pad_token_id = beside.base_model.model.config.pad_token_id
    merged = unmerged(adapter, base).merge_and_unload()
    for model in (merged, beside):
        expected = said_by_pipeline(model, base, texts)
        assert rows["label"].to_pylist() == [answer["label"] for answer in expected]
        np.testing.assert_allclose(rows["score"], [answer["score"] for answer in expected], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("method", METHODS)
def test_each_method_that_is_merged_gives_the_logits_of_the_adapter(
    encoder_of: Callable[[str], Path], tmp_path: Path, texts: list[str], method: str
) -> None:
    base = encoder_of("BERT")
    config = METHODS[method](task_type="SEQ_CLS", target_modules=["query", "value"])
    adapter = make_adapter(tmp_path / "adapter", base, config, texts=texts)
    tokenizer, ours, theirs = AutoTokenizer.from_pretrained(base), load(adapter), unmerged(adapter, base)
    differs = 0.0
    with torch.inference_mode():
        for text in texts[:10]:
            inputs = tokenizer(text, truncation=True, return_tensors="pt")
            logits = theirs(**inputs).logits
            np.testing.assert_allclose(ours(**inputs).logits, logits, rtol=0, atol=TOLERANCE)
            with theirs.disable_adapter():
                differs = max(differs, float((theirs(**inputs).logits - logits).abs().max()))
    assert differs > 100 * TOLERANCE, "the adapter has an effect"


def test_each_method_that_is_merged_is_compared() -> None:
    assert {method.split()[0] for method in METHODS} == {*MERGED_TYPES}


def test_added_tokens_come_with_the_adapter(encoder_of: Callable[[str], Path], tmp_path: Path, texts: list[str]) -> None:
    base = Path(shutil.copytree(encoder_of("BERT"), tmp_path / "base"))
    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    larger = tmp_path / "larger"
    tokenizer.add_tokens(["<url>", "<user>"])
    model = AutoModel.from_pretrained(base)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(larger)
    tokenizer.save_pretrained(larger)
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"], modules_to_save=["word_embeddings"])
    adapter = make_adapter(tmp_path / "adapter", larger, config, texts=texts)
    tokenizer.save_pretrained(adapter)
    change_json(adapter / "adapter_config.json", base_model_name_or_path=str(base))
    inputs = tokenizer("see <url> of <user>", return_tensors="pt")
    with torch.inference_mode():
        expected = unmerged(adapter, larger)(**inputs).logits
        np.testing.assert_allclose(load(adapter)(**inputs).logits, expected, rtol=0, atol=TOLERANCE)
    assert facts_of(adapter).tokenizer_hash == facts_of(adapter, base=str(larger)).tokenizer_hash


def test_weights_that_neither_has_are_refused(encoder_of: Callable[[str], Path], tmp_path: Path, texts: list[str]) -> None:
    """Only some are saved with a head: DeBERTa's pooler, which its base lacks, is not."""
    base = encoder_of("DeBERTa-v3")
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query_proj"])
    adapter = make_adapter(tmp_path / "adapter", base, config, texts=texts)
    with pytest.raises(UserError, match=r"neither the adapter .* nor its model .* has trained weights for pooler\.dense\.bias"):
        load(adapter)


def test_adapter_of_another_model_is_refused(encoder_of: Callable[[str], Path], tmp_path: Path, texts: list[str]) -> None:
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"])
    adapter = make_adapter(tmp_path / "adapter", encoder_of("BERT"), config, texts=texts)
    for architecture in ("RoBERTa", "DistilBERT"):
        with pytest.raises(UserError, match=r"model\.path") as caught:
            load(adapter, base=str(encoder_of(architecture)))
        assert "\n" not in str(caught.value)


def test_output_is_of_one_adapter_and_one_model(encoder_of: Callable[[str], Path], tmp_path: Path, texts: list[str]) -> None:
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value"])
    base = Path(shutil.copytree(encoder_of("BERT"), tmp_path / "base"))
    adapter = make_adapter(tmp_path / "adapter", base, config, texts=texts)
    source = write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": text} for text in texts])
    job = make_job(source, adapter, tmp_path / "out")
    assert run_serially(job, quiet=True).complete
    change_json(adapter / "adapter_config.json", lora_alpha=32)
    with pytest.raises(UserError, match=r"model\.weights \(was"):
        run_serially(job, quiet=True)
    change_json(adapter / "adapter_config.json", lora_alpha=8)
    assert run_serially(job, quiet=True).complete
    weights = bytearray((base / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (base / "model.safetensors").write_bytes(weights)
    with pytest.raises(UserError, match=r"model\.base_weights \(was"):
        run_serially(job, quiet=True)
