"""Checkpoints of a training: the same one continues from them, another one starts over and says so, success removes them."""

from contextlib import suppress
from pathlib import Path

import pytest

from jobs.start.training_checkpoints import checkpoint_folder, fingerprint_of, kept_checkpoints
from pipeline_ops.output.lease import LeaseError
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.training.trainer import newest_checkpoint
from tests.support.corpora import write_bytes

FINGERPRINT = fingerprint_of({"seed": 0}, ["a text"], ["a"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a training that was interrupted after 120 steps, and killed while it saved the 130th."""
    folder = tmp_path / "checkpoints"
    with suppress(KeyboardInterrupt), kept_checkpoints(str(folder), FINGERPRINT, print):
        write_bytes(folder / "checkpoint-120" / "trainer_state.json", b"{}")
        write_bytes(folder / "checkpoint-130" / "model.safetensors", b"the half of")
        raise KeyboardInterrupt
    return folder


def test_same_training_continues_and_its_end_removes_the_folder(folder: Path) -> None:
    lines: list[str] = []
    with kept_checkpoints(str(folder), FINGERPRINT, lines.append) as kept:
        found = newest_checkpoint(kept)
        assert found is not None
        assert found.step == 120
    assert lines == []
    assert not folder.exists()


@pytest.mark.parametrize(
    "other",
    [
        fingerprint_of({"seed": 1}, ["a text"], ["a"]),
        fingerprint_of({"seed": 0}, ["another text"], ["a"]),
        fingerprint_of({"seed": 0}, ["a text"], ["b"]),
        fingerprint_of({"seed": 0}, ["a text", "a text"], ["a", "a"]),
    ],
)
def test_changed_training_starts_over_and_says_so(folder: Path, other: str) -> None:
    lines: list[str] = []
    with kept_checkpoints(str(folder), other, lines.append) as kept:
        assert newest_checkpoint(kept) is None
    (line,) = lines
    assert line.startswith("training starts over: ")
    assert "120 steps" in line


def test_failure_before_the_first_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError), kept_checkpoints(str(tmp_path / "new"), FINGERPRINT, print):
        raise UserError("no such architecture")
    assert list(tmp_path.iterdir()) == []


def test_second_training_into_the_same_folder_is_refused(folder: Path) -> None:
    with (
        kept_checkpoints(str(folder), FINGERPRINT, print),
        pytest.raises(LeaseError, match="another training"),
        kept_checkpoints(str(folder), FINGERPRINT, print),
    ):
        raise AssertionError


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    write_bytes(tmp_path / "file", b"")
    storage = StorageConfig(cache_folder=str(tmp_path / "file"))
    path = checkpoint_folder("s3://bucket/model", storage)
    with (
        pytest.raises(UserError, match=r"storage.cache_folder: .*training.save_minutes=0"),
        kept_checkpoints(path, FINGERPRINT, print),
    ):
        raise AssertionError
