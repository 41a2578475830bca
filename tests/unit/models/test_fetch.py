"""Local copies of model folders."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline_ops.models.config import ModelConfig
from pipeline_ops.models.fetch import is_hub_id, local_copy
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.store import Store
from tests.models.folders import STORAGE, BrokenFileSystem, files_below, upload


def test_hub_ids_are_distinguished_from_folders(model: Path) -> None:
    assert is_hub_id("distilbert/distilbert-base-uncased-finetuned-sst-2-english")
    assert not is_hub_id(str(model))
    assert not is_hub_id("s3://bucket/model")


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
