"""Measures what it costs to plan over many inputs and commits, by hand: python -m tests.performance.planning_run FOLDER [--s3].

For each size: that many input objects of one line each, and two outputs in which each has a commit, as runs leave them: one
with records that stand alone (`loose`: a run that died) and one with a pack of them (`packed`: one that ended). Then 1 % of
the inputs change, and 1 % more come. Seconds and memory are of fresh processes: one does prepare(), another one its parts,
and `garbage`, which `run` does on top. The peak is VmHWM: ru_maxrss begins with what the parent used. With --s3 the server's
seconds of CPU are separate, and moto lists from a sorted index: its own way is to look at every key for every page.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from jobs.config import JobConfig, check_config
from jobs.run.job_record import job_record
from jobs.run.prepare import prepare
from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.inputs.listing import find_inputs
from pipeline_ops.models.resolve import resolve_model
from pipeline_ops.output.commit_log import COMMITS_FOLDER, Ledger, garbage_files, read_job, read_ledger, write_job, write_pack
from pipeline_ops.output.failed_units import read_failures
from pipeline_ops.planning.work_plan import make_plan
from pipeline_ops.reading.input_schema import sample_columns
from pipeline_ops.schema.units import Piece
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.store import Store
from pipeline_ops.writing.commit_record import Commit, WrittenFile

SIZES = (1_000, 10_000, 100_000)
LAYOUTS = ("loose", "packed")
FILES_PER_FOLDER = 1_000
CHANGED_OR_NEW = 100  # one in so many
LABELS = ("NEGATIVE", "POSITIVE")
RUN = "0123456789ab"
START_TIMEOUT_S = 60
# "BUCKET FOLDER" on a line of its stdin: it takes every file below FOLDER, without 100,000 requests
RUN_MOTO = """
import bisect, os, sys, threading
from moto.s3.models import S3Backend, s3_backends
from moto.server import main

by_name, list_objects_v2 = {}, S3Backend.list_objects_v2

def list_indexed(self, bucket, prefix, delimiter, continuation_token, start_after, max_keys):
    if delimiter:
        return list_objects_v2(self, bucket, prefix, delimiter, continuation_token, start_after, max_keys)
    if bucket.name not in by_name or len(by_name[bucket.name]) != len(bucket.keys):
        by_name[bucket.name] = sorted(bucket.keys)
    names, prefix = by_name[bucket.name], prefix or ""
    after = self._pagination_tokens.get(continuation_token) if continuation_token else start_after
    begin = max(bisect.bisect_left(names, prefix), bisect.bisect_right(names, after) if after else 0)
    page = [name for name in names[begin : begin + max_keys + 1] if name.startswith(prefix)]
    return self._truncate_result([bucket.keys[name] for name in page], max_keys)

def load():
    backend = s3_backends["123456789012"]["aws"]
    for line in sys.stdin:
        bucket, folder = line.split()
        if bucket not in backend.buckets:
            backend.create_bucket(bucket, "us-east-1")
        for parent, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(parent, name)
                with open(path, "rb") as file:
                    backend.put_object(bucket, os.path.relpath(path, folder), file.read(), disable_notification=True)
        print("loaded", flush=True)

S3Backend.list_objects_v2 = list_indexed
threading.Thread(target=load, daemon=True).start()
main(["-H", "127.0.0.1", "-p", "0"])
"""


def input_line(number: int, version: int = 0) -> bytes:
    return json.dumps({"text": f"document {number}", "version": version}).encode() + b"\n"


def input_path(number: int) -> str:
    return f"part-{number // FILES_PER_FOLDER:04}/{number:07}.jsonl"


def write_input(folder: Path, number: int, version: int = 0) -> None:
    path = folder / input_path(number)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(input_line(number, version))


def commit_of(file: InputFile) -> Commit:
    """A record of the usual size: two files, though one line gives one."""
    unit = hashlib.sha256(file.path.encode()).hexdigest()[:24]
    attempt = hashlib.sha256(unit.encode()).hexdigest()[:12]
    files = tuple(
        WrittenFile(f"label={label}/{unit}-{attempt}.parquet", 1, 0, hashlib.md5(label.encode()).hexdigest())
        for label in LABELS
    )
    piece = Piece(file.path, file.stored.identity, 0, 1, True, 0, file.stored.size)
    return Commit(unit, attempt, (piece,), files, None, 2, 0, 12, 16, 0, dict.fromkeys(LABELS, 1), run=RUN, term=1)


def write_output(job: JobConfig, layout: str, folder: Path) -> None:
    """An output in which every input file has a commit; what the product has no function for goes into a local folder."""
    prepared = prepare(job)
    output = prepared.job.output.path
    commits = {commit.unit: commit for commit in map(commit_of, prepared.files)}
    for label in LABELS:
        (folder / f"label={label}").mkdir(parents=True)
    for commit in commits.values():
        for file in commit.files:
            (folder / file.path).touch()
    if layout == "packed":
        write_pack(Store(output, job.storage), Ledger(commits), 1)
    else:
        (folder / COMMITS_FOLDER).mkdir()
        for unit, commit in commits.items():
            (folder / COMMITS_FOLDER / f"{unit}.json").write_text(commit.to_json())
    write_job(Store(output, job.storage), job_record(prepared, ["float32"], RUN))


def write_inputs(folder: Path, number_of_files: int) -> None:
    for number in range(number_of_files):
        write_input(folder, number)


def change_inputs(folder: Path, number_of_files: int) -> None:
    for number in range(0, number_of_files, CHANGED_OR_NEW):
        write_input(folder, number, version=1)
    for number in range(number_of_files, number_of_files + number_of_files // CHANGED_OR_NEW):
        write_input(folder, number)


def memory_mebibytes(key: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {key}")


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure_prepare(job: JobConfig) -> dict[str, Any]:
    """In a fresh process: seconds and peak memory of what `plan` and the beginning of `run` do."""
    before, started, cpu = memory_mebibytes("VmHWM"), time.monotonic(), cpu_seconds()
    prepared = prepare(job)
    plan = prepared.plan
    return {
        "seconds": time.monotonic() - started,
        "cpu_seconds": cpu_seconds() - cpu,
        "mebibytes_before": before,
        "peak_mebibytes": memory_mebibytes("VmHWM"),
        "files": plan.files,
        "commits": len(prepared.ledger.commits),
        "files_done": plan.files_done,
        "files_changed": len(plan.changed),
        "tasks": len(plan.tasks),
    }


def measure_parts(job: JobConfig) -> dict[str, Any]:
    """In a fresh process: [seconds, seconds of CPU] of the parts of prepare, one after the other, then of `run`'s `garbage`."""
    taken: dict[str, list[float]] = {}

    def timed(name: str, part: Callable[[], Any]) -> Any:
        started, cpu = time.monotonic(), cpu_seconds()
        result = part()
        taken[name] = [round(time.monotonic() - started, 2), round(cpu_seconds() - cpu, 2)]
        return result

    files, _ = timed("inputs", lambda: find_inputs(job.input, job.input_store))
    timed("job", lambda: read_job(job.output_store))
    ledger = timed("records", lambda: read_ledger(job.output_store))
    timed("failures", lambda: read_failures(job.output_store))
    plan = timed(
        "plan",
        lambda: make_plan(
            files,
            ledger.commits,
            text_columns=job.input.text_columns,
            output=job.output,
            store=job.input_store,
            unit_bytes=None,
        ),
    )
    left = [span.file for task in plan.tasks for span in task]
    timed("sample", lambda: sample_columns(left, job.input, job.input_store))
    timed("model", lambda: resolve_model(job.named_models()[""], job.storage))
    timed("garbage", lambda: garbage_files(job.output_store, ledger, set))
    return {**taken, "peak_mebibytes": memory_mebibytes("VmHWM")}


def in_fresh_process(what: str, job: JobConfig, server: psutil.Process | None) -> dict[str, Any]:
    """measure_prepare or measure_parts, and the seconds of CPU that the server used meanwhile."""
    before = sum(server.cpu_times()[:2]) if server else 0.0
    command = [sys.executable, "-m", "tests.performance.planning_run", "--measure", what, "."]
    result = subprocess.run(command, input=job.model_dump_json(), stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(result.stdout.splitlines()[-1])
    if server:
        found["server_cpu_seconds"] = sum(server.cpu_times()[:2]) - before
    return found


class Moto:
    """moto in a process of its own, and a way to put a folder into it without requests."""

    def __init__(self, process: subprocess.Popen[str], endpoint_url: str):
        self.endpoint_url = endpoint_url
        self.process = psutil.Process(process.pid)
        self._process = process

    def load(self, bucket: str, folder: Path) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{bucket} {folder}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "loaded\n"


@contextmanager
def moto(folder: Path) -> Iterator[Moto]:
    """A server on a free port, for the time of the block; `folder` takes its log."""
    log = folder / "moto.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN_MOTO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stream, text=True
        )
    try:
        yield Moto(process, _announced_address(process, log))
    finally:
        process.kill()
        process.communicate()


def _announced_address(process: subprocess.Popen, log: Path) -> str:
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        for word in log.read_text().split():
            if word.startswith("http://127.0.0.1:"):
                return word
        time.sleep(0.05)
    raise RuntimeError(f"the S3 server did not start; its log: {log.read_text()}")


def make_job(source: str, model: Path, target: str, storage: StorageConfig) -> JobConfig:
    return check_config(
        JobConfig,
        {
            "input": {"path": source},
            "model": {"path": str(model), "dtype": "float32"},
            "output": {"path": target},
            "storage": storage.model_dump(),
        },
    )


def measure_local(folder: Path, model: Path, number_of_files: int, layouts: list[str]) -> Iterator[dict[str, Any]]:
    source = folder / "input"
    write_inputs(source, number_of_files)
    jobs = {layout: make_job(str(source), model, str(folder / layout), StorageConfig()) for layout in layouts}
    for layout, job in jobs.items():
        write_output(job, layout, folder / layout)
    change_inputs(source, number_of_files)
    for layout, job in jobs.items():
        yield {"layout": layout, **measured(job, None)}


def measure_s3(folder: Path, model: Path, number_of_files: int, layouts: list[str]) -> Iterator[dict[str, Any]]:
    source = folder / "input"
    write_inputs(source, number_of_files)
    with moto(folder) as server:
        storage = StorageConfig(endpoint_url=server.endpoint_url, region="us-east-1")
        jobs = {layout: make_job("s3://corpus", model, f"s3://{layout}", storage) for layout in layouts}
        server.load("corpus", source)
        for layout, job in jobs.items():
            output = folder / layout
            output.mkdir()
            server.load(layout, output)
            write_output(job, layout, output)
            server.load(layout, output)
        change_inputs(source, number_of_files)
        server.load("corpus", source)
        for layout, job in jobs.items():
            yield {"layout": layout, **measured(job, server.process)}


def measured(job: JobConfig, server: psutil.Process | None) -> dict[str, Any]:
    whole = in_fresh_process("prepare", job, server)
    parts = in_fresh_process("parts", job, server)
    return {**_rounded(whole), "parts": _rounded(parts)}


def _rounded(numbers: dict[str, Any]) -> dict[str, Any]:
    return {name: round(number, 2) if isinstance(number, float) else number for name, number in numbers.items()}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--s3", action="store_true")
    arguments.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    arguments.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=LAYOUTS)
    arguments.add_argument("--measure", choices=("prepare", "parts"), help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.measure:
        job = check_config(JobConfig, json.load(sys.stdin))
        print(json.dumps({"prepare": measure_prepare, "parts": measure_parts}[options.measure](job)))
        return
    from tests.models.tiny import make_model

    os.environ |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    folder = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    model = make_model(folder / "model")
    for number_of_files in options.sizes:
        place = folder / str(number_of_files)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for found in (measure_s3 if options.s3 else measure_local)(place, model, number_of_files, options.layouts):
            print(json.dumps({"store": "s3" if options.s3 else "local", "commits": number_of_files, **found}), flush=True)
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
