"""Names that are patterns to fsspec: files called so are read and deleted, and no others."""

import uuid
from pathlib import Path

import pytest

from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.store import Store
from tests.conftest import Bucket

NAMES = ["1.txt", "12.txt", "[1].txt", "a*.txt", "ab.txt", "a?.txt", "x[1]y/z.txt"]


@pytest.fixture(params=["local", "s3", "other"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return Store(str(tmp_path))
    if request.param == "other":
        return Store(f"memory://{uuid.uuid4().hex}")
    bucket: Bucket = request.getfixturevalue("s3")
    return Store(f"{bucket.url}/folder", StorageConfig(endpoint_url=bucket.endpoint_url))


def test_files_named_like_patterns_are_read_and_deleted_alone(store: Store) -> None:
    store.put_many({name: name.encode() for name in NAMES})
    files = store.list_files()
    assert [file.path for file in files] == sorted(store.join(name) for name in NAMES)
    for chosen in (files, *([file] for file in files)):
        assert store.read_files(chosen) == [store.relative(file.path).encode() for file in chosen]
        assert store.read_tails(chosen, 4) == [b".txt"] * len(chosen)
    store.delete(["[1].txt", "a*.txt", "a?.txt", "x[1]y/z.txt", "gone"])
    assert [file.path for file in store.list_all()] == [store.join(name) for name in ("1.txt", "12.txt", "ab.txt")]
