"""Where the checkpoints of a training are kept, so that the same command continues from them, and no other one does.

They are local, in `storage.cache_folder`, also where the model goes to object storage: a checkpoint is three times as large as
the model.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from jobs.number_format import counted
from pipeline_ops.output.lease import LeaseError
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.training.trainer import newest_checkpoint

FINGERPRINT = "fingerprint"


def fingerprint_of(settings: Any, texts: Sequence[str], labels: Sequence[str]) -> str:
    """SHA-256 of all that decides which weights a training gives."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for text, label in zip(texts, labels, strict=True):
        digest.update(json.dumps([text, label]).encode())
    return digest.hexdigest()


def checkpoint_folder(target: str, storage: StorageConfig) -> str:
    """The folder for checkpoints of trainings whose model goes to `target`, a full path."""
    name = hashlib.sha256(target.encode()).hexdigest()[:32]
    return os.path.join(os.path.expanduser(storage.cache_folder), "training", name)


@contextmanager
def kept_checkpoints(folder: str, fingerprint: str, say: Callable[[str], None]) -> Iterator[str]:
    """The folder, for one training at a time; emptied if it holds checkpoints of another one, and removed after success.

    Raises:
        LeaseError: a training on this machine uses it.
        UserError: it cannot be written.
    """
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"storage.cache_folder: {folder!r} cannot be written: {error.strerror}; give another folder for checkpoints, or"
            " training.save_minutes=0"
        ) from error
    with open(os.path.join(folder, "lock"), "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LeaseError("output.path: another training on this machine writes to it; wait for its end") from error
        found = newest_checkpoint(folder)
        if found is not None and _read(folder) != fingerprint:
            say(
                f"training starts over: its file, corpus or versions have changed since the checkpoint after"
                f" {counted(found.step, 'step')}"
            )
            found = None
        if found is None:
            for name in os.listdir(folder):
                if name.startswith("checkpoint-"):
                    shutil.rmtree(os.path.join(folder, name))
            with open(os.path.join(folder, FINGERPRINT), "w", encoding="utf-8") as file:
                file.write(fingerprint)
        try:
            yield folder
        except BaseException:
            if newest_checkpoint(folder) is None:
                shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)


def _read(folder: str) -> str | None:
    try:
        with open(os.path.join(folder, FINGERPRINT), encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None
