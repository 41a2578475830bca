"""A corpus on S3 behind the fault proxy, and how to stop what works on it."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.config import JobConfig, check_config
from tests.conftest import Bucket
from tests.servers.s3_proxy import Rule
from tests.support.corpora import real_documents, write_bytes, write_jsonl, write_parquet
from tests.support.invariant import Key, check_exactly_once
from tests.support.running import job_settings, keys, output_files, wait_for, write_job_file

ROWS = 60  # per file
UNIT_BYTES = 4000  # about thirty units


@dataclass(frozen=True)
class Corpus:
    """A job on S3: three files of three formats, and where its labels go."""

    bucket: Bucket
    settings: dict[str, Any]
    job_file: Path
    expected: list[Key]

    @property
    def job(self) -> JobConfig:
        return check_config(JobConfig, self.settings)

    @property
    def output(self) -> str:
        return f"{self.bucket.name}/out"

    def output_files(self) -> list[str]:
        return output_files(self.output, self.bucket.filesystem)

    def commits(self) -> list[str]:
        return [path for path in self.output_files() if "/_commits/" in path]

    def check_exactly_once(self) -> None:
        check_exactly_once(self.output, self.expected, self.bucket.filesystem)


@pytest.fixture
def corpus(s3: Bucket, model: Path, tmp_path: Path) -> Corpus:
    texts = [text[:300] for text in real_documents(3 * ROWS, seed=5)]
    write_jsonl(tmp_path / "in" / "a.jsonl.zst", [{"text": text} for text in texts[:ROWS]])
    write_bytes(tmp_path / "in" / "b.txt", "".join(one.replace("\n", " ") + "\n" for one in texts[ROWS : 2 * ROWS]).encode())
    write_parquet(tmp_path / "in" / "c.parquet", [{"text": text} for text in texts[2 * ROWS :]], row_group_size=6)
    s3.filesystem.put(str(tmp_path / "in"), f"{s3.name}/", recursive=True)
    settings = job_settings(
        f"{s3.url}/in", model, f"{s3.url}/out", f"compute.unit_bytes={UNIT_BYTES}", f"storage.endpoint_url={s3.endpoint_url}"
    )
    s3.journal.clear()
    expected = [key for name in ("a.jsonl.zst", "b.txt", "c.parquet") for key in keys(f"{s3.url}/in/{name}", ROWS)]
    return Corpus(s3, settings, write_job_file(tmp_path / "job.yaml", settings), expected)


def worker_processes(actor: str, root: psutil.Process | None = None) -> list[psutil.Process]:
    """The processes of a pool's actors below `root`, by default this process, whose Ray the tests share."""
    found = []
    for process in (root or psutil.Process()).children(recursive=True):
        try:
            name = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if name.startswith("ray::") and actor in name and "__init__" not in name:
            found.append(process)
    return found


@contextmanager
def once(condition: Callable[[], bool], act: Callable[[], None], timeout_s: float = 180) -> Iterator[None]:
    """Runs `act` in another thread as soon as `condition` holds while the block runs; fails if it never did."""
    errors: list[BaseException] = []

    def watch() -> None:
        try:
            wait_for(condition, "what the fault waits for", timeout_s)
            act()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield
    thread.join(timeout_s)
    assert not errors, errors


def kill(process: psutil.Process, number: signal.Signals = signal.SIGKILL) -> None:
    os.kill(process.pid, number)


def every_fault(probability: float) -> list[Rule]:
    """Each kind of fault, of any request, with this probability."""
    kinds = ("status", "reset", "reset_mid", "close_mid", "short", "after_status", "after_reset")
    return [
        *(Rule(kind, times=None, probability=probability) for kind in kinds),
        Rule("short", times=None, probability=probability, fraction=0),
        Rule("flip", "GetObject|PutObject", times=None, probability=probability),  # nothing guards a listing but TLS
    ]
