"""A finished job that several tests look at; those that change its output take a copy."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from jobs.config import JobConfig
from tests.support.corpora import real_documents, write_jsonl, write_parquet
from tests.support.invariant import Key
from tests.support.running import Finished, command, job_settings, keys, make_job, write_job_file

NUM_DOCUMENTS = 120
REJECTED = 2


@dataclass(frozen=True)
class FinishedJob:
    """A corpus of one schema in two formats, labeled by the command."""

    source: Path
    model: Path
    output: Path
    job_file: Path
    expected: list[Key]
    texts: dict[Key, str]
    finished: Finished

    @property
    def result(self) -> dict[str, Any]:
        return self.finished.result

    def job(self, output: Path, *overrides: str) -> JobConfig:
        """The same job for a copy of the output."""
        return make_job(self.source, self.model, output, *overrides)


@pytest.fixture(scope="session")
def finished_job(ray_address: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedJob:
    folder = tmp_path_factory.mktemp("finished")
    rows = [
        {"id": f"{index:03}", "text": text, "views": index, "ratio": index / 7, "seen": index % 2 == 0}
        for index, text in enumerate(real_documents(NUM_DOCUMENTS))
    ]
    parquet, lines = folder / "in" / "first.parquet", folder / "in" / "more" / "second.jsonl.zst"
    write_parquet(parquet, pa.Table.from_pylist(rows[:70]), row_group_size=20)
    write_jsonl(lines, [*rows[70:], *({"id": f"r{index}", "text": None} for index in range(REJECTED))])
    job_file = write_job_file(folder / "job.yaml", job_settings(folder / "in", model, folder / "out"))
    finished = command("run", job_file)
    assert finished.code == 0, finished.stderr
    texts = {(str(parquet), index): row["text"] for index, row in enumerate(rows[:70])}
    texts |= {(str(lines), index): row["text"] for index, row in enumerate(rows[70:])}
    expected = keys(parquet, 70) + keys(lines, NUM_DOCUMENTS - 70 + REJECTED)
    return FinishedJob(folder / "in", model, folder / "out", job_file, expected, texts, finished)
