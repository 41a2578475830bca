"""Models without a trained head are refused by the names of their tensors, as loading them would, and no others are."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification

from pipeline_ops.models.config import ModelConfig
from pipeline_ops.models.head_weights import check_head
from pipeline_ops.models.resolve import REFUSED_KINDS, resolve_model
from pipeline_ops.schema.errors import UserError
from tests.models.all_kinds import KINDS, tiny_config
from tests.models.architectures import MORE_ARCHITECTURES
from tests.models.folders import STORAGE, change_json, facts_of, load, upload


def is_refused(folder: Path, model: Any, *architectures: str) -> bool:
    """Whether check_head refuses weights with the names and shapes of this model's, of which only the header is written."""
    model.config.architectures = [*architectures] or None
    described, end = {}, 0
    for name, tensor in model.state_dict().items():
        begin, end = end, end + 4 * tensor.numel()
        described[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    header = json.dumps(described).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + end)
    try:
        check_head(ModelConfig(path=str(folder)), STORAGE, model.config)
    except UserError as error:
        if "no trained classification head" not in str(error):
            raise
        return f"{str(folder)!r} " in str(error) and "label-corpus train" in str(error)
    return False


@pytest.mark.parametrize("architecture", MORE_ARCHITECTURES)
def test_head_is_found_by_name_in_every_architecture(architecture: str, tmp_path: Path) -> None:
    config = MORE_ARCHITECTURES[architecture][0](64)
    with torch.device("meta"):
        assert not is_refused(tmp_path, AutoModelForSequenceClassification.from_config(config))
        assert is_refused(tmp_path, AutoModel.from_config(config))


@pytest.mark.slow
def test_head_is_found_by_name_in_all_of_transformers(tmp_path: Path) -> None:
    refused = []
    for kind in {*KINDS} - REFUSED_KINDS.keys():
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(tiny_config(kind, vocab_size=100, pad_token_id=0))
        if is_refused(tmp_path, model):
            refused.append(kind)
    assert refused == []


def test_encoder_is_refused_before_its_weights_are_loaded(model_without_head: Path, tmp_path: Path) -> None:
    for folder in (str(model_without_head), upload(model_without_head, f"memory://{tmp_path.name}/encoder")):
        with pytest.raises(UserError, match="is a BertModel, and has no trained classification head") as caught:
            facts_of(folder)
        assert "\n" not in str(caught.value)
        assert facts_of(folder, allow_new_weights=True).head.labels == ("LABEL_0", "LABEL_1")


def test_language_model_is_refused_as_loading_it_would(copy: Path) -> None:
    AutoModelForMaskedLM.from_config(load(copy).config).save_pretrained(copy)
    for check in (facts_of, load):
        with pytest.raises(UserError, match="no trained classification head"):
            check(copy)


@pytest.mark.parametrize("architectures", [None, ["BertModel"], ["SomeClassifierOfMine"]])
@pytest.mark.parametrize("shards", [False, True])
def test_weights_decide_where_the_configuration_names_no_classifier(
    copy: Path, architectures: list[str] | None, shards: bool
) -> None:
    if shards:
        load(copy).save_pretrained(copy, max_shard_size="100KB")
        (copy / "model.safetensors").unlink(missing_ok=True)
        assert (copy / "model.safetensors.index.json").exists()
    change_json(copy / "config.json", architectures=architectures)
    assert facts_of(copy).head.labels == ("NEGATIVE", "POSITIVE")
    assert load(copy).config.num_labels == 2


def test_pickled_weights_are_left_to_loading(copy: Path) -> None:
    """Their names are not known before they are loaded."""
    change_json(copy / "config.json", architectures=None)
    (copy / "model.safetensors").unlink()
    torch.save({}, copy / "pytorch_model.bin")
    assert facts_of(copy, allow_pickled_weights=True).head.labels == ("NEGATIVE", "POSITIVE")


def test_encoder_on_the_hub_is_refused_from_the_cache(
    model_without_head: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0" * 40
    cached = tmp_path / "models--some--encoder"
    shutil.copytree(model_without_head, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="'some/encoder' is a BertModel, and has no trained classification head"):
        resolve_model(ModelConfig(path="some/encoder"), STORAGE)
