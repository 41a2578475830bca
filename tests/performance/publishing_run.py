"""Measures what it costs to publish many committed files, by hand: python -m tests.performance.publishing_run FOLDER.

An output of that many committed files, as runs leave them, is published as a table: the first time, once more with nothing
new, and after 1 % of its commits were replaced; each by `label-corpus publish` in a fresh process. Seconds are of the command,
without imports; the peak is VmHWM, and `mebibytes_before` what the imports take of it. All files have the same two rows.
"""

import argparse
import hashlib
import io
import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.cli.app import execute
from jobs.config import JobConfig, check_config
from jobs.run.job_record import job_record
from jobs.run.prepare import prepare
from pipeline_ops.output.commit_log import Ledger, read_ledger, write_job, write_pack
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.store import Store
from tests.performance.planning_run import LABELS, RUN, commit_of, cpu_seconds, make_job, memory_mebibytes, write_inputs
from tests.support.running import write_job_file

FORMATS = ("delta", "iceberg")
REPLACED = 100  # one commit in so many


def published_job(folder: Path, kind: str) -> JobConfig:
    job = make_job(str(folder / "input"), folder / "model", str(folder / f"out_{kind}"), StorageConfig())
    settings = job.model_dump(mode="json", exclude_defaults=True)
    settings["output"]["table"] = kind
    return check_config(JobConfig, settings)


def write_labeled(job: JobConfig) -> None:
    """An output in which every input file has a commit of a file for each label."""
    prepared, output = prepare(job), job.output_store
    rows = {"text": ["one", "two"], "version": [0, 0], "source_file": ["a", "b"], "source_row": [0, 0]}
    labeled = pa.table(rows).append_column("score", pa.array([0.5, 0.6], pa.float32()))
    sink = io.BytesIO()
    pq.write_table(labeled, sink)
    content = sink.getvalue()
    written = {"rows": 2, "bytes": len(content), "md5": hashlib.md5(content).hexdigest()}
    for label in LABELS:
        Path(output.join(f"label={label}")).mkdir(parents=True)
    commits = {}
    for commit in map(commit_of, prepared.files):
        files = tuple(replace(file, **written) for file in commit.files)
        for file in files:
            Path(output.join(file.path)).write_bytes(content)
        commits[commit.unit] = replace(commit, files=files, schema="the same of all")
    write_pack(output, Ledger(commits), 1)
    write_job(output, job_record(prepared, ["float32"], RUN))


def replace_some(store: Store) -> int:
    """Puts a pack in which every so many commits have other files; returns how many."""
    commits = read_ledger(store).commits
    chosen = [commit for number, commit in enumerate(commits.values()) if number % REPLACED == 0]
    for commit in chosen:
        files = tuple(replace(file, path=file.path.replace(commit.attempt, "f" * len(commit.attempt))) for file in commit.files)
        for earlier, later in zip(commit.files, files, strict=True):
            shutil.copy(store.join(earlier.path), store.join(later.path))
        commits[commit.unit] = replace(commit, attempt="f" * len(commit.attempt), files=files)
    write_pack(store, Ledger(commits), 2)
    return len(chosen)


def measure(job_file: str) -> dict[str, Any]:
    """In a fresh process: what `label-corpus publish` takes."""
    before, started, cpu = memory_mebibytes("VmHWM"), time.monotonic(), cpu_seconds()
    code = execute(["publish", job_file])
    return {
        "code": code,
        "seconds": round(time.monotonic() - started, 2),
        "cpu_seconds": round(cpu_seconds() - cpu, 2),
        "mebibytes_before": round(before),
        "peak_mebibytes": round(memory_mebibytes("VmHWM")),
    }


def in_fresh_process(job_file: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.performance.publishing_run", "--measure", str(job_file)]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    return {**json.loads(lines[-1]), "published": json.loads(lines[-2])}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--files", type=int, default=100_000)
    arguments.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    arguments.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.measure:
        print(json.dumps(measure(str(options.folder))))
        return
    from tests.models.tiny import make_model

    folder = options.folder.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    make_model(folder / "model")
    write_inputs(folder / "input", options.files // len(LABELS))
    for kind in options.formats:
        job = published_job(folder, kind)
        write_labeled(job)
        job_file = write_job_file(folder / f"{kind}.yaml", job.model_dump(mode="json", exclude_defaults=True))
        for what in ("first", "nothing new", "1 % replaced"):
            if what == "1 % replaced":
                replace_some(job.output_store)
            print(json.dumps({"table": kind, "files": options.files, "what": what, **in_fresh_process(job_file)}), flush=True)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
