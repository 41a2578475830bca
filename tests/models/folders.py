"""Model folders that a test may change: on object stores, one of which fails; facts and weights of a folder."""

import json
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from pipeline_ops.loading.load import load_classifier
from pipeline_ops.models.config import ModelConfig, ModelFacts
from pipeline_ops.models.resolve import resolve_model
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.store import Store

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
    Store(url).put_many({name: (folder / name).read_bytes() for name in files_below(folder)})
    return url


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
