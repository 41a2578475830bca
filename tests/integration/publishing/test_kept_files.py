"""Files that earlier versions of the table consist of stay for output.keep_versions_days, and no longer."""

import json
import re
import time
from pathlib import Path

import deltalake
import pytest

from jobs.maintenance.sweep import sweep_line
from jobs.results.labels import labels
from pipeline_ops.schema.errors import UserError
from tests.support.corpora import write_jsonl
from tests.support.running import command, job_settings, write_job_file
from tests.support.serial_chain import run_serially

DAY = 86400


class Output:
    """A job over two files, whose labels are a Delta table."""

    def __init__(self, folder: Path, model: Path):
        self.source, self.path, self.model, self.job_file = folder / "in", folder / "out", model, folder / "job.yaml"
        self.write("a", "first")
        self.write("b", "first")
        self.first_files: set[str] = set()  # of version 0

    def write(self, name: str, word: str) -> None:
        write_jsonl(self.source / f"{name}.jsonl", [{"text": f"{name} {word} {row}"} for row in range(4)])

    def run(self, *overrides: str) -> None:
        settings = job_settings(self.source, self.model, self.path, "output.table=delta", *overrides)
        write_job_file(self.job_file, settings)
        run_serially(settings, quiet=True)

    def texts(self, version: int | None = None) -> list[str]:
        table = deltalake.DeltaTable(str(self.path), version=version).to_pyarrow_table(columns=["text"])
        return sorted(table["text"].to_pylist())

    def files(self) -> set[str]:
        return {str(path.relative_to(self.path)) for path in self.path.glob("label=*/*.parquet")}


def expected(**words: str) -> list[str]:
    return sorted(f"{name} {word} {row}" for name, word in words.items() for row in range(4))


@pytest.fixture
def output(tmp_path: Path, model: Path) -> Output:
    output = Output(tmp_path, model)
    output.run()
    output.first_files = output.files()
    output.write("b", "second")
    return output


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
    before = len(list((output.path / "_delta_log").iterdir()))
    output.run()  # has nothing to do
    assert len(list((output.path / "_delta_log").iterdir())) == before

    verified = command("verify", output.job_file)
    assert (verified.code, verified.result["unreferenced"]) == (0, [])
    swept = command("sweep", output.path)  # by what is recorded there
    replaced = len(kept) - sum(1 for _ in deltalake.DeltaTable(str(output.path)).file_uris())
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
    with pytest.raises(Exception, match="parquet"):
        output.texts(0)


def test_versions_are_not_kept_for_no_days(output: Output) -> None:
    output.run("output.keep_versions_days=0")
    assert len(output.files()) == len(deltalake.DeltaTable(str(output.path)).file_uris())
    assert output.texts() == expected(a="first", b="second")


def test_small_files_that_were_merged_are_kept(output: Output) -> None:
    output.run()
    before = output.files()
    merged = command("compact", output.job_file)
    assert merged.result["merged"] > 0
    assert output.files() > before
    for version, words in ((0, ("first", "first")), (1, ("first", "second")), (None, ("first", "second"))):
        assert output.texts(version) == expected(a=words[0], b=words[1])
    assert command("verify", output.job_file).result["ok"]


def test_a_table_that_was_switched_off_keeps_its_files(output: Output) -> None:
    output.run("output.table=none")
    assert output.texts() == output.texts(0) == expected(a="first", b="first")
    swept = command("sweep", output.path)
    assert swept.result["removed"] == 0
    assert swept.result["kept"] > 0
    assert command("verify", output.job_file).result["ok"]
    for path in (output.path / "_delta_log").iterdir():
        path.unlink()
    assert command("sweep", output.path).result["removed"] == swept.result["kept"]
    assert sorted(labels(str(output.path))["text"]) == expected(a="first", b="second")


@pytest.mark.parametrize("table", ["delta", "none"])
@pytest.mark.parametrize("damage", ["empty", "cut short", "lost"])
def test_nothing_is_deleted_where_the_log_cannot_be_read(output: Output, damage: str, table: str) -> None:
    output.run()
    kept = output.files()
    entry = output.path / "_delta_log" / f"{0:020}.json"
    entry.write_bytes(b"" if damage == "empty" else entry.read_bytes()[:-20])
    if damage == "lost":
        entry.unlink()
    swept = command("sweep", output.job_file, f"output.table={table}")
    assert swept.code == 2
    (line,) = swept.stderr.splitlines()
    assert "output.table: the log of the Delta table" in line
    with pytest.raises(UserError, match=r"output\.table: the log of the Delta table"):
        output.run(f"output.table={table}", "output.keep_versions_days=0")
    assert output.files() == kept


def test_somebody_elses_table_over_the_files_keeps_none(output: Output) -> None:
    for path in (output.path / "_delta_log").iterdir():
        path.unlink()
    by_label = deltalake.Schema([deltalake.Field("label", "string")])
    deltalake.convert_to_deltalake(str(output.path), partition_by=by_label, partition_strategy="hive")
    output.run("output.table=none")
    assert not output.files() >= output.first_files
    assert sorted(labels(str(output.path))["text"]) == expected(a="first", b="second")


def test_verify_compares_the_table_with_the_commits(output: Output) -> None:
    output.run()
    verified = command("verify", output.job_file)
    assert verified.result["table"] == {"format": "Delta", "version": 1, "missing": [], "extra": []}
    (output.path / "_delta_log" / f"{1:020}.json").unlink()
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
