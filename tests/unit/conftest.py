"""Model folders to change, and to fetch."""

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline_ops.storage.config import StorageConfig
from tests.models.folders import BrokenFileSystem, upload


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
