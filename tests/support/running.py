"""Jobs as the tests start them: by run() or by the command, in this process or in one of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from jobs.cli.app import execute
from jobs.config import JobConfig, check_config, override

COMMAND_TIMEOUT_S = 120
SMALL_POOLS = ("compute.tokenizers=1", "compute.classifiers=1")  # fits the tests' Ray, and starts fastest


def job_settings(source: object, model: object, target: object, *overrides: str) -> dict[str, Any]:
    """A job file's content: float32 and one actor of each kind, then `key.sub=value` overrides."""
    settings: dict[str, Any] = {
        "input": {"path": str(source)},
        "model": {"path": str(model), "dtype": "float32"},
        "output": {"path": str(target)},
    }
    for setting in (*SMALL_POOLS, *overrides):
        override(settings, setting)
    return settings


def make_job(source: object, model: object, target: object, *overrides: str) -> JobConfig:
    return check_config(JobConfig, job_settings(source, model, target, *overrides))


def write_job_file(path: Path, settings: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(settings)))
    return path


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def result(self) -> dict[str, Any]:
        """The JSON object on the last line of stdout."""
        return json.loads(self.stdout.splitlines()[-1])

    @property
    def error_lines(self) -> list[str]:
        return self.stderr.splitlines()


def command(*arguments: object, environment: Mapping[str, str] | None = None) -> Finished:
    """Runs `label-corpus ARGUMENTS` in this process.

    A command that needs Ray takes the tests' (fixture `ray_address`), or starts one of its own for its time. What child
    processes and C++ write past Python is not in the result.

    Args:
        environment: variables for the time of the command, in addition to this process's.
    """
    import torch  # noqa: F401  # some commands import transformers without torch, and it stays so in a process

    out, err = StringIO(), StringIO()
    started = time.monotonic()
    with redirect_stdout(out), redirect_stderr(err), mock.patch.dict(os.environ, environment or {}):
        code = execute([*map(str, arguments)])
    return Finished(code, out.getvalue(), err.getvalue(), time.monotonic() - started)


def command_in_own_process(
    *arguments: object,
    ray_address: str | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = COMMAND_TIMEOUT_S,
) -> Finished:
    """Runs `label-corpus ARGUMENTS` as a user does; on the Ray at `ray_address`, or on one of its own if it needs one."""
    started = time.monotonic()
    process = start_command(*arguments, ray_address=ray_address, environment=environment)
    try:
        stdout, stderr = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        kill_group(process)
        raise
    return Finished(process.returncode, stdout, stderr, time.monotonic() - started)


def start_command(
    *arguments: object,
    ray_address: str | None = None,
    environment: Mapping[str, str] | None = None,
    module: str = "jobs.cli",
) -> subprocess.Popen[str]:
    """Starts `label-corpus ARGUMENTS` as the leader of a process group, as a shell does.

    Args:
        environment: what a cluster wants its drivers to have in theirs, beside this process's.
        module: what is run in place of the command.
    """
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | ({"RAY_ADDRESS": ray_address} if ray_address else {}) | dict(environment or {}),
        start_new_session=True,
        # a shell makes its background jobs ignore Ctrl-C, and children inherit that: the tests may be such a job
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@contextmanager
def running_command(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A command on a Ray of its own that is stopped when the block is left, whatever happened in it."""
    process = start_command(*arguments)
    try:
        yield process
    finally:
        kill_group(process)
        process.communicate()


def kill_group(process: subprocess.Popen[Any]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float) -> None:
    """Polls `condition` until it holds; fails with `what` when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        time.sleep(0.02)


def keys(path: object, rows: int | Iterable[int]) -> list[tuple[str, int]]:
    """(source_file, source_row) of a file's documents: of that many, or of those rows."""
    return [(str(path), row) for row in (range(rows) if isinstance(rows, int) else rows)]


def output_files(output: object, filesystem: AbstractFileSystem | None = None) -> list[str]:
    """Every file below the output folder, sorted."""
    return sorted((filesystem or LocalFileSystem()).find(str(output)))


def commit_paths(output: Path) -> list[Path]:
    return sorted((output / "_commits").glob("*.json"))


def committed_files(output: Path) -> list[Path]:
    """The labeled files that the commits name."""
    commits = [json.loads(path.read_text()) for path in commit_paths(output)]
    return [output / file["path"] for commit in commits for file in commit["files"]]


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """{path: (size, modification time)} of every file below a local folder."""
    stats = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {str(path): (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}


def labeled_of(output: Path, source: Path) -> pa.Table:
    """The labeled rows of one input file with all columns and types that their files have, in the file's order."""
    tables = []
    for path in sorted(output.glob("**/*.parquet")):
        table = pq.ParquetFile(path).read()
        rows = table.filter(pa.array([name == str(source) for name in table["source_file"].to_pylist()]))
        if rows.num_rows:
            for part in path.relative_to(output).parts[:-1]:
                name, _, value = part.partition("=")
                rows = rows.append_column(name, pa.repeat(value, rows.num_rows))
            tables.append(rows)
    assert len({tuple(table.schema) for table in tables}) == 1, "the files of one input have one schema"
    return pa.concat_tables(tables).sort_by("source_row")


def by_key(labeled: pa.Table, columns: Sequence[str]) -> dict[tuple[str, int], tuple]:
    """{(source file's name, row): the values of `columns`}; names without folders, to compare outputs of moved inputs."""
    files = [name.rsplit("/", 1)[-1] for name in labeled["source_file"].to_pylist()]
    values = zip(*(labeled[column].to_pylist() for column in columns), strict=True)
    found = dict(zip(zip(files, labeled["source_row"].to_pylist(), strict=True), values, strict=True))
    assert len(found) == labeled.num_rows
    return found
