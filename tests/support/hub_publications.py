"""Outputs that are published to the stand-in of the hub, and what its repositories have to hold."""

import io
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from jobs.config import load_job
from jobs.results.labels import labels
from tests.servers.hub_server import HubServer
from tests.support.corpora import write_jsonl
from tests.support.running import (
    Finished,
    command,
    job_settings,
    write_job_file,
)
from tests.support.serial_chain import run_serially

FILES, ROWS = 3, 12
NAME = "user/labels"
HAND_WRITTEN = "---\nlicense: mit\n---\n# Mine\n\nWritten by hand.\n"


def text(file: int, row: int) -> str:
    return f"document {row} of file {file}: {'good' if (file + row) % 3 else 'bad'} number {7919 * row % 97}"


def write_file(folder: Path, number: int, rows: int = ROWS, reject: bool = False) -> None:
    documents = [{"id": 100 * number + row, "text": text(number, row), "tags": ["a", str(row)]} for row in range(rows)]
    write_jsonl(folder / f"f{number}.jsonl", [*documents, *([{"id": -1, "text": None}] if reject else [])])


def label_files(folder: Path, model: Path, *overrides: str) -> Path:
    """Labels FILES files, two units each; returns the job file."""
    for number in range(FILES):
        write_file(folder / "corpus", number, reject=number == 0)
    job_file = write_job_file(
        folder / "job.yaml", job_settings(folder / "corpus", model, folder / "out", "compute.unit_bytes=700", *overrides)
    )
    run_serially(load_job(str(job_file), []), quiet=True)
    return job_file


def publish(job_file: Path, *options: str, name: str = NAME) -> Finished:
    finished = command("publish", job_file, "--hub", name, *options)
    assert finished.code == 0, finished.stderr
    return finished


def table_of(files: dict[str, bytes]) -> pa.Table:
    """The rows of a repository's data files."""
    tables = [pq.read_table(io.BytesIO(content)) for path, content in files.items() if path.startswith("data/")]
    return pa.concat_tables(tables) if tables else pa.table({"source_file": [], "source_row": []})


def rows_of(table: pa.Table) -> list[dict]:
    rows = [{**row, "source_file": row["source_file"].rpartition("/")[2]} for row in table.to_pylist()]
    return sorted(rows, key=lambda row: (row["source_file"], row["source_row"]))


def check_same_rows(files: dict[str, bytes], output: Path) -> None:
    """Asserts that a repository has exactly the committed rows, with the same columns and types."""
    published, committed = table_of(files), labels(str(output), "arrow").to_table()
    assert published.schema.remove_metadata() == committed.schema
    assert rows_of(published) == rows_of(committed)


def check_each_commit(server: HubServer, name: str = NAME) -> list[set[tuple[str, int]]]:
    """Asserts that no commit has a document twice; returns the documents of each."""
    repository, found = server.repositories[name], []
    for sha in repository.log:
        counts = Counter((row["source_file"], row["source_row"]) for row in rows_of(table_of(server.files(name, sha))))
        assert max(counts.values(), default=1) == 1
        found.append(set(counts))
    return found


def card_of(server: HubServer, revision: str = "main", name: str = NAME) -> tuple[dict, str]:
    """(metadata, text) of the card."""
    _, front, body = server.files(name, revision)["README.md"].decode().split("---\n", 2)
    return yaml.safe_load(front), body
