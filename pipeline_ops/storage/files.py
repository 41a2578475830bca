"""Free functions of a Store, for the callers that are not converted yet."""

from typing import BinaryIO

from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.paths import full_path, is_local, join
from pipeline_ops.storage.store import Store, StoredFile

__all__ = ["StorageConfig", "StoredFile", "full_path", "is_local", "join"]


def list_files(path: str, config: StorageConfig) -> list[StoredFile]:
    return Store(path, config).list_files()


def list_all(folder: str, config: StorageConfig) -> list[StoredFile]:
    return Store(folder, config).list_all()


def open_to_read(file: StoredFile, config: StorageConfig, *, sequential: bool) -> BinaryIO:
    return Store(file.path, config).open(file, sequential=sequential)


def read_files(files: list[StoredFile], config: StorageConfig) -> list[bytes]:
    return Store(files[0].path, config).read_files(files) if files else []


def try_read_files(files: list[StoredFile], config: StorageConfig) -> list[bytes | Exception]:
    return Store(files[0].path, config).try_read_files(files) if files else []


def read_tails(files: list[StoredFile], tail_bytes: int, config: StorageConfig) -> list[bytes | Exception]:
    return Store(files[0].path, config).read_tails(files, tail_bytes) if files else []


def put(path: str, data: bytes, config: StorageConfig) -> None:
    folder, _, name = path.rpartition("/")
    Store(folder, config).put(name, data)
