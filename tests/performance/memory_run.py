"""Measures the memory of a run over one large file, by hand: python -m tests.performance.memory_run FOLDER [--gigabytes 2].

Writes a .jsonl.zst, and a Parquet file with a single row group, of that many bytes uncompressed; labels each with a tiny model
and samples the private memory (Private_Clean + Private_Dirty in /proc/PID/smaps) of every process of the run. Ray's object
store is counted apart: it is one shared file, whose pages the kernel calls private while a single process has touched them.
"""

import argparse
import json
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from tests.models.tiny import make_model

TEXT_CHARACTERS, PAYLOAD_CHARACTERS = 1_000, 9_000  # most of a real record is not its text
ROWS_PER_BATCH = 2_000
SAMPLE_SECONDS = 0.2
KINDS = ("private", "object store", "of it first")


def batches(total_bytes: int):
    """Record batches of random words; about 10 kB a row."""
    generator = np.random.default_rng(0)
    words = np.array([f"w{number:04}" for number in range(5_000)])
    for start in range(0, total_bytes // (TEXT_CHARACTERS + PAYLOAD_CHARACTERS), ROWS_PER_BATCH):
        lengths = TEXT_CHARACTERS // 6, PAYLOAD_CHARACTERS // 6
        columns = [[" ".join(row) for row in generator.choice(words, (ROWS_PER_BATCH, length))] for length in lengths]
        ids = np.arange(start, start + ROWS_PER_BATCH)
        yield pa.record_batch({"id": ids, "text": columns[0], "payload": columns[1]})


def write_inputs(folder: Path, total_bytes: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    lines, table = folder / "large.jsonl.zst", folder / "large.parquet"
    if not lines.exists():
        with pa.CompressedOutputStream(str(lines), "zstd") as stream:
            for batch in batches(total_bytes):
                stream.write("".join(json.dumps(row) + "\n" for row in batch.to_pylist()).encode())
    if not table.exists():
        everything = pa.Table.from_batches(batches(total_bytes))
        pq.write_table(everything, table, row_group_size=everything.num_rows, compression="zstd")
    return [table, lines]


def memory_mebibytes(process: psutil.Process) -> dict[str, float]:
    """MiB by kind: `private` is what ends with the process, its heap above all; `object store` is all that it has touched of
    Ray's file, whether other processes have as well or not; `of it first` are those pages that no other process has touched."""
    kinds: dict[str, float] = dict.fromkeys(KINDS, 0.0)
    in_store = False
    for line in Path(f"/proc/{process.pid}/smaps").read_text().splitlines():
        first, *fields = line.split()
        if not first.endswith(":"):  # a mapping begins: addresses, permissions, offset, device, inode, path
            in_store = len(fields) > 4 and fields[4].startswith("/dev/shm/")
        elif first.startswith("Private_"):
            kinds["of it first" if in_store else "private"] += int(fields[0]) / 1024
        elif first == "Rss:" and in_store:
            kinds["object store"] += int(fields[0]) / 1024
    return kinds


def measure(job: Path, source: Path, output: Path) -> dict[str, dict[str, int]]:
    """Runs the job; returns the peaks in MiB by kind of process, and the driver's in the second and the last quarter."""
    command = [sys.executable, "-m", "jobs.cli", "run", str(job), f"input.path={source}", f"output.path={output}"]
    run = psutil.Popen(command, stdout=subprocess.PIPE)
    peaks: dict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(KINDS, 0.0))
    driver: list[float] = []
    while run.poll() is None:
        for process in [run, *run.children(recursive=True)]:
            try:
                name = "driver" if process.pid == run.pid else process.cmdline()[0].split()[0]
                used = memory_mebibytes(process)
            except (psutil.NoSuchProcess, psutil.ZombieProcess, FileNotFoundError, ProcessLookupError, IndexError):
                continue  # it ended meanwhile
            peaks[name] = {kind: max(peak, used[kind]) for kind, peak in peaks[name].items()}
            if process.pid == run.pid:
                driver.append(used["private"])
        time.sleep(SAMPLE_SECONDS)
    assert run.returncode == 0, f"exit {run.returncode}"
    quarter = len(driver) // 4
    for name, samples in (("second", driver[quarter : 2 * quarter]), ("last", driver[-quarter:])):
        peaks[f"driver, {name} quarter"] = {"private": max(samples)}
    by_size = sorted(peaks.items(), key=lambda item: -item[1]["private"])
    return {name: {kind: round(peak) for kind, peak in kinds.items()} for name, kinds in by_size}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--gigabytes", type=float, default=2)
    options = arguments.parse_args()
    inputs = write_inputs(options.folder / "input", int(options.gigabytes * 10**9))
    model = make_model(options.folder / "model")
    job = options.folder / "job.yaml"
    on_ray = {"tokenizers": 1}  # a job that names its pools
    job.write_text(
        json.dumps({"input": {"path": "-"}, "model": {"path": str(model)}, "output": {"path": "-"}, "compute": on_ray})
    )
    for source in inputs:
        peaks = measure(job, source, options.folder / f"output-{source.name}-{time.time_ns()}")
        print(json.dumps({"input": source.name, "peak_mebibytes": peaks}), flush=True)


if __name__ == "__main__":
    main()
