"""Names that are patterns to fsspec: files called so are read and deleted, and no others."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline_ops.storage.files import StorageConfig, delete_many, join, list_all, list_files, put_many, read_files, read_tails
from tests.conftest import Bucket

NAMES = ["1.txt", "12.txt", "[1].txt", "a*.txt", "ab.txt", "a?.txt", "x[1]y/z.txt"]


@pytest.fixture(params=["local", "s3", "other"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, StorageConfig]]:
    if request.param == "local":
        yield str(tmp_path), StorageConfig()
        return
    if request.param == "other":
        yield f"memory://{uuid.uuid4().hex}", StorageConfig()
        return
    bucket: Bucket = request.getfixturevalue("s3")
    yield f"{bucket.url}/folder", StorageConfig(endpoint_url=bucket.endpoint_url)


def test_files_named_like_patterns_are_read_and_deleted_alone(place: tuple[str, StorageConfig]) -> None:
    folder, storage = place
    put_many({join(folder, name): name.encode() for name in NAMES}, storage)
    files = list_files(folder, storage)
    assert [file.path for file in files] == sorted(join(folder, name) for name in NAMES)
    for chosen in (files, *([file] for file in files)):
        assert read_files(chosen, storage) == [file.path.removeprefix(folder).lstrip("/").encode() for file in chosen]
        assert read_tails(chosen, 4, storage) == [b".txt"] * len(chosen)
    delete_many([join(folder, name) for name in ("[1].txt", "a*.txt", "a?.txt", "x[1]y/z.txt", "gone")], storage)
    assert [file.path for file in list_all(folder, storage)] == [join(folder, name) for name in ("1.txt", "12.txt", "ab.txt")]
