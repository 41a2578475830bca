"""DeltaTable: what it writes is what deltalake reads, whatever others do to the table."""

import json
import shutil
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline_ops.publishing.delta import DeltaTable
from pipeline_ops.publishing.publish import Publication, publish
from pipeline_ops.publishing.table import TableFile
from pipeline_ops.schema.errors import UserError
from pipeline_ops.schema.output_columns import OutputConfig
from pipeline_ops.storage.store import Store
from pipeline_ops.writing.hive_partitions import hive_folder

SCHEMA = pa.schema([("text", pa.string()), ("score", pa.float32()), ("label", pa.string())])


class Output:
    """An output folder with labeled files, and the table over it."""

    def __init__(self, folder: Path, *partition_by: str, **settings: Any):
        self.folder, self.partition_by = folder, partition_by or ("label",)
        self.config = OutputConfig(path=str(folder), partition_by=self.partition_by, table="delta", **settings)
        self.table = self.opened()
        self.files: dict[str, TableFile] = {}

    def opened(self) -> DeltaTable:
        return DeltaTable(Store(str(self.folder)), self.config)

    def add(self, name: str, *values: Any, rows: int = 2, **columns: Any) -> str:
        folder = hive_folder(self.partition_by, values)
        path = f"{folder}/{name}.parquet"
        (self.folder / folder).mkdir(parents=True, exist_ok=True)
        written = {"text": [f"{name} {row}" for row in range(rows)], "score": pa.array([0.5] * rows, pa.float32())}
        pq.write_table(pa.table(written | {column: [value] * rows for column, value in columns.items()}), self.folder / path)
        size = (self.folder / path).stat().st_size
        partition = dict(zip(self.partition_by, values, strict=True))
        self.files[path] = TableFile(path, rows, size, partition, {"score": (0.5, 0.5, 0)})
        return path

    def publish(self, schema: pa.Schema = SCHEMA, table: DeltaTable | None = None, **options: Any) -> Publication | None:
        return publish(table or self.table, self.files, schema, lambda: None, run="run", term=3, **options)

    def texts(self, version: int | None = None) -> list[str]:
        read = deltalake.DeltaTable(str(self.folder), version=version).to_pyarrow_table(columns=["text"])
        return sorted(read["text"].to_pylist())

    def expected(self) -> list[str]:
        return sorted(f"{Path(path).stem} {row}" for path, file in self.files.items() for row in range(file.rows))

    def entry(self, version: int) -> dict[str, list[dict[str, Any]]]:
        """{kind of action: the actions} of a log entry."""
        found: dict[str, list[dict[str, Any]]] = {}
        for line in (self.folder / f"_delta_log/{version:020}.json").read_text().splitlines():
            ((kind, action),) = json.loads(line).items()
            found.setdefault(kind, []).append(action)
        return found


VALUES = ["a/b", "x=y", "sp ace", "ünï", None, "0", "1%2F", "plus+", "q?#", "__HIVE_DEFAULT_PARTITION__x", "'", '"', ":", "*"]


def test_each_label_comes_back_as_it_was(tmp_path: Path) -> None:
    output = Output(tmp_path)
    for number, value in enumerate(VALUES):
        output.add(f"f{number}", value)
    output.publish()
    read = deltalake.DeltaTable(str(tmp_path)).to_pyarrow_table()
    assert {row["text"].split()[0]: row["label"] for row in read.to_pylist()} == {f"f{n}": one for n, one in enumerate(VALUES)}
    assert output.opened().read().paths == output.files.keys()
    for path in [*output.files][::2]:
        del output.files[path]
    output.publish()
    assert output.texts() == output.expected()


def test_partition_columns_of_other_types_come_back_as_they_were(tmp_path: Path) -> None:
    values = {
        "number": (pa.int64(), -3),
        "day": (pa.date32(), date(2024, 2, 29)),
        "moment": (pa.timestamp("us", "UTC"), datetime(2024, 2, 29, 1, 2, 3, 45, UTC)),
        "truth": (pa.bool_(), True),
        "amount": (pa.decimal128(10, 2), Decimal("1200.50")),
        "share": (pa.float64(), 0.1),
    }
    output = Output(tmp_path, *values)
    output.add("full", *(value for _, value in values.values()))
    output.add("nulls", *(None for _ in values))
    fields = [pa.field(name, data_type) for name, (data_type, _) in values.items()]
    output.publish(pa.schema([*SCHEMA, *fields]))
    read = deltalake.DeltaTable(str(tmp_path)).to_pyarrow_table().sort_by("text")
    assert read.slice(0, 1).select([*values]).to_pylist() == [{name: value for name, (_, value) in values.items()}]
    assert read.slice(2, 1).select([*values]).to_pylist() == [dict.fromkeys(values)]


def test_a_version_is_one_entry_that_the_oldest_readers_can_read_with_run_and_term(tmp_path: Path) -> None:
    output = Output(tmp_path)
    first = output.add("a", "x")
    assert output.publish() == Publication(0, 1, 0)
    assert output.publish() is None
    del output.files[first]
    output.add("b", "y", more=1)
    assert output.publish(pa.schema([*SCHEMA, pa.field("more", pa.int64())])) == Publication(1, 1, 1)
    entry = output.entry(1)
    assert [one["path"] for one in entry["remove"]] == [first]
    assert [one["dataChange"] for one in entry["add"] + entry["remove"]] == [True, True]
    assert json.loads(entry["add"][0]["stats"]) == {
        "numRecords": 2,
        "minValues": {"score": 0.5},
        "maxValues": {"score": 0.5},
        "nullCount": {"score": 0},
    }
    table = deltalake.DeltaTable(str(tmp_path))
    assert (table.protocol().min_reader_version, table.protocol().min_writer_version) == (1, 2)
    newest = table.history()[0]
    assert (newest["label-corpus.run"], newest["label-corpus.term"]) == ("run", "3")
    assert output.opened().read().term == 3
    assert table.to_pyarrow_table().column_names == ["text", "score", "label", "more"]
    assert output.texts(0) == ["a 0", "a 1"]
    assert str(tmp_path) not in json.dumps(output.entry(0)), "no path of this machine"

    output.files.clear()
    merged = output.add("ab", "y", rows=4, more=1)
    output.publish(same_rows=True)
    entry = output.entry(2)
    assert [one["dataChange"] for one in entry["add"] + entry["remove"]] == [False, False]
    assert entry["add"][0]["path"] == merged


def test_filters_find_the_rows_of_files_with_statistics_and_without(tmp_path: Path) -> None:
    output = Output(tmp_path)
    output.add("with", "x")
    without = output.add("without", "x")  # as where a score is NaN, and of earlier versions
    output.files[without] = replace(output.files[without], statistics={})
    output.publish()
    table = deltalake.DeltaTable(str(tmp_path))
    for column, value, expected in (("text", "with 1", 1), ("text", "without 1", 1), ("score", 0.5, 4), ("score", 0.4, 0)):
        assert table.to_pyarrow_table(filters=pc.field(column) == value).num_rows == expected, (column, value)


def test_a_fence_is_a_version_without_changes_and_who_is_late_reads_again(tmp_path: Path) -> None:
    output, stale = Output(tmp_path), Output(tmp_path)
    output.add("a", "x")
    output.publish()
    stale.files = dict(output.files)
    stale.table.read()
    assert output.publish(fence=True) == Publication(1, 0, 0)

    stale.add("late", "x")
    confirmed = []

    def confirm() -> None:
        confirmed.append(stale.table.read().version)
        if len(confirmed) == 1:
            output.publish(fence=True)  # by whoever has taken over, after the stale one has looked at the lease
        else:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        publish(stale.table, stale.files, SCHEMA, confirm, run="late", term=2)
    assert confirmed == [1, 2]
    assert output.texts() == ["a 0", "a 1"]
    assert output.opened().read().version == 2


def test_checkpoints_of_long_ago_are_deleted_and_their_versions_can_be_read(tmp_path: Path) -> None:
    output = Output(tmp_path)
    output.add("first", "x")
    output.publish()
    first = output.expected()
    output.add("second", "x")
    for _ in range(50):
        output.publish(fence=True)
    names = [path.name for path in sorted((tmp_path / "_delta_log").glob("*.checkpoint.parquet"))]
    assert names == [f"{version:020}.checkpoint.parquet" for version in (20, 30, 40, 50)]
    for version, texts in [(0, first), *((version, output.expected()) for version in (1, 10, 19, 25, 50))]:
        assert output.texts(version) == texts
    assert output.opened().read().paths == output.files.keys()


def test_checkpoints_spare_the_entries_before_them_and_keep_what_was_removed(tmp_path: Path) -> None:
    output = Output(tmp_path, keep_versions_days=20)
    began = datetime.now(UTC)
    for number in range(13):
        path = output.add(f"f{number}", "x")
        if number == 3:
            gone = path
        if number == 6:
            del output.files[gone]
        output.publish()
    log = tmp_path / "_delta_log"
    assert [path.name for path in log.glob("*.checkpoint.parquet")] == [f"{10:020}.checkpoint.parquet"]
    assert json.loads((log / "_last_checkpoint").read_text())["version"] == 10
    for version in range(10):
        (log / f"{version:020}.json").unlink()
    assert output.texts() == output.expected()
    for table in (output.table, output.opened()):
        assert table.read().paths == output.files.keys()
        assert table.kept_paths(began - timedelta(days=1)) == {*output.files, gone}
        assert table.kept_paths(datetime.now(UTC) + timedelta(seconds=1)) == {*output.files}
    assert output.publish() is None


def test_retention_in_the_log_follows_the_setting(tmp_path: Path) -> None:
    output = Output(tmp_path)
    output.add("a", "x")
    output.publish()
    later = Output(tmp_path, keep_versions_days=0.5)
    later.files = output.files
    assert later.publish() is None
    later.add("b", "x")
    later.publish()
    settings = deltalake.DeltaTable(str(tmp_path)).metadata().configuration
    assert settings["delta.deletedFileRetentionDuration"] == "interval 43200 seconds"
    assert later.publish() is None


def test_what_others_do_to_the_table_is_undone(tmp_path: Path) -> None:
    output = Output(tmp_path)
    for number in range(3):
        output.add(f"f{number}", "a/b")
    output.publish()
    other = deltalake.DeltaTable(str(tmp_path))
    other.optimize.compact()
    other.create_checkpoint()
    other.delete("text = 'f1 0'")
    other.vacuum(retention_hours=0, dry_run=True, enforce_retention_duration=False)
    assert output.texts() != output.expected()
    published = output.publish()
    assert published is not None
    assert (published.added, published.version) == (3, 3)
    assert output.texts() == output.expected()
    assert output.publish() is None
    assert output.opened().read().paths == output.files.keys()
    shutil.rmtree(tmp_path / "_delta_log")
    assert output.publish() == Publication(0, 3, 0)
    assert output.texts() == output.expected()


def test_users_mistakes_are_said_with_a_remedy(tmp_path: Path) -> None:
    deltalake.write_deltalake(str(tmp_path / "other"), pa.table({"text": ["theirs"]}))
    other = Output(tmp_path / "other")
    other.add("a", "x")
    with pytest.raises(UserError, match=r"output\.table: '.*other' is a Delta table that label-corpus has not written"):
        other.publish()
    assert deltalake.DeltaTable(str(tmp_path / "other")).version() == 0

    output = Output(tmp_path / "out")
    output.add("a", "x")
    with pytest.raises(UserError, match=r"column 'score' is uint64, which engines do not read from Delta tables; set input\."):
        output.publish(pa.schema([("text", pa.string()), ("score", pa.uint64()), ("label", pa.string())]))
    output.publish()
    output.add("b", "x")
    with pytest.raises(UserError, match=r"column 'score' is double, and float in the Delta table so far; delete the table"):
        output.publish(pa.schema([("text", pa.string()), ("score", pa.float64()), ("label", pa.string())]))
    output.add("c", "")
    with pytest.raises(UserError, match=r"empty text in the partition column 'label', which Delta Lake takes for null"):
        output.publish()
    unpartitioned = DeltaTable(Store(str(tmp_path / "out")), OutputConfig(path="unused", partition_by=(), table="delta"))
    with pytest.raises(UserError, match=r"is partitioned by \['label'\], the output by \[\]; delete its _delta_log"):
        unpartitioned.read()
    (tmp_path / "out/_delta_log" / f"{0:020}.json").write_text("{}")
    with pytest.raises(UserError, match=r"output\.table: the log of the Delta table .* cannot be read"):
        output.opened().read()


def test_an_output_without_files_has_no_table(tmp_path: Path) -> None:
    output = Output(tmp_path)
    assert output.publish(fence=True) is None
    assert not (tmp_path / "_delta_log").exists()
    assert output.table.kept_paths(datetime.now(UTC)) == set()


def test_without_the_library_the_command_that_installs_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(UserError, match=r"output\.table: to publish .* pip install 'label-corpus\[tables\]'"):
        Output(tmp_path)
