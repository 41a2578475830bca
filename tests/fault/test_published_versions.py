"""A run that publishes its commits is killed at random moments, on S3 behind the fault proxy, over an input that changes: every
version of the table that a reader can see has no document twice, and committed ones only; the last one has all."""

import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from jobs.config import JobConfig, check_config
from jobs.maintenance.verify import verify
from pipeline_ops.output.commit_log import read_ledger
from tests.conftest import Bucket
from tests.fault.conftest import every_fault
from tests.servers.s3_server import S3Server
from tests.support.running import (
    command_in_own_process,
    job_settings,
    keys,
    kill_group,
    start_command,
    wait_for,
    write_job_file,
)
from tests.support.table_readers import READERS, Published, all_versions, by_labels, newest_version, paths_of, rows_of

SEED = 20261130
TIMEOUT_S = 300
FILES, ROWS = 8, 40
LONGEST = 60  # puts of a run, at the most, before it is killed


@dataclass
class Watched:
    """An output that is published, and what has been seen of it.

    Attributes:
        committed: paths of all files that commits have named so far.
        seen: versions that a reader has seen while runs went, and how many documents each had.
    """

    bucket: Bucket
    job: JobConfig
    published: Published
    rng: random.Random
    contents: dict[str, int] = field(default_factory=dict)  # {file name: number of its version}
    committed: set[str] = field(default_factory=set)
    seen: dict[int, int] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return self.job.output.table

    def write_file(self, name: str) -> None:
        version = self.contents[name] = self.contents.get(name, 0) + 1
        lines = [json.dumps({"text": f"document {row} of {name} says something", "version": version}) for row in range(ROWS)]
        self.bucket.filesystem.pipe_file(f"{self.bucket.name}/in/{name}", "\n".join(lines).encode())

    def puts(self) -> int:
        return len(self.bucket.journal.requests("PutObject", "out/.*"))

    def look_at_commits(self) -> None:
        """Nothing commits while this is called, or what it commits is not replaced before the next call."""
        store = self.job.output_store
        self.committed |= {file.path for commit in read_ledger(store).current.values() for file in commit.files}

    def check_version(self, version: int) -> int:
        """Asserts that a reader of this version sees no document twice, and committed ones only; returns how many it sees."""
        paths = paths_of(self.kind, self.published, version)
        if not paths <= self.committed:
            self.look_at_commits()
        assert paths <= self.committed, f"version {version} has files that are not committed: {paths - self.committed}"
        rows = rows_of(self.kind, self.published, version, ["source_file", "source_row", "version"])
        twice = [key for key, count in Counter((file, row) for file, row, _ in rows).items() if count > 1]
        assert not twice, f"version {version} has documents twice: {twice[:3]}"
        versions = {(file, version) for file, _, version in rows}
        assert len(versions) == len({file for file, _ in versions}), f"version {version} has two versions of an input file"
        return len(rows)

    @contextmanager
    def reader(self) -> Iterator[None]:
        """Another program that reads each version as soon as it is there, as long as the block runs."""
        stop, errors = threading.Event(), []

        def read() -> None:
            try:
                while not stop.wait(0.05):
                    version = newest_version(self.kind, self.published)
                    if version is not None and version not in self.seen:
                        self.seen[version] = self.check_version(version)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(TIMEOUT_S)
        assert not errors, errors


def kill_at(watched: Watched, job_file: Path, puts: int) -> bool:
    """Kills a run after so many puts; False: it ended before."""
    before = watched.puts()
    process = start_command("run", job_file, "--quiet", "--no-report")
    try:
        wait_for(lambda: watched.puts() >= before + puts or process.poll() is not None, "its puts", TIMEOUT_S)
        landed = process.poll() is None
        process.kill()
        stderr = process.communicate()[1]
    finally:
        kill_group(process)
    assert landed or process.returncode == 0, stderr
    return landed


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("kind", "kills"),
    [
        pytest.param("delta", 1, marks=pytest.mark.slow),
        pytest.param("delta", 20, marks=pytest.mark.campaign),
        pytest.param("iceberg", 20, marks=pytest.mark.campaign),
    ],
)
def test_each_version_of_a_run_that_is_killed_at_random_moments_has_no_document_twice(
    s3: Bucket, s3_server: S3Server, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, kills: int
):
    settings = job_settings(
        f"{s3.url}/in",
        model,
        f"{s3.url}/out",
        f"storage.endpoint_url={s3.endpoint_url}",
        "compute.unit_bytes=600",
        "output.partition_by=[label]",
        f"output.table={kind}",
        "output.publish_seconds=0.5",
    )
    for pool in ("tokenizers", "classifiers"):  # in one process
        del settings["compute"][pool]
    published = Published(f"{s3.url}/out", s3_server.endpoint_url)
    if kind == "iceberg":
        published = Published(published.path, published.endpoint_url, f"sqlite:///{tmp_path}/catalog.db")
        settings["output"]["catalog"] = {"table": "labels.out", "uri": published.catalog_uri}
    job_file = write_job_file(tmp_path / "job.yaml", settings)
    here = settings | {"storage": {"endpoint_url": s3_server.endpoint_url}}  # the test's requests meet no faults
    watched = Watched(s3, check_config(JobConfig, here), published, random.Random(SEED))
    for number in range(FILES):
        watched.write_file(f"{number}.jsonl")
    s3.proxy.fail(*every_fault(0.002))
    killed = finished = 0
    with watched.reader():
        while killed < kills:
            landed = kill_at(watched, job_file, watched.rng.randrange(1, LONGEST))
            watched.look_at_commits()
            killed += landed
            finished += not landed
            if not landed or watched.rng.random() < 0.3:  # files that change while their units are half done, too
                for name in watched.rng.sample(sorted(watched.contents), 3):
                    watched.write_file(name)
                watched.write_file(f"{len(watched.contents)}.jsonl")
        ended = command_in_own_process("run", job_file, "--quiet", "--no-report", timeout_s=TIMEOUT_S)
    assert ended.code == 0, ended.stderr
    faults = s3.journal.faults()
    s3.proxy.heal()
    versions = all_versions(kind, published)
    documents = [watched.check_version(version) for version in versions]
    assert len(versions) > kills
    assert watched.seen.keys() <= {*versions}
    expected = [key for name in watched.contents for key in keys(f"{s3.url}/in/{name}", ROWS)]
    rows = by_labels(published).to_pylist()
    assert [(row["source_file"], row["source_row"]) for row in rows] == sorted(expected)
    for name, read in READERS[kind].items():
        assert read(published).to_pylist() == rows, name
    assert verify(watched.job, deep=True)["ok"]
    report: dict[str, Any] = {
        "kills": killed,
        "runs that ended before": finished,
        "versions": len(versions),
        "seen while runs went": len(watched.seen),
        "documents of the versions": documents,
        "faults of the store": dict(faults),
    }
    with capsys.disabled():
        print(f"\n{json.dumps(report)}")
