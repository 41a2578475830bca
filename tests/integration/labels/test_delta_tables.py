"""Delta tables as the input: the rows of the newest version, each exactly once, and none that the table has dropped."""

import datetime
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from jobs.config import JobConfig
from tests.support.corpora import write_parquet
from tests.support.invariant import check_exactly_once
from tests.support.running import command, job_settings, make_job, write_job_file
from tests.support.serial_chain import run_serially


def write(path: Path, texts: list[str], mode: Any = "append", partition_by: list[str] | None = None, **columns: Any) -> None:
    write_deltalake(str(path), pa.table({"text": texts, **columns}), mode=mode, partition_by=partition_by)


def live(path: Path) -> list[tuple[str, int]]:
    """(file, row) of each row of the newest version, by its log."""
    names = pa.table(DeltaTable(str(path)).get_add_actions()).column("path").to_pylist()
    files = [str(path / unquote(name)) for name in names]
    return [(file, row) for file in files for row in range(pq.read_metadata(file).num_rows)]


def labeled_texts(output: Path, table: Path) -> list[str]:
    """Texts of all labeled rows, which are those of the table's newest version."""
    labeled, rejects = check_exactly_once(output, live(table))
    assert not rejects
    return sorted(labeled["text"].to_pylist())


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Version 2, in whose folder there is a file that the table has dropped."""
    path = tmp_path / "a table"
    write(path, ["one", "two"])
    write(path, ["three"])
    DeltaTable(str(path)).delete("text = 'three'")
    write_parquet(path / "left-over.parquet", [{"text": "no part of the table"}])
    return path


def test_init_plan_run_verify_and_show_agree_on_the_newest_version(table: Path, model: Path, tmp_path: Path) -> None:
    output, job_file = tmp_path / "out", tmp_path / "job.yaml"
    started = command("init", table, "--model", model, "--job", job_file, f"output.path={output}")
    assert started.code == 0
    assert started.stderr.startswith("Delta table, version 2: 1 file, ")
    assert started.result["documents_estimate"] == 2
    planned = command("plan", job_file)
    assert planned.stderr.startswith("input: Delta table, version 2\n1 file, ")
    assert planned.result["work"]["documents"] == 2
    result = run_serially(str(job_file))
    assert (result.documents, result.complete, result.input_table) == (2, True, {"format": "Delta", "version": 2})
    assert labeled_texts(output, table) == ["one", "two"]
    assert json.loads((output / "_job.json").read_text())["input_table"] == {"format": "Delta", "version": 2}
    verified = command("verify", job_file, "--deep")
    assert (verified.code, verified.result["documents"]) == (0, 2)
    shown = command("show", job_file)
    assert [json.loads(line)["text"] for line in shown.stdout.splitlines()] == ["one", "two"]


def test_a_later_version_is_labeled_by_its_new_files_and_dropped_files_are_removed(
    table: Path, model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    job = make_job(table, model, output, "output.drop_removed=true")
    run_serially(job)
    write(table, ["four"])
    result = run_serially(job)
    assert (result.documents_run, result.documents) == (1, 3)
    assert labeled_texts(output, table) == ["four", "one", "two"]
    DeltaTable(str(table)).optimize.compact()
    result = run_serially(job)
    assert (result.documents, result.files_removed) == (3, 2)
    assert result.input_table == {"format": "Delta", "version": 4}
    assert labeled_texts(output, table) == ["four", "one", "two"]
    assert run_serially(job).documents_run == 0


def test_labels_of_dropped_files_stay_unless_drop_removed_is_set(table: Path, model: Path, tmp_path: Path) -> None:
    job = make_job(table, model, tmp_path / "out")
    run_serially(job)
    before = live(table)
    write(table, ["new"], mode="overwrite")
    result = run_serially(job)
    assert (result.documents, result.files_removed) == (3, 1)
    check_exactly_once(tmp_path / "out", [*before, *live(table)])


@pytest.mark.parametrize("checkpoints", [(), (3,), (3, 8)])
def test_a_log_with_checkpoints_whose_older_commits_are_gone(checkpoints: tuple[int, ...], model: Path, tmp_path: Path) -> None:
    table, output = tmp_path / "table", tmp_path / "out"
    for number in range(11):
        write(table, [f"text {number}"])
        if number in checkpoints:
            DeltaTable(str(table)).create_checkpoint()
    DeltaTable(str(table)).delete("text = 'text 5'")
    for commit in (table / "_delta_log").glob("*.json"):
        if int(commit.stem) < max(checkpoints, default=0):
            commit.unlink()
    assert run_serially(make_job(table, model, output)).input_table == {"format": "Delta", "version": 11}
    assert labeled_texts(output, table) == sorted(f"text {number}" for number in range(11) if number != 5)


def test_partitions_are_columns_of_the_tables_types(model: Path, tmp_path: Path) -> None:
    table, output = tmp_path / "table", tmp_path / "out"
    days = [datetime.date(2020, 1, 2), None, datetime.date(1999, 12, 31)]
    moment = datetime.datetime(2020, 1, 2, 3, 4, 5, 678, tzinfo=datetime.UTC)
    columns = {
        "lang": ["d/e f", "+%é", None],
        "day": days,
        "number": pa.array([1, None, -3], pa.int32()),
        "sure": [True, None, False],
        "at": pa.array([moment, None, moment], pa.timestamp("us", "UTC")),
    }
    write(table, ["one", "two", "three"], partition_by=[*columns], **columns)
    run_serially(make_job(table, model, output, "output.partition_by=[]"))
    labeled, _ = check_exactly_once(output, live(table))
    for name, values in columns.items():
        found = dict(zip(labeled["text"].to_pylist(), labeled[name].to_pylist(), strict=True))
        assert found == dict(zip(["one", "two", "three"], pa.array(values).to_pylist(), strict=True)), name
    assert labeled.schema.field("day").type == pa.date32()
    assert labeled.schema.field("number").type == pa.int32()
    assert labeled.schema.field("at").type == pa.timestamp("us", "UTC")
    run_serially(make_job(table, model, tmp_path / "chosen", "output.columns=[lang]", "output.partition_by=[lang]"))
    check_exactly_once(tmp_path / "chosen", live(table))


def test_a_column_that_was_added_later_has_the_tables_type_and_null_in_files_before(model: Path, tmp_path: Path) -> None:
    table, output = tmp_path / "table", tmp_path / "out"
    write(table, ["one"])
    write_deltalake(
        str(table), pa.table({"text": ["two"], "stars": pa.array([5], pa.int16())}), mode="append", schema_mode="merge"
    )
    planned = command(
        "plan", write_job_file(tmp_path / "job.yaml", job_settings(table, model, output, "output.columns=[stars]"))
    )
    assert planned.code == 0
    run_serially(make_job(table, model, output))
    labeled, _ = check_exactly_once(output, live(table))
    assert dict(zip(labeled["text"].to_pylist(), labeled["stars"].to_pylist(), strict=True)) == {"one": None, "two": 5}
    assert labeled.schema.field("stars").type == pa.int16()


def test_rows_from_before_the_text_column_are_rejected_not_lost(model: Path, tmp_path: Path) -> None:
    table = tmp_path / "table"
    write_deltalake(str(table), pa.table({"id": [1, 2]}))
    write_deltalake(str(table), pa.table({"id": [3], "text": ["three"]}), mode="append", schema_mode="merge")
    for columns in ("all", "none"):
        job = make_job(table, model, tmp_path / columns, f"output.columns={columns}", "input.max_reject_share=1")
        assert run_serially(job).complete
        labeled, rejects = check_exactly_once(tmp_path / columns, live(table))
        assert labeled.num_rows == 1
        assert [reject["reason"] for reject in rejects] == ["null_text", "null_text"]


def test_a_trial_labels_the_first_rows_of_the_newest_version(table: Path, model: Path, tmp_path: Path) -> None:
    write(table, [f"text {number}" for number in range(10)])
    result = run_serially(make_job(table, model, tmp_path / "out"), limit=5)
    assert (result.documents, result.input_table) == (5, {"format": "Delta", "version": 3})
    check_exactly_once(tmp_path / "out-trial", sorted(live(table))[:5])


def edit_log(table: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Applies `change` to each action of version 0."""
    path = table / "_delta_log" / f"{0:020}.json"
    actions = [json.loads(line) for line in path.read_text().splitlines()]
    for action in actions:
        change(action)
    path.write_text("".join(json.dumps(action) + "\n" for action in actions))


def with_features(action: dict[str, Any], *features: str) -> None:
    if "protocol" in action:
        names = list(features)
        action["protocol"] = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": names, "writerFeatures": names}


def add_deletion_vector(action: dict[str, Any]) -> None:
    with_features(action, "deletionVectors")
    if "add" in action:
        vector = {
            "storageType": "u",
            "pathOrInlineDv": "ab^-aqEH.-t@S}K{vb[*k^",
            "offset": 4,
            "sizeInBytes": 40,
            "cardinality": 6,
        }
        action["add"]["deletionVector"] = vector


def add_column_mapping(action: dict[str, Any]) -> None:
    with_features(action, "columnMapping")
    if "metaData" in action:
        schema = json.loads(action["metaData"]["schemaString"])
        schema["fields"][0]["metadata"] = {"delta.columnMapping.id": 1, "delta.columnMapping.physicalName": "col-1"}
        action["metaData"]["schemaString"] = json.dumps(schema)
        action["metaData"]["configuration"] = {"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": "1"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (add_deletion_vector, "has deletion vectors, which cannot be read; REORG TABLE ... APPLY (PURGE)"),
        (add_column_mapping, "has columns under other names in its files (delta.columnMapping.mode)"),
        (lambda action: with_features(action, "fromTheFuture"), "'fromTheFuture' is not supported"),
    ],
    ids=["deletion vectors", "column mapping", "unknown feature"],
)
def test_what_cannot_be_read_is_refused_by_name_in_one_line(
    change: Callable[[dict[str, Any]], None], message: str, model: Path, tmp_path: Path
) -> None:
    table = tmp_path / "table"
    write(table, ["one", "two"])
    edit_log(table, change)
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(table, model, tmp_path / "out"))
    for name in ("plan", "run"):
        finished = command(name, job_file)
        assert finished.code == 2
        assert message in finished.stderr
        assert len(finished.error_lines) == 1
    assert not (tmp_path / "out").exists()


def test_a_table_that_has_the_feature_of_deletion_vectors_but_none_is_read(model: Path, tmp_path: Path) -> None:
    table = tmp_path / "table"
    write(table, ["one", "two"])
    edit_log(table, lambda action: with_features(action, "deletionVectors", "timestampNtz"))
    run_serially(make_job(table, model, tmp_path / "out"))
    assert labeled_texts(tmp_path / "out", table) == ["one", "two"]


def refusal(job: JobConfig) -> str:
    with pytest.raises(ValueError, match=r"input\.") as caught:
        run_serially(job)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_mistakes_are_said(table: Path, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert "input.format: 'jsonl'" in refusal(make_job(table, model, output, "input.format=jsonl"))
    missing = sorted(live(table))[0][0]
    shutil.move(missing, tmp_path / "elsewhere.parquet")
    assert f"has no file {missing}, which its version 2 consists of" in refusal(make_job(table, model, output))
    (table / "_delta_log" / f"{1:020}.json").write_text("{broken")
    assert "the log of the Delta table" in refusal(make_job(table, model, output))
    empty = tmp_path / "empty"
    write(empty, ["one"])
    DeltaTable(str(empty)).delete()
    assert f"the Delta table {str(empty)!r} has no rows in version 1" in refusal(make_job(empty, model, output))
    parts = tmp_path / "parts"
    write(parts, ["one"], partition_by=["lang"], lang=["en"])
    assert "input.text_column: 'lang' is a partition" in refusal(make_job(parts, model, output, "input.text_column=lang"))
