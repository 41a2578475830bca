"""The published table as engines read it, against labels(): after runs and while they go, whatever labels are called."""

import datetime
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import load_dataset

from jobs.executors.executor import UnitStream
from jobs.maintenance.verify import verify
from tests.conftest import Bucket
from tests.fault.conftest import every_fault
from tests.models import tiny
from tests.servers.s3_server import S3Server
from tests.support.corpora import real_documents, write_jsonl, write_parquet
from tests.support.running import job_settings, make_job
from tests.support.serial_chain import SerialExecutor, run_serially
from tests.support.table_readers import KEY, READERS, Published, by_labels, delta_table, in_order

pytestmark = pytest.mark.slow

LABELS = ("0", "a/b", "x=y %2F", "ünï +?#")  # numbers to those that guess, and names that no folder can have
YEARS = (2023, 2024, None)
EVERY_COMMIT = "output.publish_seconds=0.000001"


@dataclass(frozen=True)
class Watched(SerialExecutor):
    """Calls `look` after each commit of the run, while it goes."""

    look: Callable[[], None] = field(default=lambda: None)

    def stream_units(self, units: UnitStream) -> Generator[dict[str, Any], None, None]:
        for row in super().stream_units(units):
            yield row
            self.look()


@pytest.fixture(scope="module")
def model_with_odd_labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("odd") / "model", "bert", labels=LABELS)


def documents(count: int, seed: int) -> pa.Table:
    """Columns of many kinds, and a year to partition by."""
    return pa.table(
        {
            "text": [text[:200] for text in real_documents(count, seed)],
            "year": pa.array([YEARS[row % len(YEARS)] for row in range(count)], pa.int32()),
            "inside": pa.array(
                [{"n": row, "names": ["a", None]} if row % 5 else None for row in range(count)],
                pa.struct([("n", pa.int64()), ("names", pa.list_(pa.string()))]),
            ),
            "kind": pa.array([f"kind {row % 3}" for row in range(count)]).dictionary_encode(),
            "day": pa.array([datetime.date(2024, 5, 1 + row % 28) for row in range(count)]),
            "with space": pa.array([row / 3 for row in range(count)], pa.float64()),
        }
    )


def check_readers(kind: str, published: Published) -> list[dict[str, Any]]:
    """Asserts that every engine reads the rows of labels(), and returns these."""
    expected = by_labels(published)
    rows = expected.to_pylist()
    for name, read in READERS[kind].items():
        table = read(published)
        assert {*table.column_names} == {*expected.column_names}, name
        assert table.to_pylist() == rows, name
        for column in ("year", "label", "score", "source_row"):
            wanted, found = expected.schema.field(column).type, table.schema.field(column).type
            assert found == wanted or pa.types.is_large_string(found), (name, column, found)
    # rows whose files the statistics in the log may leave out
    for column, lowest in (("score", sorted(row["score"] for row in rows)[-3]), ("source_row", 25), ("year", 2024)):
        some = [row for row in rows if row[column] is not None and row[column] >= lowest]
        for name, read in READERS[kind].items():
            assert read(published, at_least=(column, lowest)).to_pylist() == some, (name, column)
    return rows


@pytest.mark.parametrize("kind", ["delta", "iceberg"])
def test_every_engine_reads_the_rows_of_labels_after_runs_and_while_they_go(
    model_with_odd_labels: Path, tmp_path: Path, kind: str
) -> None:
    source, published = tmp_path / "in", Published(str(tmp_path / "out"))
    job = make_job(
        source,
        model_with_odd_labels,
        published.path,
        f"output.table={kind}",
        "output.partition_by=[label, year]",
        "output.drop_removed=true",
        "compute.unit_bytes=4000",
        EVERY_COMMIT,
    )
    seen: list[int] = []  # rows

    def look() -> None:
        """Asks one engine after the other."""
        name, read = [*READERS[kind].items()][len(seen) % len(READERS[kind])]
        keys = read(published).select(KEY).to_pylist()
        assert keys == by_labels(published).select(KEY).to_pylist(), name
        assert len({(key["source_file"], key["source_row"]) for key in keys}) == len(keys), "no document twice"
        seen.append(len(keys))

    write_parquet(source / "a.parquet", documents(40, seed=1), row_group_size=10)
    write_parquet(source / "b.parquet", documents(30, seed=2), row_group_size=10)
    write_jsonl(source / "gone.jsonl", [{"text": "this file is removed", "year": 1}])
    assert run_serially(job, quiet=True, executor=Watched(look=look)).complete
    assert len(seen) > 4
    assert seen[-1] == 71
    rows = check_readers(kind, published)
    assert {row["label"] for row in rows} == {*LABELS}
    assert {row["year"] for row in rows} == {*YEARS, 1}

    (source / "gone.jsonl").unlink()
    more = documents(20, seed=3)
    write_parquet(source / "b.parquet", more)  # changed
    write_parquet(source / "c.parquet", more.append_column("added", pa.array(range(20), pa.int32())))
    assert run_serially(job, quiet=True, executor=Watched(look=look)).complete
    rows = check_readers(kind, published)
    assert len(rows) == 80
    assert sorted(row["added"] for row in rows if row["added"] is not None) == [*range(20)]
    checked = verify(job)
    assert checked["ok"], str(checked)


@pytest.mark.parametrize("kind", ["delta", "iceberg"])
def test_every_engine_reads_a_table_that_was_published_to_a_faulty_s3(
    s3: Bucket, s3_server: S3Server, model_with_odd_labels: Path, tmp_path: Path, kind: str
) -> None:
    catalog = f"sqlite:///{tmp_path}/catalog.db" if kind == "iceberg" else None
    published = Published(f"{s3.url}/out", s3_server.endpoint_url, catalog)
    settings = job_settings(
        f"{s3.url}/in",
        model_with_odd_labels,
        published.path,
        f"output.table={kind}",
        "output.partition_by=[label, year]",
        "compute.unit_bytes=4000",
        f"storage.endpoint_url={s3.endpoint_url}",
        EVERY_COMMIT,
    )
    if catalog:
        settings["output"]["catalog"] = {"table": "labels.out", "uri": catalog}
    source = write_parquet(tmp_path / "a.parquet", documents(40, seed=5), row_group_size=10)
    s3.filesystem.put(str(source), f"{s3.name}/in/a.parquet")
    with s3.proxy.faults(*every_fault(0.01)):
        assert run_serially(settings, quiet=True).complete
    assert sum(s3.journal.faults().values()) > 2
    assert len(check_readers(kind, published)) == 40


def test_datasets_reads_the_files_of_a_table_without_partitions(model_with_odd_labels: Path, tmp_path: Path) -> None:
    published = Published(str(tmp_path / "out"))
    write_parquet(tmp_path / "in" / "a.parquet", documents(30, seed=4), row_group_size=10)
    settings = ("output.table=delta", "output.partition_by=[]", "compute.unit_bytes=4000")
    assert run_serially(make_job(tmp_path / "in", model_with_odd_labels, published.path, *settings), quiet=True).complete
    files = delta_table(published).file_uris()
    assert len(files) > 1
    found = load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert in_order(found.data.table).to_pylist() == check_readers("delta", published)
