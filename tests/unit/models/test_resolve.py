"""The model folder: its limits, its identity, and what can be loaded."""

import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoTokenizer,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    GPT2Config,
    PreTrainedTokenizerFast,
)

from pipeline_ops.models.config import ModelConfig, ModelFacts
from pipeline_ops.models.fetch import is_hub_id, local_copy
from pipeline_ops.models.load import load_classifier
from pipeline_ops.models.resolve import resolve_max_length, resolve_model
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.store import Store
from tests.models.architectures import make_classifier
from tests.models.tiny import ARCHITECTURES, Architecture, make_model

STORAGE = StorageConfig()


class BrokenFileSystem(MemoryFileSystem):
    """An object store that fails to deliver one object for as long as `broken` is set."""

    protocol = "broken"
    store: dict = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    broken = False

    def cat_file(self, path: str, *arguments: Any, **options: Any) -> bytes:
        if BrokenFileSystem.broken and path.endswith(".safetensors"):
            raise OSError("the connection was reset")
        return super().cat_file(path, *arguments, **options)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("broken://", "memory://"))


fsspec.register_implementation("broken", BrokenFileSystem, clobber=True)


def facts_of(folder: Path | str, storage: StorageConfig = STORAGE, **settings: Any) -> ModelFacts:
    return resolve_model(ModelConfig(path=str(folder), **settings), storage)[0]


def load(folder: Path | str, dtype: str = "float32", device: str = "cpu", **settings: Any) -> Any:
    return load_classifier(ModelConfig(path=str(folder), **settings), STORAGE, revision=None, dtype=dtype, device=device)


def change_json(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text())
    content.update(values)
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def upload(folder: Path, url: str) -> str:
    for path in folder.iterdir():
        Store(url).put(path.name, path.read_bytes())
    return url


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    """A model folder that the test may change."""
    return Path(shutil.copytree(model, tmp_path / "model"))


@pytest.fixture(params=["memory", "broken"])
def remote(request: pytest.FixtureRequest, model: Path) -> Iterator[str]:
    """A model folder on an object store."""
    url = upload(model, f"{request.param}://{uuid.uuid4().hex}/model")
    BrokenFileSystem.broken = False
    yield url
    BrokenFileSystem.broken = False


@pytest.fixture
def caching(tmp_path: Path) -> StorageConfig:
    return StorageConfig(cache_folder=str(tmp_path / "cache"))


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


def test_tokenizer_without_a_padding_token_is_a_users_mistake(tmp_path: Path) -> None:
    backend = Tokenizer(WordLevel({"a": 0, "?": 1}, unk_token="?"))
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="?").save_pretrained(tmp_path)
    GPT2Config(vocab_size=2, n_embd=4, n_layer=1, n_head=1, bos_token_id=0, eos_token_id=0).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="padding"):
        facts_of(tmp_path)


def test_path_that_is_neither_folder_nor_hub_id_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.path") as caught:
        facts_of(tmp_path / "missing" / "model" / "folder")
    assert "\n" not in str(caught.value)


def test_hub_ids_are_distinguished_from_folders(model: Path) -> None:
    assert is_hub_id("distilbert/distilbert-base-uncased-finetuned-sst-2-english")
    assert not is_hub_id(str(model))
    assert not is_hub_id("s3://bucket/model")


@pytest.mark.parametrize(("dtype", "expected"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_classifier_is_loaded_for_inference_in_its_dtype(model: Path, dtype: str, expected: torch.dtype) -> None:
    classifier = load(model, dtype=dtype)
    assert not classifier.training
    assert {parameter.dtype for parameter in classifier.parameters()} == {expected}


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


def test_local_copy_of_a_local_folder_is_the_folder(model: Path) -> None:
    assert local_copy(ModelConfig(path=str(model)), STORAGE, weights=True) == str(model)


def test_local_copy_of_a_remote_folder_holds_all_its_files(remote: str, model: Path, caching: StorageConfig) -> None:
    folder = Path(local_copy(ModelConfig(path=remote), caching, weights=True))
    assert files_below(folder) == files_below(model)
    assert all((folder / name).read_bytes() == (model / name).read_bytes() for name in files_below(model))


def test_local_copy_again_is_the_same_and_only_one(remote: str, caching: StorageConfig) -> None:
    config = ModelConfig(path=remote)
    folder = Path(local_copy(config, caching, weights=True))
    first = {name: (folder / name).stat().st_mtime_ns for name in files_below(folder)}
    assert local_copy(config, caching, weights=True) == str(folder)
    assert local_copy(ModelConfig(path=remote + "/"), caching, weights=True)
    assert {name: (folder / name).stat().st_mtime_ns for name in files_below(folder)} == first
    assert len(list(folder.parent.iterdir())) == 1


def test_local_copy_without_weights_leaves_them_out(remote: str, caching: StorageConfig) -> None:
    folder = Path(local_copy(ModelConfig(path=remote), caching, weights=False))
    assert "config.json" in files_below(folder)
    assert not [name for name in files_below(folder) if name.endswith(".safetensors")]


def test_local_copy_of_a_changed_remote_folder_is_new(remote: str, caching: StorageConfig) -> None:
    config = ModelConfig(path=remote)
    first = Path(local_copy(config, caching, weights=True))
    Store(remote).put("extra.txt", b"more")
    second = Path(local_copy(config, caching, weights=True))
    assert second != first
    assert (second / "extra.txt").read_bytes() == b"more"


def test_local_copy_by_many_at_once_is_whole_for_each(remote: str, model: Path, caching: StorageConfig) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: local_copy(ModelConfig(path=remote), caching, weights=True), range(8)))
    (folder,) = map(Path, found)
    assert files_below(folder) == files_below(model)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_local_copy_that_was_interrupted_is_whole_the_next_time(model: Path, caching: StorageConfig) -> None:
    config = ModelConfig(path=upload(model, f"broken://{uuid.uuid4().hex}/model"))
    BrokenFileSystem.broken = True
    with pytest.raises(OSError, match="reset"):
        local_copy(config, caching, weights=True)
    BrokenFileSystem.broken = False
    assert files_below(Path(local_copy(config, caching, weights=True))) == files_below(model)


def test_local_copy_that_was_interrupted_leaves_no_partial_copy(model: Path, caching: StorageConfig) -> None:
    """Model weights are gigabytes: what each failed attempt leaves would fill the node's disk."""
    config = ModelConfig(path=upload(model, f"broken://{uuid.uuid4().hex}/model"))
    BrokenFileSystem.broken = True
    with pytest.raises(OSError, match="reset"):
        local_copy(config, caching, weights=True)
    BrokenFileSystem.broken = False
    assert files_below(Path(caching.cache_folder)) == set()


def test_local_copy_of_a_folder_without_a_model_is_a_users_mistake(caching: StorageConfig) -> None:
    other = f"memory://{uuid.uuid4().hex}"
    Store(other).put("notes.txt", b"no model")
    for path in ("memory://no-such-bucket/model", other):
        with pytest.raises(UserError, match=r"model\.path.*config\.json"):
            local_copy(ModelConfig(path=path), caching, weights=True)


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
