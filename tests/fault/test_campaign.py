"""A fault campaign: runs on S3 that are killed, starved and lied to at random moments, over an input that keeps changing.

After every round the committed state is read as a reader of commits would: no row twice, no named file missing. At the end
everything stands exactly once. The seed decides what happens; when exactly is up to the machine.
"""

import io
import json
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.config import JobConfig, check_config
from jobs.maintenance.verify import verify
from pipeline_ops.output.commit_log import overlaps, pieces_by_file, read_ledger
from pipeline_ops.storage.store import Store
from tests.conftest import Bucket
from tests.fault.conftest import every_fault, worker_processes
from tests.servers.s3_proxy import Rule
from tests.support.corpora import one_line, real_documents
from tests.support.invariant import Key, check_exactly_once
from tests.support.running import command_in_own_process, job_settings, keys, kill_group, start_command, write_job_file

SEED = 20261121
FORMATS = ("jsonl", "parquet", "txt")
STAGES = ("ClassifyActor", "TokenizeActor", "write_task", "read_task")
ROUND_TIMEOUT_S = 150
NOISE = every_fault(0.004)
ACTIONS = ("kill the driver",) * 4 + ("terminate the driver",) + ("kill a worker",) * 3 + ("cut off the store",) * 2


@dataclass
class Campaign:
    """The job, what its input is now, and what has happened."""

    bucket: Bucket
    job_file: Path
    job: JobConfig
    ray_address: str
    rng: random.Random
    rows_per_file: int
    patience: int  # commits of a run, at the most, before something happens to it
    texts: list[str]
    rows: dict[str, int] = field(default_factory=dict)  # documents by file name
    happened: Counter[str] = field(default_factory=Counter)
    recoveries: list[float] = field(default_factory=list)  # seconds from a run's start to its first commit

    @property
    def expected(self) -> list[Key]:
        return [key for name, count in self.rows.items() for key in keys(f"{self.bucket.url}/in/{name}", count)]

    def commits(self) -> int:
        """How many commits have been put since the campaign began."""
        return len(self.bucket.journal.requests("PutObject", "out/_commits/.*"))

    def write_file(self, number: int) -> None:
        """Puts a file of the input, another version of it if there is one."""
        name = f"{number:03}.{FORMATS[number % len(FORMATS)]}"
        documents = self.rng.sample(self.texts, self.rows_per_file - self.rng.randrange(20))
        if name.endswith("parquet"):
            sink = io.BytesIO()
            pq.write_table(pa.table({"text": documents}), sink, row_group_size=100)
            content = sink.getvalue()
        elif name.endswith("jsonl"):
            content = "".join(json.dumps({"text": text}) + "\n" for text in documents).encode()
        else:
            content = "".join(one_line(text) + "\n" for text in documents).encode()
        self.bucket.filesystem.pipe_file(f"{self.bucket.name}/in/{name}", content)
        self.rows[name] = len(documents)

    def start(self) -> Popen[str]:
        return start_command("run", self.job_file, "--quiet", ray_address=self.ray_address)

    def round(self) -> bool:
        """One run, and what happens to it; False when it had finished before."""
        action, before = self.rng.choice(ACTIONS), self.commits()
        wanted = before + self.rng.randrange(1, self.patience)
        started = time.monotonic()
        process = self.start()
        landed = False
        try:
            first = self._wait(process, before + 1)
            if first:
                self.recoveries.append(time.monotonic() - started)
            if first and self._wait(process, wanted):
                self._do(action, process)
                landed = True
                self.happened[action] += 1
            stderr = process.communicate(timeout=ROUND_TIMEOUT_S)[1]
        finally:
            kill_group(process)
            process.communicate()
        self.bucket.proxy.heal()
        self.bucket.proxy.fail(*NOISE)
        self.happened[f"exit {process.returncode}"] += 1
        assert process.returncode in (0, 1, 143, -signal.SIGKILL), stderr
        if process.returncode == 0:  # finished: there has to be more to do
            for number in self.rng.sample(range(len(self.rows)), max(1, len(self.rows) // 2)):
                self.write_file(number)
            self.write_file(len(self.rows))
        return landed

    def _wait(self, process: Popen[str], commits: int) -> bool:
        deadline = time.monotonic() + ROUND_TIMEOUT_S
        while process.poll() is None and time.monotonic() < deadline:
            if self.commits() >= commits:
                return True
            time.sleep(0.05)
        return False

    def _do(self, action: str, process: Popen[str]) -> None:
        if action == "kill the driver":
            process.kill()
        elif action == "terminate the driver":
            process.terminate()
        elif action == "cut off the store":
            self.bucket.proxy.fail(Rule("status", times=None, status=503, code="SlowDown"))
        else:
            workers = [one for stage in STAGES for one in worker_processes(stage)]
            for worker in self.rng.sample(workers, min(1, len(workers))):
                try:
                    worker.kill()
                except psutil.NoSuchProcess:
                    self.happened["worker was gone"] += 1

    def check_committed(self) -> None:
        """What a reader of commits sees now: nothing twice, nothing named that is not there."""
        storage = self.job.storage
        current = read_ledger(Store(self.job.output.path, storage)).current
        for pieces in pieces_by_file(current.values()).values():
            assert overlaps(pieces) == []
            assert len({piece.identity for piece in pieces}) == 1, "two versions of one file"
        output = f"{self.bucket.name}/out"
        there = {path.removeprefix(f"{output}/") for path in self.bucket.filesystem.find(output)}
        named = {file.path for commit in current.values() for file in commit.all_files()}
        assert named <= there, "lost files"


@pytest.mark.parametrize(
    ("rounds", "files", "rows"),
    [
        pytest.param(3, 6, 300, id="short", marks=pytest.mark.campaign),
        pytest.param(30, 45, 500, id="full", marks=[pytest.mark.campaign, pytest.mark.timeout(3600)]),
    ],
)
def test_campaign_of_random_faults_loses_and_doubles_nothing(
    ray_address: str,
    s3: Bucket,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    rounds: int,
    files: int,
    rows: int,
):
    settings: dict[str, Any] = job_settings(
        f"{s3.url}/in",
        model,
        f"{s3.url}/out",
        "compute.unit_bytes=12000",
        f"storage.endpoint_url={s3.endpoint_url}",
        "output.lease_seconds=20",
    )
    texts = [text[:200] for text in real_documents(4000, seed=8)]
    campaign = Campaign(
        s3,
        write_job_file(tmp_path / "job.yaml", settings),
        check_config(JobConfig, settings),
        ray_address,
        random.Random(SEED),
        rows,
        files,
        texts,
    )
    for number in range(files):
        campaign.write_file(number)
    s3.journal.clear()
    s3.proxy.fail(*NOISE)
    landed = 0
    for _ in range(3 * rounds):
        landed += campaign.round()
        s3.proxy.heal()
        campaign.check_committed()
        s3.proxy.fail(*NOISE)
        if landed == rounds:
            break
    faults = s3.journal.faults()
    s3.proxy.heal()
    assert landed == rounds
    finished = command_in_own_process(
        "run", campaign.job_file, "--quiet", "--retry-failed", ray_address=ray_address, timeout_s=280
    )
    assert finished.code == 0, finished.stderr
    check_exactly_once(f"{s3.name}/out", campaign.expected, s3.filesystem)
    assert verify(campaign.job, deep=True)["ok"]
    report = {
        "seed": SEED,
        "rounds": rounds,
        "documents": len(campaign.expected),
        "units": finished.result["units"],
        "happened": dict(campaign.happened),
        "faults of the store": dict(faults),
        "lost": 0,
        "doubled": 0,
        "longest recovery in seconds": round(max(campaign.recoveries, default=0), 1),
    }
    with capsys.disabled():
        print(f"\n{json.dumps(report)}")
