"""Iceberg tables without a catalog as the input: the rows of the current snapshot, each exactly once, and no others."""

import datetime
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.memory import InMemoryCatalog
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestWriterV2,
    write_manifest_list,
)
from pyiceberg.serializers import ToOutputFile
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Record
from pyiceberg.types import LongType, StringType

from pipeline_ops.schema.errors import UserError
from tests.support.corpora import write_parquet
from tests.support.invariant import check_exactly_once
from tests.support.running import command, make_job
from tests.support.serial_chain import run_serially


def create(folder: Path, rows: pa.Table, *partitions: str) -> Table:
    """A table with these rows in `folder`/db/table."""
    catalog = InMemoryCatalog("test", warehouse=f"file://{folder}")
    catalog.create_namespace("db")
    table = catalog.create_table("db.table", schema=rows.schema)
    if partitions:
        with table.update_spec() as spec:
            for name in partitions:
                spec.add_field(name, IdentityTransform())
    table.append(rows)
    return table


def folder_of(table: Table) -> Path:
    return Path(table.location().removeprefix("file://"))


def live(table: Table) -> list[tuple[str, int]]:
    """(file, row) of each row of the current snapshot, by its manifests."""
    files = [task.file.file_path.removeprefix("file://") for task in table.scan().plan_files()]
    return [(file, row) for file in files for row in range(pq.read_metadata(file).num_rows)]


def labeled_rows(output: Path, table: Table) -> list[dict[str, Any]]:
    """All labeled rows, which are those of the table's current snapshot, in the order of their texts."""
    labeled, rejects = check_exactly_once(output, live(table))
    assert not rejects
    return sorted(labeled.to_pylist(), key=lambda row: row["text"])


def refusal(source: object, model: Path, output: Path) -> str:
    with pytest.raises(UserError, match=r"input\.path: ") as caught:
        run_serially(make_job(source, model, output))
    assert "\n" not in str(caught.value)
    assert not output.exists()
    return str(caught.value)


TEXTS = pa.table({"text": ["one", "two", "three"]})


def test_init_plan_run_verify_and_show_agree_on_the_current_snapshot(model: Path, tmp_path: Path) -> None:
    table, output, job_file = create(tmp_path, TEXTS), tmp_path / "out", tmp_path / "job.yaml"
    table.delete("text == 'two'")
    write_parquet(folder_of(table) / "data" / "left-over.parquet", [{"text": "no part of the table"}])
    snapshot = table.metadata.current_snapshot_id
    started = command("init", folder_of(table), "--model", model, "--job", job_file, f"output.path={output}")
    assert started.code == 0
    assert started.stderr.startswith(f"Iceberg table, snapshot {snapshot}: 1 file, ")
    assert started.result["documents_estimate"] == 2
    planned = command("plan", job_file)
    assert planned.stderr.startswith(f"input: Iceberg table, snapshot {snapshot}\n1 file, ")
    result = run_serially(str(job_file))
    assert (result.documents, result.complete) == (2, True)
    assert result.input_table == {"format": "Iceberg", "version": snapshot}
    assert [row["text"] for row in labeled_rows(output, table)] == ["one", "three"]
    assert json.loads((output / "_job.json").read_text())["input_table"]["version"] == snapshot
    verified = command("verify", job_file, "--deep")
    assert (verified.code, verified.result["documents"]) == (0, 2)
    assert len(command("show", job_file).stdout.splitlines()) == 2


def test_a_later_snapshot_is_labeled_by_its_new_files_and_dropped_files_are_removed(model: Path, tmp_path: Path) -> None:
    table, output = create(tmp_path, TEXTS), tmp_path / "out"
    job = make_job(folder_of(table), model, output, "output.drop_removed=true")
    run_serially(job)
    table.append(pa.table({"text": ["four"]}))
    assert run_serially(job).documents_run == 1
    table.delete("text == 'one'")
    result = run_serially(job)
    assert (result.documents, result.files_removed) == (3, 1)
    assert [row["text"] for row in labeled_rows(output, table)] == ["four", "three", "two"]


def test_an_earlier_metadata_file_is_read_as_the_table_was_then(model: Path, tmp_path: Path) -> None:
    table = create(tmp_path, TEXTS)
    then, rows = table.metadata_location, live(table)
    table.append(pa.table({"text": ["four"]}))
    run_serially(make_job(then, model, tmp_path / "then"))
    check_exactly_once(tmp_path / "then", rows)
    run_serially(make_job(then.removeprefix("file://"), model, tmp_path / "then"))
    check_exactly_once(tmp_path / "then", rows)
    hint = folder_of(table) / "metadata" / "version-hint.text"
    for content, expected in ((Path(then).name, rows), ("1", live(table))):
        hint.write_text(content)
        output = tmp_path / f"hint-{len(content)}"
        run_serially(make_job(folder_of(table), model, output))
        check_exactly_once(output, expected)


def test_renamed_dropped_and_added_columns_are_read_by_their_field_ids(model: Path, tmp_path: Path) -> None:
    first = pa.table({"body": ["one", "two"], "n": pa.array([1, 2], pa.int32()), "note": ["old", "old"]})
    table, output = create(tmp_path, first), tmp_path / "out"
    with table.update_schema() as schema:
        schema.rename_column("body", "text")
        schema.update_column("n", LongType())
        schema.delete_column("note")
    with table.update_schema() as schema:
        schema.add_column("note", StringType())  # another column than the one before
    table.append(pa.table({"text": ["three"], "n": pa.array([2**40], pa.int64()), "note": ["new"]}))
    started = command("init", folder_of(table), "--model", model, "--job", tmp_path / "job.yaml", f"output.path={output}")
    assert started.result["text_column"] == "text"
    assert started.result["columns"] == {"text": "string", "n": "int64", "note": "string"}
    run_serially(make_job(folder_of(table), model, output))
    rows = labeled_rows(output, table)
    assert [(row["text"], row["n"], row["note"]) for row in rows] == [
        ("one", 1, None),
        ("three", 2**40, "new"),
        ("two", 2, None),
    ]
    assert not {"body"} & rows[0].keys()
    run_serially(make_job(folder_of(table), model, tmp_path / "chosen", "output.columns=[text, note]"))
    assert [row["note"] for row in labeled_rows(tmp_path / "chosen", table)] == [None, "new", None]


def test_partitions_are_columns_also_where_an_adopted_file_lacks_them(model: Path, tmp_path: Path) -> None:
    rows = TEXTS.append_column("lang", pa.array(["en", None, "d/e +é"])).append_column(
        "day", pa.array([datetime.date(2020, 1, 2)] * 3)
    )
    table, output = create(tmp_path, rows, "lang", "day"), tmp_path / "out"
    for task in table.scan().plan_files():  # as a file of a hive table that Iceberg has adopted
        path = task.file.file_path.removeprefix("file://")
        pq.write_table(pq.ParquetFile(path).read(columns=["text"]), path)
    run_serially(make_job(folder_of(table), model, output, "output.partition_by=[lang]"))
    found = labeled_rows(output, table)
    assert [(row["text"], row["lang"], row["day"]) for row in found] == [
        ("one", "en", datetime.date(2020, 1, 2)),
        ("three", "d/e +é", datetime.date(2020, 1, 2)),
        ("two", None, datetime.date(2020, 1, 2)),
    ]


def with_deletes(table: Table, content: DataFileContent) -> Path:
    """The metadata file of a further snapshot, in which a delete file applies to the rows before."""
    metadata, io, folder = table.metadata, table.io, table.location()
    snapshot = metadata.current_snapshot()
    assert snapshot is not None
    arguments: dict[str, Any] = {"equality_ids": [1]} if content == DataFileContent.EQUALITY_DELETES else {}
    deletes = DataFile.from_args(
        content=content,
        file_path=f"{folder}/data/deletes.parquet",
        file_format=FileFormat.PARQUET,
        partition=Record(),
        record_count=1,
        file_size_in_bytes=1,
        **arguments,
    )
    deletes.spec_id = 0

    class DeletesWriter(ManifestWriterV2):
        def content(self) -> ManifestContent:
            return ManifestContent.DELETES

    with DeletesWriter(
        metadata.spec(), metadata.schema(), io.new_output(f"{folder}/metadata/deletes.avro"), 7, "deflate"
    ) as writer:
        writer.add_entry(ManifestEntry.from_args(status=ManifestEntryStatus.ADDED, snapshot_id=7, data_file=deletes))
    number = snapshot.sequence_number + 1 if snapshot.sequence_number is not None else 2
    listed = f"{folder}/metadata/snap-7.avro"
    with write_manifest_list(2, io.new_output(listed), 7, snapshot.snapshot_id, number, "deflate") as manifests:
        manifests.add_manifests([*snapshot.manifests(io), writer.to_manifest_file()])
    fields: dict[str, Any] = {
        "snapshot-id": 7,
        "sequence-number": number,
        "timestamp-ms": snapshot.timestamp_ms + 1,
        "manifest-list": listed,
        "schema-id": metadata.current_schema_id,
        "summary": snapshot.summary,
    }
    added = Snapshot(**fields)
    changed = metadata.model_copy(
        update={"snapshots": [*metadata.snapshots, added], "current_snapshot_id": 7, "last_sequence_number": number, "refs": {}}
    )
    location = f"{folder}/metadata/00009-deletes.metadata.json"
    ToOutputFile.table_metadata(changed, io.new_output(location))
    return Path(location.removeprefix("file://"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (DataFileContent.POSITION_DELETES, "has deleted rows in delete files"),
        (DataFileContent.EQUALITY_DELETES, "has rows that are deleted by their values (equality deletes)"),
    ],
)
def test_delete_files_are_refused_by_name(content: DataFileContent, message: str, model: Path, tmp_path: Path) -> None:
    table = create(tmp_path, TEXTS)
    with_deletes(table, content)
    said = refusal(folder_of(table), model, tmp_path / "out")
    assert message in said
    assert "CALL system.rewrite_data_files" in said


def test_a_table_that_was_moved_and_other_mistakes_are_said(model: Path, tmp_path: Path) -> None:
    table, output = create(tmp_path / "here", TEXTS), tmp_path / "out"
    shutil.move(tmp_path / "here", tmp_path / "there")
    moved = tmp_path / "there" / "db" / "table"
    said = refusal(moved, model, output)
    assert f"{tmp_path}/here/db/table/metadata/" in said
    assert "a table that was moved or copied keeps its old paths" in said
    shutil.move(tmp_path / "there", tmp_path / "here")
    newest = Path(table.metadata_location.removeprefix("file://"))
    shutil.copy(newest, newest.with_name(newest.name.split("-")[0] + "-other.metadata.json"))
    assert "has several newest metadata files" in refusal(folder_of(table), model, output)
    newest.with_name("00009-x.metadata.json").write_text("{}")
    assert "the metadata of the Iceberg table" in refusal(folder_of(table), model, output)

    catalog = InMemoryCatalog("other", warehouse=f"file://{tmp_path}/other")
    catalog.create_namespace("db")
    empty = catalog.create_table("db.table", schema=TEXTS.schema)
    assert "has no rows: it has no snapshot yet" in refusal(folder_of(empty), model, output)
    empty.append(TEXTS)
    empty.delete()
    assert "has no rows in snapshot" in refusal(folder_of(empty), model, output)


def test_renamed_fields_of_a_struct_are_refused_by_name(model: Path, tmp_path: Path) -> None:
    rows = TEXTS.append_column("meta", pa.array([{"a": 1, "b": "x"}] * 3))
    table = create(tmp_path, rows)
    with table.update_schema() as schema:
        schema.rename_column(("meta", "a"), "c")
    assert "has renamed fields of the column 'meta'" in refusal(folder_of(table), model, tmp_path / "out")


def test_a_table_is_found_by_its_name_in_a_catalog(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, output = create(tmp_path, TEXTS), tmp_path / "out"
    newest = Path(table.metadata_location.removeprefix("file://"))
    # left by a commit that failed: only the catalog knows that it does not count
    shutil.copy(newest, newest.with_name("00009-failed.metadata.json"))
    monkeypatch.setattr("pyiceberg.catalog.load_catalog", lambda name, **_: {"mine": table.catalog}[name])
    job_file = tmp_path / "job.yaml"
    name = "iceberg://mine/db.table"
    assert command("init", name, "--model", model, "--job", job_file, f"output.path={output}").code == 0
    table.delete("text == 'two'")
    result = run_serially(str(job_file))
    assert result.input_table == {"format": "Iceberg", "version": table.metadata.current_snapshot_id}
    assert [row["text"] for row in labeled_rows(output, table)] == ["one", "three"]
    assert command("verify", job_file).code == 0
    table.append(pa.table({"text": ["four"]}))
    assert run_serially(str(job_file), limit=2).documents == 2
    assert run_serially(str(job_file)).documents_run == 1


def test_a_table_that_no_catalog_knows_is_said(model: Path, tmp_path: Path) -> None:
    said = refusal("iceberg://nowhere/db.table", model, tmp_path / "out")
    assert "'iceberg://nowhere/db.table' cannot be looked up" in said
    assert "PYICEBERG_CATALOG__NOWHERE__URI" in said
    assert "names no table; give iceberg://CATALOG/NAMESPACE.TABLE" in refusal("iceberg://nowhere", model, tmp_path / "out")
