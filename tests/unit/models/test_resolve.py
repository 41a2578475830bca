"""The model folder: its limits and its identity."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoTokenizer,
    EsmConfig,
    GPT2Config,
    LukeConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
)

from pipeline_ops.loading.load import load_classifier
from pipeline_ops.models.config import ModelConfig
from pipeline_ops.models.resolve import resolve_model
from pipeline_ops.models.tokenizer import positions_of, resolve_max_length
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.config import StorageConfig
from tests.models.architectures import make_classifier
from tests.models.folders import change_json, facts_of, load
from tests.models.tiny import ARCHITECTURES, Architecture, make_model


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_facts_of_a_model_say_what_results_depend_on(
    model_of: Callable[[Architecture], Path], architecture: Architecture
) -> None:
    facts = facts_of(model_of(architecture))
    assert (facts.head.labels, facts.head.activation, facts.max_length) == (("NEGATIVE", "POSITIVE"), "softmax", 128)
    assert facts.pad_id == (1 if architecture == "roberta" else 0)
    assert facts.has_type_ids == (architecture == "bert")
    assert (facts.pad_left, facts.revision) == (False, None)
    json.dumps(asdict(facts))  # recorded in every file


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [("ELECTRA", ["left", "right"]), ("GPT-2", ["left", "left"]), ("BART", ["right", "right"]), ("PLBart", ["right", "right"])],
)
def test_padding_is_on_the_side_that_the_architecture_needs_or_else_the_tokenizers(
    tmp_path: Path, architecture: str, expected: list[str]
) -> None:
    folder = make_classifier(tmp_path / "model", architecture, ("A", "B"))
    found = []
    for side in ("left", "right"):
        change_json(folder / "tokenizer_config.json", padding_side=side)
        found.append("left" if facts_of(folder).pad_left else "right")
    assert found == expected


@pytest.mark.parametrize("architecture", ["BigBird", "BigBird-Pegasus"])
def test_logits_of_a_long_text_do_not_depend_on_a_short_one_before_it(tmp_path: Path, architecture: str) -> None:
    folder = make_classifier(tmp_path / "model", architecture, ("A", "B"))
    change_json(folder / "config.json", block_size=4, num_random_blocks=1)  # attention is sparse from 29 tokens on
    model = load(folder)
    long = torch.tensor([[*range(10, 58), model.config.eos_token_id]])
    with torch.inference_mode():
        first = model(input_ids=long).logits
        model(input_ids=long[:, -8:])
        assert torch.equal(model(input_ids=long).logits, first)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_max_length_without_a_tokenizer_limit_is_the_models_positions(
    model_of: Callable[[Architecture], Path], architecture: Architecture, tmp_path: Path
) -> None:
    """RoBERTa's positions begin behind its pad id: of 130 rows in the table 128 are for tokens."""
    folder = Path(shutil.copytree(model_of(architecture), tmp_path / "model"))
    change_json(folder / "tokenizer_config.json", model_max_length=None)
    assert facts_of(folder).max_length == 128


@pytest.mark.parametrize("config", [EsmConfig(pad_token_id=1), LukeConfig(), XLMRobertaConfig()], ids=lambda c: c.model_type)
def test_positions_that_begin_behind_the_padding_are_for_two_tokens_fewer(config: PreTrainedConfig) -> None:
    assert positions_of(config) == config.max_position_embeddings - 2


@pytest.mark.parametrize(
    ("kind", "settings", "reason"),
    [
        ("mra", {}, "CUDA kernel"),
        ("reformer", {}, "hashes at random"),
        ("tapas", {}, "reads more than text"),
        ("yoso", {"use_expectation": False}, "hashes at random"),
    ],
)
def test_kind_that_cannot_label_texts_is_refused_by_name(copy: Path, kind: str, settings: dict[str, Any], reason: str) -> None:
    change_json(copy / "config.json", model_type=kind, **settings)
    with pytest.raises(UserError, match=rf"^model\.path: .* is a {kind} model, which .*{reason}.*; give another model$"):
        facts_of(copy)


def test_max_length_of_a_tokenizer_below_the_positions_is_its_limit(copy: Path) -> None:
    change_json(copy / "tokenizer_config.json", model_max_length=50)
    assert facts_of(copy).max_length == 50


@pytest.mark.parametrize("asked", [3, 64, 128])
def test_max_length_that_is_given_is_taken(copy: Path, asked: int) -> None:
    change_json(copy / "tokenizer_config.json", model_max_length=50)
    assert facts_of(copy, max_length=asked).max_length == asked


@pytest.mark.parametrize("asked", [1, 2, 129, 512])
def test_max_length_that_does_not_fit_is_a_users_mistake(model: Path, asked: int) -> None:
    with pytest.raises(UserError, match=rf"model\.max_length: {asked} "):
        facts_of(model, max_length=asked)


def test_max_length_of_roberta_beyond_its_offset_is_a_users_mistake(model_of: Callable[[Architecture], Path]) -> None:
    assert facts_of(model_of("roberta"), max_length=128).max_length == 128
    with pytest.raises(UserError, match=r"model\.max_length"):
        facts_of(model_of("roberta"), max_length=129)


def test_max_length_without_any_limit_must_be_given(model: Path) -> None:
    unlimited: Any = SimpleNamespace(model_type="xlnet", pad_token_id=5)
    tokenizer = AutoTokenizer.from_pretrained(model, model_max_length=10**30)
    with pytest.raises(UserError, match=r"model\.max_length.*set it"):
        resolve_max_length(ModelConfig(path="m"), unlimited, tokenizer, 2)
    assert resolve_max_length(ModelConfig(path="m", max_length=4000), unlimited, tokenizer, 2) == 4000


def test_facts_of_a_single_label_and_of_a_regression(tmp_path: Path) -> None:
    texts = ["one text", "another text", "a third"]
    single = make_model(tmp_path / "a", labels=["toxic"], problem_type="multi_label_classification", texts=texts)
    regression = make_model(tmp_path / "b", labels=["stars"], problem_type="regression", texts=texts)
    assert (facts_of(single).head.labels, facts_of(single).head.activation) == (("toxic",), "sigmoid")
    assert facts_of(regression).head.activation == "none"


def test_weights_identity_follows_the_weight_files_only(copy: Path) -> None:
    first = facts_of(copy)
    (copy / "README.md").write_text("changed")
    assert facts_of(copy) == first
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    changed = facts_of(copy)
    assert changed.weights != first.weights
    assert changed.tokenizer_hash == first.tokenizer_hash


def test_tokenizer_identity_follows_the_tokenizer_only(copy: Path) -> None:
    first = facts_of(copy)
    content = json.loads((copy / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    left, right = list(vocabulary)[10:12]
    vocabulary[left], vocabulary[right] = vocabulary[right], vocabulary[left]
    (copy / "tokenizer.json").write_text(json.dumps(content))
    changed = facts_of(copy)
    assert changed.tokenizer_hash != first.tokenizer_hash
    assert changed.weights == first.weights


def test_tokenizer_identity_does_not_depend_on_how_the_tokenizer_was_used(model: Path, tmp_path: Path) -> None:
    first = facts_of(model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer("a", truncation=True, max_length=5, padding="max_length")
    tokenizer.save_pretrained(shutil.copytree(model, tmp_path / "model", dirs_exist_ok=True))
    assert facts_of(tmp_path / "model").tokenizer_hash == first.tokenizer_hash


def test_facts_of_the_same_folder_elsewhere_differ_in_the_path_only(model: Path, copy: Path) -> None:
    here, there = asdict(facts_of(model)), asdict(facts_of(copy))
    assert here.pop("path") != there.pop("path")
    assert here == there


@pytest.mark.parametrize(
    "missing", [["config.json"], ["tokenizer.json", "tokenizer_config.json"]], ids=["without config", "without tokenizer"]
)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_folder_without_config_or_tokenizer_is_a_users_mistake(
    model_of: Callable[[Architecture], Path], architecture: Architecture, missing: list[str], tmp_path: Path
) -> None:
    """Without its files a tokenizer of five special tokens would be made up, and every word be unknown."""
    folder = Path(shutil.copytree(model_of(architecture), tmp_path / "model"))
    for name in missing:
        (folder / name).unlink()
    with pytest.raises(UserError, match=r"model\.path") as caught:
        facts_of(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("of_model", "pad_id"), [(None, 0), (1, 1), (-1, 0)])
def test_batches_of_a_tokenizer_without_a_padding_token_are_filled_with_what_the_head_passes_over(
    tmp_path: Path, of_model: int | None, pad_id: int
) -> None:
    backend = Tokenizer(WordLevel({"a": 0, "?": 1}, unk_token="?"))
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="?").save_pretrained(tmp_path)
    shape: dict[str, Any] = {"n_embd": 4, "n_layer": 1, "n_head": 1, "bos_token_id": 0, "eos_token_id": 0}
    GPT2Config(vocab_size=2, **shape, pad_token_id=of_model).save_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"weights")
    facts = facts_of(tmp_path, allow_pickled_weights=True, allow_new_weights=True)
    assert (facts.pad_id, facts.pad_left) == (pad_id, True)


def test_path_that_is_neither_folder_nor_hub_id_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.path") as caught:
        facts_of(tmp_path / "missing" / "model" / "folder")
    assert "\n" not in str(caught.value)


def test_model_on_an_object_store_is_the_same_as_the_local_one(remote: str, model: Path, caching: StorageConfig) -> None:
    here, there = asdict(facts_of(model)), asdict(facts_of(remote, caching))
    for facts in (here, there):
        del facts["path"], facts["weights"]
    assert here == there
    tokenizer = resolve_model(ModelConfig(path=remote), caching)[1]
    assert tokenizer("a text")["input_ids"] == AutoTokenizer.from_pretrained(model)("a text")["input_ids"]
    classifier = load_classifier(ModelConfig(path=remote), caching, revision=None, dtype="float32", device="cpu")
    for ours, local in zip(classifier.parameters(), load(model).parameters(), strict=True):
        assert torch.equal(ours, local)
