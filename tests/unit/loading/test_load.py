"""Classifiers as they are loaded, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

from pipeline_ops.schema.errors import UserError
from tests.models.all_kinds import make_kind
from tests.models.folders import change_json, load


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(("dtype", "expected"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_classifier_is_loaded_for_inference_in_its_dtype_and_its_head_in_float32(
    model: Path, dtype: str, expected: torch.dtype, device: str
) -> None:
    classifier = load(model, dtype=dtype, device=device)
    assert not classifier.training
    assert {parameter.dtype for parameter in classifier.bert.parameters()} == {expected}
    assert {parameter.dtype for parameter in classifier.classifier.parameters()} == {torch.float32}


def test_classifier_on_meta_takes_no_weights(model: Path) -> None:
    assert {parameter.device.type for parameter in load(model, device="meta").parameters()} == {"meta"}


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_classifier_without_a_head_names_its_layers(model_without_head: Path, device: str) -> None:
    with pytest.raises(UserError, match=r"classifier\.bias, classifier\.weight.*allow_new_weights") as caught:
        load(model_without_head, device=device)
    assert "\n" not in str(caught.value)


def test_classifier_attends_by_the_fused_kernel_or_where_there_is_none_by_its_own(model: Path, tmp_path: Path) -> None:
    shape: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    DebertaV2ForSequenceClassification(DebertaV2Config(**shape, vocab_size=50)).save_pretrained(tmp_path)
    assert load(model).config._attn_implementation == "sdpa"
    assert load(tmp_path).config._attn_implementation == "eager"


@pytest.mark.parametrize("kind", ["deberta", "xlnet"])
def test_kind_whose_code_makes_weights_in_float32_computes_in_bfloat16(kind: str, tmp_path: Path) -> None:
    make_kind(tmp_path, kind)
    classifier = load(tmp_path, dtype="bfloat16")
    assert classifier(input_ids=torch.arange(10, 16)[None]).logits.isfinite().all()


def test_classifier_without_a_head_is_loaded_when_allowed_by_name(model_without_head: Path) -> None:
    assert load(model_without_head, allow_new_weights=True).config.num_labels == 2


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_classifier_with_pickled_weights_is_refused_unless_allowed(copy: Path, device: str) -> None:
    torch.save(load(copy).state_dict(), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.path") as caught:
        load(copy, device=device)
    assert "\n" not in str(caught.value)
    assert load(copy, allow_pickled_weights=True).config.num_labels == 2


def test_classifier_without_weights_is_a_users_mistake(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.path"):
        load(copy)


def test_classifier_with_truncated_weights_is_a_users_mistake(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"model\.path"):
        load(copy)


def test_classifier_whose_head_has_another_size_is_a_users_mistake(copy: Path) -> None:
    labels = {str(index): f"label {index}" for index in range(5)}
    change_json(copy / "config.json", id2label=labels, label2id={label: int(index) for index, label in labels.items()})
    with pytest.raises(UserError, match=r"model\.path"):
        load(copy)
