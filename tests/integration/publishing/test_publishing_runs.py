"""A job's Delta table: each version is what was committed at its moment, and the newest one is what labels() reads."""

import json
import threading
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest

from jobs.config import load_job
from jobs.console.run_summary import run_lines
from jobs.label_corpus import labels
from jobs.maintenance.verify import verify
from pipeline_ops.schema.errors import UserError
from tests.support.corpora import real_documents, write_jsonl
from tests.support.running import Finished, command, job_settings, snapshot, write_job_file
from tests.support.serial_chain import run_serially

COLUMNS = ["source_file", "source_row", "text", "label", "score"]


class Job:
    """A job over files of texts, whose labels are a Delta table."""

    def __init__(self, folder: Path, model: Path):
        self.folder, self.model, self.source, self.output = folder, model, folder / "in", folder / "out"
        self.job_file = folder / "job.yaml"

    def write(self, name: str, texts: list[str], **columns: Any) -> None:
        write_jsonl(self.source / name, [{"text": text, **columns} for text in texts])

    def settings(self, *overrides: str) -> dict[str, Any]:
        more = ("compute.unit_bytes=2000", "output.table=delta", *overrides)
        settings = job_settings(self.source, self.model, self.output, *more)
        write_job_file(self.job_file, settings)
        return settings

    def command(self, name: str, *arguments: object) -> Finished:
        return command(name, self.job_file, *arguments)

    def opened(self, version: int | None = None) -> deltalake.DeltaTable:
        return deltalake.DeltaTable(str(self.output), version=version)

    def actions(self, version: int) -> list[dict[str, Any]]:
        """Of the files that a version adds and removes."""
        lines = (self.output / f"_delta_log/{version:020}.json").read_text().splitlines()
        return [action for line in lines for kind, action in json.loads(line).items() if kind in ("add", "remove")]

    def check(self) -> None:
        """The newest version has the rows of labels(), and verify finds nothing wrong."""
        table = self.opened().to_pyarrow_table(columns=COLUMNS).sort_by([(name, "ascending") for name in COLUMNS[:2]])
        found = labels(str(self.output), "arrow", columns=COLUMNS).to_table()
        assert table.to_pylist() == found.sort_by([(name, "ascending") for name in COLUMNS[:2]]).to_pylist()


@pytest.fixture
def job(tmp_path: Path, model: Path) -> Job:
    return Job(tmp_path, model)


TEXTS = real_documents(60, seed=4)


def test_a_run_publishes_while_it_goes_and_at_its_end_and_the_next_one_writes_nothing(job: Job) -> None:
    job.write("a.jsonl", TEXTS[:20])
    job.write("b.jsonl", TEXTS[20:40], year=2024)
    result = run_serially(job.settings("output.publish_seconds=0.000001"), quiet=True)
    newest = job.opened().version()
    assert result.table == {"format": "Delta", "version": newest}
    assert run_lines(result, "job.yaml")[0].endswith(f"in {job.output}, Delta table, version {newest}")
    counts = [job.opened(version).to_pyarrow_table(columns=["text"]).num_rows for version in range(newest + 1)]
    assert counts == sorted({*counts}), "each version has more"
    assert (len(counts) > 3, counts[-1]) == (True, 40)
    assert job.opened().history()[0]["label-corpus.run"] == json.loads((job.output / "_job.json").read_text())["run"]
    job.check()
    before = snapshot(job.output)
    again = run_serially(job.settings(), quiet=True)
    assert (again.table, snapshot(job.output)) == (result.table, before)


def test_versions_follow_files_that_come_change_and_go(job: Job) -> None:
    job.write("a.jsonl", TEXTS[:10])
    job.write("b.jsonl", TEXTS[10:14])
    run_serially(job.settings(), quiet=True)
    job.write("b.jsonl", TEXTS[14:20])
    job.write("c.jsonl", TEXTS[20:30], year=2024)
    run_serially(job.settings(), quiet=True)
    assert job.opened().to_pyarrow_table().column_names[-1] == "year"
    job.check()
    (job.source / "a.jsonl").unlink()
    result = run_serially(job.settings("output.drop_removed=true"), quiet=True)
    assert job.opened().to_pyarrow_table().num_rows == result.labeled == 16
    job.check()


def test_a_table_that_is_asked_for_later_is_published_though_nothing_is_left_to_label(job: Job) -> None:
    job.write("a.jsonl", TEXTS[:10])
    assert run_serially(job.settings("output.table=none"), quiet=True).table is None
    assert not (job.output / "_delta_log").exists()
    result = run_serially(job.settings(), quiet=True)
    assert (result.documents_run, result.table) == (0, {"format": "Delta", "version": 0})
    job.check()


def test_a_trial_has_no_table(job: Job) -> None:
    job.write("a.jsonl", TEXTS[:10])
    assert run_serially(job.settings(), quiet=True, limit=3).table is None
    assert not (job.folder / "out-trial/_delta_log").exists()


def test_the_command_publishes_the_difference_by_job_file_or_folder(job: Job) -> None:
    job.write("a.jsonl", TEXTS[:20])
    run_serially(job.settings("output.table=none"), quiet=True)
    refused = job.command("publish")
    assert (refused.code, len(refused.error_lines)) == (2, 1)
    assert "output.table: is none, so there is no table to publish; set it to delta or iceberg" in refused.stderr
    files = len([*job.output.glob("label=*/*.parquet")])
    published = command("publish", job.output, "output.table=delta")
    assert published.code == 0, published.stderr
    facts = {"format": "Delta", "version": 0, "added": files, "removed": 0, "files": files, "rows": 20}
    assert {key: published.result[key] for key in facts} == facts
    assert {*published.result} - {*facts} == {"seconds", "output"}
    job.settings()
    again = job.command("publish")
    assert {key: again.result[key] for key in facts} == facts | {"added": 0}
    job.check()


def test_compact_and_sweep_keep_the_table_right(job: Job) -> None:
    job.write("a.jsonl", TEXTS)
    run_serially(job.settings("output.publish_seconds=1000"), quiet=True)
    compacted = job.command("compact")
    assert compacted.code == 0, compacted.stderr
    assert compacted.result["merged"] > 0
    assert {action["dataChange"] for action in job.actions(1)} == {False}
    job.check()
    assert job.command("sweep").code == 0
    assert job.opened().version() == 1
    job.check()


def test_what_a_killed_run_has_committed_is_published_by_the_next_one(job: Job) -> None:
    job.write("a.jsonl", TEXTS[:20])
    run_serially(job.settings(), quiet=True)
    job.write("b.jsonl", TEXTS[20:30])
    run_serially(job.settings("output.table=none"), quiet=True)  # as one that is killed before it publishes
    settings = job.settings()
    assert job.opened().to_pyarrow_table().num_rows == 20
    result = run_serially(settings, quiet=True)
    assert (result.documents_run, result.table) == (0, {"format": "Delta", "version": 1})
    job.check()


def test_a_table_that_cannot_be_written_stops_no_labeling_but_the_run_ends_with_the_reason(job: Job) -> None:
    job.write("a.jsonl", TEXTS[:10], language="en")
    job.write("b.jsonl", TEXTS[10:20], language="")
    settings = job.settings("output.partition_by=[language]", "output.publish_seconds=0.000001")
    with pytest.raises(UserError, match="empty text in the partition column 'language', which Delta Lake takes for null"):
        run_serially(settings, quiet=True)
    assert len(labels(str(job.output))) == 20


def test_somebody_elses_table_is_refused_before_anything_is_written(job: Job) -> None:
    job.write("a.jsonl", TEXTS[:10])
    job.output.mkdir()
    deltalake.write_deltalake(str(job.output), pa.table({"text": ["theirs"]}))
    before = snapshot(job.output)
    job.settings()
    refused = job.command("run", "--quiet")
    assert (refused.code, len(refused.error_lines)) == (2, 1), refused.stderr
    assert "is a Delta table that label-corpus has not written" in refused.stderr
    assert snapshot(job.output) == before


@pytest.mark.slow
def test_a_reader_of_the_table_while_a_run_on_ray_goes_sees_no_document_twice(ray_address: str, job: Job) -> None:
    for name in "abcd":
        job.write(f"{name}.jsonl", TEXTS)
    job.settings("output.publish_seconds=0.05")
    versions: dict[int, int] = {}
    ended = threading.Event()

    def read() -> None:
        while not ended.wait(0.02):
            try:
                table = job.opened()
            except deltalake.exceptions.TableNotFoundError:
                continue
            keys = table.to_pyarrow_table(columns=COLUMNS[:2]).to_pylist()
            assert len({tuple(key.values()) for key in keys}) == len(keys), f"version {table.version()}"
            versions[table.version()] = len(keys)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        finished = job.command("run", "--quiet", "--no-report")
    finally:
        ended.set()
        reader.join()
    assert finished.code == 0, finished.stderr
    assert finished.result["table"]["version"] == job.opened().version()
    assert len(versions) > 1, versions
    assert [versions[version] for version in sorted(versions)] == sorted({*versions.values()})
    job.check()
    assert verify(load_job(str(job.job_file)))["ok"]
