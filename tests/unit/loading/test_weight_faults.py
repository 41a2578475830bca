"""Weights that do not fit their configuration, or are no numbers, are refused when they are loaded; wrapped ones are read."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline_ops.schema.errors import UserError
from tests.models.folders import change_json, load
from tests.models.strange_folders import STRANGE
from tests.models.strange_weights import change_tensors
from tests.unit.model_files.test_strange_folders import WRAPPED

REFUSED = {
    "three labels, head of two": r"head of 2 outputs \(classifier\.weight\).* has 3 labels.*give it 2 names",
    "weights with NaN": r"NaN or infinite in float32 \(classifier\.weight\).*training has not diverged",
    "weights with infinity": r"NaN or infinite in float32 \(bert\.encoder\.layer\.0\.output\.dense\.\w+ and 1 more\)",
    "layers missing": r"lacks weights \(bert\.encoder\.layer\.1\..* and 15 more\).*not of one model; copy the config\.json",
    "layers too many": r"weights of more layers than its config\.json \(bert\.encoder\.layer\.1\..*copy the config\.json",
    "width of another model": r"in the shape 32, and its config\.json asks for 64: .*copy the config\.json",
    "head of another name": r"no trained classification head \(classifier\.bias, classifier\.weight.*label-corpus train",
}


def logits_of(folder: Path, **settings: Any) -> torch.Tensor:
    with torch.inference_mode():
        return load(folder, **settings)(input_ids=torch.tensor([[2, 5, 9, 40, 3]])).logits


@pytest.mark.parametrize("name", REFUSED)
def test_weights_are_refused_in_one_line_that_names_fault_and_remedy(copy: Path, name: str) -> None:
    with pytest.raises(UserError, match=REFUSED[name]) as caught:
        load(STRANGE[name](copy))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", WRAPPED)
def test_wrapped_weights_give_the_logits_of_the_model(model: Path, copy: Path, name: str) -> None:
    assert torch.allclose(logits_of(STRANGE[name](copy)), logits_of(model), atol=1e-6)


def test_wrapped_pickled_weights_give_the_logits_of_the_model(model: Path, copy: Path) -> None:
    tensors = load_file(STRANGE["compiled"](copy) / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save(tensors, copy / "pytorch_model.bin")
    assert torch.allclose(logits_of(copy, allow_pickled_weights=True), logits_of(model), atol=1e-6)


def test_wrapped_weights_are_loaded_without_memory_too(copy: Path) -> None:
    assert load(STRANGE["compiled"](copy), device="meta").num_labels == 2


def test_weights_that_overflow_in_float16_name_the_dtype(copy: Path) -> None:
    folder = change_tensors(copy, lambda name, tensor: tensor * 1e7 if name == "bert.pooler.dense.weight" else tensor)
    assert logits_of(folder).isfinite().all()
    with pytest.raises(UserError, match=r"infinite in float16 \(bert\.pooler\.dense\.weight\).*set model\.dtype: float32"):
        load(folder, dtype="float16")


def test_embedding_of_a_rare_token_that_is_not_finite_costs_no_other_text_its_label(copy: Path) -> None:
    def change(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if name == "bert.embeddings.word_embeddings.weight":
            tensor[1000] = float("nan")
        return tensor

    assert logits_of(change_tensors(copy, change)).isfinite().all()


def test_quantization_that_fails_is_named(copy: Path) -> None:
    """transformers' own message says what its packages lack, not that the model is quantized."""
    with pytest.raises(UserError, match=r"is quantized by bitsandbytes and cannot be loaded here \(.*before quantization"):
        load(STRANGE["quantized by bitsandbytes 4 bit"](copy))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may compute in float8")
def test_weights_quantized_to_float8_are_multiplied_by_their_scales(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    scales = {name: tensor.abs().max() / 448 for name, tensor in tensors.items() if "layer.0.output.dense.weight" in name}
    halves = {name: (tensors[name] / scale).to(torch.float8_e4m3fn) for name, scale in scales.items()}
    products = {name: half.float() * scales[name] for name, half in halves.items()}
    save_file(tensors | products, copy / "model.safetensors", metadata={"format": "pt"})
    expected = logits_of(copy)
    saved = {f"{name}_scale_inv": scale.reshape(1, 1) for name, scale in scales.items()}
    save_file(tensors | halves | saved, copy / "model.safetensors", metadata={"format": "pt"})
    change_json(copy / "config.json", quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]})
    assert torch.allclose(logits_of(copy), expected, atol=1e-6)
