"""Files that earlier versions of the table consist of stay for output.keep_versions_days, and no longer."""

import json
import re
import shutil
import time
from pathlib import Path

import deltalake
import pytest
from pyiceberg.catalog import load_catalog

from jobs.maintenance.sweep import sweep_line
from jobs.results.labels import labels
from pipeline_ops.schema.errors import UserError
from tests.support.corpora import write_jsonl
from tests.support.running import command, job_settings, write_job_file
from tests.support.serial_chain import run_serially

DAY = 86400


class Output:
    """A job over two files, whose labels are a table."""

    def __init__(self, folder: Path, model: Path, table: str):
        self.table = table
        self.source, self.path, self.model, self.job_file = folder / "in", folder / "out", model, folder / "job.yaml"
        self.write("a", "first")
        self.write("b", "first")
        self.first_files: set[str] = set()  # of version 0

    def write(self, name: str, word: str) -> None:
        write_jsonl(self.source / f"{name}.jsonl", [{"text": f"{name} {word} {row}"} for row in range(4)])

    def run(self, *overrides: str) -> None:
        settings = job_settings(self.source, self.model, self.path, f"output.table={self.table}", *overrides)
        write_job_file(self.job_file, settings)
        run_serially(settings, quiet=True)

    def texts(self, version: int = -1) -> list[str]:
        """Of a version by its number, from 0; of the newest one by default."""
        if self.table == "delta":
            table = deltalake.DeltaTable(str(self.path), version=None if version == -1 else version)
            return sorted(table.to_pyarrow_table(columns=["text"])["text"].to_pylist())
        iceberg = load_catalog("default", type="sql", uri=f"sqlite:///{self.path}/_iceberg/catalog.db").load_table("labels.out")
        snapshot = iceberg.metadata.snapshots[version].snapshot_id
        return sorted(iceberg.scan(snapshot_id=snapshot, selected_fields=("text",)).to_arrow()["text"].to_pylist())

    @property
    def log(self) -> Path:
        return self.path / ("_delta_log" if self.table == "delta" else "_iceberg")

    def files(self) -> set[str]:
        return {str(path.relative_to(self.path)) for path in self.path.glob("label=*/*.parquet")}


def expected(**words: str) -> list[str]:
    return sorted(f"{name} {word} {row}" for name, word in words.items() for row in range(4))


@pytest.fixture(params=["delta", pytest.param("iceberg", marks=pytest.mark.slow)])
def output(request: pytest.FixtureRequest, tmp_path: Path, model: Path) -> Output:
    output = Output(tmp_path, model, request.param)
    output.run()
    output.first_files = output.files()
    output.write("b", "second")
    return output


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def later(monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + days * DAY)


def test_versions_before_a_change_are_read_until_their_days_have_passed(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    output.run()
    assert output.texts(0) == expected(a="first", b="first")
    assert output.texts() == sorted(labels(str(output.path))["text"]) == expected(a="first", b="second")
    kept = output.files()
    before = files_below(output.log)
    output.run()  # has nothing to do
    assert files_below(output.log) == before

    verified = command("verify", output.job_file)
    assert (verified.code, verified.result["unreferenced"]) == (0, [])
    swept = command("sweep", output.path)  # by what is recorded there
    replaced = len(kept) - len(labels(str(output.path), "arrow").files)
    assert (swept.result["removed"], swept.result["kept"]) == (0, replaced)
    assert swept.result["kept_bytes"] > 0
    assert re.search(f"kept: {replaced} files?, .*, which versions .* of the last 7 days name", sweep_line(swept.result, 7))
    assert output.files() == kept

    later(monkeypatch, 6.9)
    assert command("sweep", output.job_file).result["removed"] == 0
    later(monkeypatch, 0.2)
    output.run()  # deletes them, though nothing is left to label
    assert len(output.files()) == len(kept) - replaced
    assert output.texts() == expected(a="first", b="second")
    assert command("verify", output.job_file).result["ok"]
    if output.table == "delta":
        with pytest.raises(Exception, match="parquet"):
            output.texts(0)


@pytest.mark.slow
def test_versions_are_not_kept_for_no_days(output: Output) -> None:
    output.run("output.keep_versions_days=0")
    assert len(output.files()) == len(labels(str(output.path), "arrow").files)
    assert output.texts() == expected(a="first", b="second")


@pytest.mark.slow
def test_small_files_that_were_merged_are_kept(output: Output) -> None:
    output.run()
    before = output.files()
    merged = command("compact", output.job_file)
    assert merged.result["merged"] > 0
    assert output.files() > before
    for version, words in ((0, ("first", "first")), (1, ("first", "second")), (-1, ("first", "second"))):
        assert output.texts(version) == expected(a=words[0], b=words[1])
    assert command("verify", output.job_file).result["ok"]


def test_a_table_that_was_switched_off_keeps_its_files(output: Output) -> None:
    output.run("output.table=none")
    assert output.texts() == output.texts(0) == expected(a="first", b="first")
    swept = command("sweep", output.path)
    assert swept.result["removed"] == 0
    assert swept.result["kept"] > 0
    verified = command("verify", output.job_file, "output.table=none").result
    assert (verified["ok"], verified["table"], verified["table_switched_off"]) == (True, None, True)
    shutil.rmtree(output.log)
    assert command("sweep", output.path).result["removed"] == swept.result["kept"]
    assert sorted(labels(str(output.path))["text"]) == expected(a="first", b="second")


@pytest.mark.parametrize("stays", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("damage", ["cut short", *(pytest.param(one, marks=pytest.mark.slow) for one in ("empty", "lost"))])
def test_nothing_is_deleted_where_the_log_cannot_be_read(output: Output, damage: str, stays: bool) -> None:
    output.run()
    kept = output.files()
    table = output.table if stays else "none"
    name = {"delta": f"{0:020}.json", "iceberg": f"metadata/{'snap-*.avro' if damage == 'lost' else '*.metadata.json'}"}
    for path in output.log.glob(name[output.table]):
        path.write_bytes(b"" if damage == "empty" else path.read_bytes()[:-20])
        if damage == "lost":
            path.unlink()
    swept = command("sweep", output.job_file, f"output.table={table}")
    assert swept.code == 2
    (line,) = swept.stderr.splitlines()
    said = r"output\.(table|catalog): .*(cannot be read|cannot be used|has an empty file|does not exist)"
    assert re.search(said, line)
    assert "<unknown>" not in line, "frames of Rust"
    with pytest.raises(UserError, match=said):
        output.run(f"output.table={table}", "output.keep_versions_days=0")
    assert output.files() == kept


@pytest.mark.parametrize("output", ["delta"], indirect=True)
def test_somebody_elses_table_over_the_files_keeps_none(output: Output) -> None:
    shutil.rmtree(output.log)
    by_label = deltalake.Schema([deltalake.Field("label", deltalake.schema.PrimitiveType("string"))])
    deltalake.convert_to_deltalake(str(output.path), partition_by=by_label, partition_strategy="hive")
    output.run("output.table=none")
    assert not output.files() >= output.first_files
    assert sorted(labels(str(output.path))["text"]) == expected(a="first", b="second")


@pytest.mark.parametrize("output", ["delta"], indirect=True)
def test_verify_compares_the_table_with_the_commits(output: Output) -> None:
    output.run()
    verified = command("verify", output.job_file)
    assert verified.result["table"] == {"format": "Delta", "version": 1, "missing": [], "extra": []}
    (output.log / f"{1:020}.json").unlink()
    verified = command("verify", output.job_file)
    assert verified.code == 1
    assert not verified.result["ok"]
    table = verified.result["table"]
    assert {*table["extra"]} <= output.first_files
    assert {*table["missing"]} == output.files() - output.first_files
    assert f"lacks {len(table['missing'])} committed file" in verified.stderr
    assert f"and has {len(table['extra'])} that no commit names; `label-corpus publish` brings it" in verified.stderr
    assert command("publish", output.job_file).code == 0
    assert command("verify", output.job_file).result["ok"]
    assert json.loads(command("verify", output.path, "output.table=none", "--json").stdout)["table"] is None
