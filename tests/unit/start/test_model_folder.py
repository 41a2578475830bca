"""Publishing a trained model to a local folder: behind a link, and on a full disk."""

import shutil
from pathlib import Path

import pytest

from jobs.start.model_folder import publish
from pipeline_ops.storage.store import Store
from tests.support.corpora import write_bytes
from tests.support.running import snapshot


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    write_bytes(tmp_path / "trained" / "config.json", b"{}")
    write_bytes(tmp_path / "trained" / "model.safetensors", b"weights")
    return tmp_path / "trained"


def test_model_is_published_to_the_folder_that_a_link_leads_to(trained: Path, tmp_path: Path) -> None:
    write_bytes(tmp_path / "disk" / "model" / "old.txt", b"old")
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "model")
    publish(str(trained), Store(str(tmp_path / "link")))
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in (tmp_path / "disk" / "model").iterdir()) == ["config.json", "model.safetensors"]
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["model"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "link", "trained"]


@pytest.mark.parametrize("is_full_from", ["config.json", "model.safetensors"])
def test_full_disk_leaves_the_old_model_and_nothing_else(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_full_from: str
) -> None:
    write_bytes(tmp_path / "models" / "old" / "config.json", b"old")
    before = snapshot(tmp_path / "models")
    copyfile = shutil.copyfile

    def copy(source: str, target: str) -> None:
        if Path(source).name == is_full_from:
            raise OSError(28, "No space left on device")
        copyfile(source, target)

    monkeypatch.setattr(shutil, "copyfile", copy)
    for name in ("old", "new"):
        with pytest.raises(OSError, match="No space left"):
            publish(str(trained), Store(str(tmp_path / "models" / name)))
    assert snapshot(tmp_path / "models") == before
