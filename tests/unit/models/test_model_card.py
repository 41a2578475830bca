"""Facts about a model from its folder: size of the weights, metadata of the model card."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors import safe_open

from pipeline_ops.models.config import ModelConfig
from pipeline_ops.models.model_card import card_of
from pipeline_ops.storage.config import StorageConfig


@pytest.fixture
def folder(model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(model, tmp_path / "model")


def test_card_has_the_size_of_the_weights_and_the_metadata_of_the_model_card(folder: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: mit\ntags: [a, 2024-05-01]\nextra: no\n---\n# A model\n")
    card = card_of(ModelConfig(path=str(folder)), StorageConfig())
    with safe_open(folder / "model.safetensors", "numpy") as weights:
        numbers = sum(weights.get_tensor(name).size for name in weights.keys())  # noqa: SIM118 it is no dict
    assert card["parameters"] == numbers
    assert (card["license"], card["tags"]) == ("mit", ["a", "2024-05-01"])
    assert card["architecture"] == json.loads((folder / "config.json").read_text())["architectures"][0]
    assert "extra" not in card


@pytest.mark.parametrize("text", ["# no header", "---\n: : :\n- x\n---\n", "---\njust text\n---\n", ""])
def test_card_without_valid_metadata_has_the_other_facts(folder: Path, text: str) -> None:
    (folder / "README.md").write_text(text)
    card = card_of(ModelConfig(path=str(folder)), StorageConfig())
    assert card["parameters"] > 0
    assert "license" not in card


def test_card_of_a_hub_model_that_is_not_here_is_empty() -> None:
    assert card_of(ModelConfig(path="nobody/nothing"), StorageConfig()) == {}
