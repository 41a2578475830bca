"""Folders of PEFT adapters: which model they adapt, their labels and identity, and which are refused. Without their weights."""

import json
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipeline_ops.models.config import ModelConfig
from pipeline_ops.models.model_card import card_of
from pipeline_ops.models.resolve import resolve_model
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.config import StorageConfig
from tests.models.folders import STORAGE, change_json, facts_of, upload

GENERIC = ("LABEL_0", "LABEL_1", "LABEL_2")
PREFIX = "base_model.model."


def make_folder(folder: Path, base: object, labels: int | None = 3, seed: int = 0, **settings: Any) -> Path:
    """A LoRA folder as peft writes it, with few tensors."""
    folder.mkdir()
    tensors = {f"{PREFIX}bert.encoder.layer.0.attention.self.query.lora_A.weight": np.full((4, 32), seed, np.float32)}
    if labels is not None:
        tensors |= {f"{PREFIX}classifier.{kind}": np.zeros((labels, *size), np.float32) for kind, size in HEAD.items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    given = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "base_model_name_or_path": str(base),
        "revision": None,
        "lora_alpha": 8,
    }
    (folder / "adapter_config.json").write_text(json.dumps(given | settings))
    return folder


HEAD = {"weight": (32,), "bias": ()}


def test_adapter_has_the_labels_of_its_head_and_the_tokenizer_of_its_model(model: Path, tmp_path: Path) -> None:
    facts, of_model = facts_of(make_folder(tmp_path / "three", model)), facts_of(model)
    assert (facts.head.labels, facts.tokenizer_hash, facts.max_length) == (GENERIC, of_model.tokenizer_hash, 128)
    assert facts.adapted is not None
    assert (facts.adapted.base, facts.adapted.base_weights) == (str(model), of_model.weights)
    assert facts_of(tmp_path / "three", id2label={0: "law", 1: "art", 2: "maths"}).head.labels == ("law", "art", "maths")
    assert facts_of(make_folder(tmp_path / "two", model, 2)).head.labels == ("NEGATIVE", "POSITIVE")
    assert facts_of(make_folder(tmp_path / "none", model, None)).head.labels == ("NEGATIVE", "POSITIVE"), "the model's own head"
    assert card_of(ModelConfig(path=str(tmp_path / "two"), base=str(model)), STORAGE)["model_type"] == "bert"


def test_names_that_a_new_head_has_from_its_model_are_said(model: Path, tmp_path: Path) -> None:
    def remarks(adapter: Path, **settings: Any) -> tuple[str, ...]:
        return resolve_model(ModelConfig(path=str(adapter), **settings), STORAGE).remarks

    two, three = (make_folder(tmp_path / str(labels), model, labels) for labels in (2, 3))
    (said,) = remarks(two)
    assert "they get those of the model that it adapts ('NEGATIVE', 'POSITIVE')" in said
    assert remarks(two, id2label={0: "spam", 1: "ham"}) == remarks(three) == ()


def test_identity_follows_the_weights_and_settings_of_the_adapter(model: Path, tmp_path: Path) -> None:
    first = facts_of(make_folder(tmp_path / "a", model)).weights
    assert facts_of(make_folder(tmp_path / "same", model)).weights == first
    assert facts_of(make_folder(tmp_path / "other", model, seed=1)).weights != first
    change_json(tmp_path / "a" / "adapter_config.json", lora_alpha=16)
    assert facts_of(tmp_path / "a").weights != first


def test_model_of_an_adapter_is_found_as_peft_finds_it_or_beside_the_adapter_or_by_the_job(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = make_folder(tmp_path / "adapter", "model")
    monkeypatch.chdir(tmp_path)
    assert facts_of("adapter").adapted == facts_of(adapter).adapted == facts_of(adapter, base=str(copy)).adapted
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(
        UserError, match=r"adapter of the model 'model', which cannot be used: .*; set model\.base to its folder"
    ):
        facts_of(adapter)
    shutil.copytree(copy, adapter / "model")
    found = facts_of(adapter).adapted
    assert found is not None
    assert found.base == str(adapter / "model")


def test_tokenizer_of_the_adapter_comes_before_its_models(copy: Path, tmp_path: Path) -> None:
    adapter = make_folder(tmp_path / "adapter", copy)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(copy / name, adapter)
    change_json(adapter / "tokenizer_config.json", model_max_length=50)
    assert facts_of(adapter).max_length == 50


def test_adapter_and_model_on_an_object_store_are_those_of_local_folders(
    model: Path, tmp_path: Path, caching: StorageConfig
) -> None:
    base = upload(model, f"memory://{uuid.uuid4().hex}/base")
    adapter = make_folder(tmp_path / "adapter", base)
    remote, local = facts_of(upload(adapter, f"{base}-adapter"), caching), facts_of(adapter, base=str(model))
    assert (remote.weights, remote.head, remote.tokenizer_hash) == (local.weights, local.head, local.tokenizer_hash)
    assert remote.adapted is not None
    assert remote.adapted.base == base


def test_adapter_in_the_cache_of_the_hub_has_its_commit_and_its_models(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = {"some--adapter": "a" * 40, "some--model": "b" * 40}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path))
    for name, commit in commits.items():
        cached = tmp_path / f"models--{name}"
        (cached / "refs").mkdir(parents=True)
        (cached / "refs" / "main").write_text(commit)
        (cached / "snapshots").mkdir()
        if name == "some--model":
            shutil.copytree(model, cached / "snapshots" / commit)
        else:
            make_folder(cached / "snapshots" / commit, "some/model")
    facts = facts_of("some/adapter")
    assert facts.adapted is not None
    assert (facts.revision, facts.head.labels) == (commits["some--adapter"], GENERIC)
    assert (facts.adapted.base, facts.adapted.base_weights) == ("some/model", f"hub:{commits['some--model']}")


def _with(**settings: Any) -> Callable[[Path, Path], dict[str, Any]]:
    def change(adapter: Path, base: Path) -> dict[str, Any]:
        change_json(adapter / "adapter_config.json", **settings)
        return {}

    return change


def _without_weights(adapter: Path, base: Path) -> dict[str, Any]:
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    return {"allow_pickled_weights": True}


def _damaged(adapter: Path, base: Path) -> dict[str, Any]:
    (adapter / "adapter_model.safetensors").write_bytes(b"version https://git-lfs")
    return {}


def _beside_a_model(adapter: Path, base: Path) -> dict[str, Any]:
    shutil.copytree(base, adapter, dirs_exist_ok=True)
    return {}


def _of_an_adapter(adapter: Path, base: Path) -> dict[str, Any]:
    shutil.copy(adapter / "adapter_config.json", base)
    return {}


def _quantized(adapter: Path, base: Path) -> dict[str, Any]:
    change_json(base / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    return {}


def _not_json(adapter: Path, base: Path) -> dict[str, Any]:
    (adapter / "adapter_config.json").write_text("[]")
    return {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_with(peft_type="PREFIX_TUNING"), r"is a PREFIX_TUNING adapter.* cannot be merged into its model; of peft's methods"),
        (_with(alora_invocation_tokens=[5]), r"is a LORA adapter with settings that cannot be merged"),
        (_with(task_type="CAUSAL_LM"), r"is an adapter for CAUSAL_LM; give one for classification"),
        (_with(base_model_name_or_path=None), r"model\.base: the adapter .* does not name its model .*; set model\.base"),
        (
            _with(base_model_name_or_path="/home/alice/bert"),
            r"'/home/alice/bert', which cannot be used: no such folder; set model",
        ),
        (
            _with(base_model_name_or_path="nobody/nothing"),
            r"'nobody/nothing', which cannot be used: .*; set model\.base to its",
        ),
        (_without_weights, r"has no adapter_model\.safetensors; save it with peft's save_pretrained"),
        (_damaged, r"adapter_model\.safetensors is a Git LFS pointer; copy or download it again"),
        (_beside_a_model, r"holds a whole model and an adapter \(adapter_config\.json\); move one of the two away"),
        (_of_an_adapter, r"cannot be used: it is an adapter, too; merge it"),
        (_quantized, r"is quantized by bitsandbytes"),
        (_not_json, r"adapter_config\.json in .* is not one that peft writes"),
    ],
)
def test_adapter_that_cannot_be_merged_is_refused_before_its_weights_are_loaded(
    copy: Path, tmp_path: Path, change: Callable[[Path, Path], dict[str, Any]], message: str
) -> None:
    adapter = make_folder(tmp_path / "adapter", copy)
    settings = change(adapter, copy)
    with pytest.raises(UserError, match=message) as caught:
        facts_of(adapter, **settings)
    assert "\n" not in str(caught.value)


def test_adapter_without_a_trained_head_is_refused(model_without_head: Path, tmp_path: Path) -> None:
    adapter = make_folder(tmp_path / "adapter", model_without_head, None, task_type=None)
    with pytest.raises(UserError, match=r"neither the adapter .* nor its model .* has a trained classification head"):
        facts_of(adapter)
    assert facts_of(adapter, allow_new_weights=True).head.labels == GENERIC[:2]


def test_adapter_without_peft_is_refused_with_the_command(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline_ops.models.adapters.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"is a PEFT adapter, .*: pip install 'label-corpus\[peft\]'"):
        facts_of(make_folder(tmp_path / "adapter", model))


def test_base_of_a_whole_model_is_a_users_mistake(model: Path) -> None:
    with pytest.raises(UserError, match=r"model\.base: .* is for adapters, and .* is none"):
        facts_of(model, base="some/model")
