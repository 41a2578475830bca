"""Runs on an output that holds labels already: finished, grown, changed, shrunk, or made with other settings."""

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.label_corpus import run
from jobs.maintenance.verify import verify
from pipeline_ops.schema.errors import UserError
from tests.integration.conftest import FinishedJob
from tests.support.corpora import real_documents, write_jsonl, write_parquet
from tests.support.invariant import check_exactly_once
from tests.support.running import command, keys, make_job, snapshot
from tests.support.serial_chain import run_serially

TEXTS = real_documents(40, seed=1)


def write_texts(path: Path, texts: list[str], modified: float) -> Path:
    """A corpus file whose modification time is given: two writes within one tick of the clock would look alike."""
    write_jsonl(path, [{"text": text} for text in texts])
    os.utime(path, (modified, modified))
    return path


def test_run_of_a_finished_job_writes_nothing_and_exits_0(finished_job: FinishedJob):
    before = snapshot(finished_job.output)
    again = command("run", finished_job.job_file, "--quiet")
    assert again.code == 0
    assert snapshot(finished_job.output) == before
    assert again.result["units_skipped"] == again.result["units"] == finished_job.result["units"]
    assert again.result["documents_run"] == again.result["tokens_run"] == 0
    for count in ("documents", "labeled", "rejected", "tokens", "labels"):
        assert again.result[count] == finished_job.result[count]


def test_run_on_an_input_that_grew_and_changed_and_changed_back_follows_it(model: Path, tmp_path: Path):
    source, output = tmp_path / "in", tmp_path / "out"
    job = make_job(source, model, output)
    same = write_parquet(source / "same.parquet", pa.table({"text": TEXTS[:10]}))
    changing = write_texts(source / "changing.jsonl", TEXTS[10:20], modified=1e9)
    neighbor = write_texts(source / "neighbor.jsonl", TEXTS[20:30], modified=1e9)  # in one unit with the changing file
    first = run_serially(job, quiet=True)
    check_exactly_once(output, keys(same, 10) + keys(changing, 10) + keys(neighbor, 10))
    written_of_same = {path: stamp for path, stamp in snapshot(output).items() if str(same) in source_files(Path(path))}
    assert len(written_of_same) > 1, "the labeled file and its commit"

    # the old rows of the changed file are gone, also from the unit that it shares with its neighbor
    new = write_texts(source / "new.jsonl", TEXTS[30:35], modified=1e9)
    write_texts(changing, TEXTS[35:], modified=1.1e9)
    second = run_serially(job, quiet=True)
    labeled, _ = check_exactly_once(output, keys(same, 10) + keys(changing, 5) + keys(neighbor, 10) + keys(new, 5))
    assert texts_of(labeled, changing) == TEXTS[35:]
    assert texts_of(labeled, neighbor) == TEXTS[20:30]
    assert (second.documents, second.documents_run) == (30, 10), "what has not changed is not labeled again"
    assert (first.documents, first.units_skipped) == (30, 0)
    assert written_of_same.items() <= snapshot(output).items()
    assert verify(job)["ok"]

    # the removed file's labels stay
    new.unlink()
    before = snapshot(output)
    run_serially(job, quiet=True)
    assert snapshot(output) == before
    assert verify(job)["removed"] == [str(new)]

    # the same bytes and the same time as at first: the unit of then is labeled and committed once more
    write_texts(new, TEXTS[30:35], modified=1e9)
    write_texts(changing, TEXTS[10:20], modified=1e9)
    third = run_serially(job, quiet=True)
    labeled, _ = check_exactly_once(output, keys(same, 10) + keys(changing, 10) + keys(neighbor, 10) + keys(new, 5))
    assert texts_of(labeled, changing) == TEXTS[10:20]
    assert third.documents == 35
    assert verify(job)["ok"]


def test_run_on_one_file_that_changed_back_labels_it_again(model: Path, tmp_path: Path):
    source, output = tmp_path / "corpus.jsonl", tmp_path / "out"
    job = make_job(source, model, output)
    for texts, modified in ((TEXTS[:5], 1e9), (TEXTS[5:12], 1.1e9), (TEXTS[:5], 1e9)):
        write_texts(source, texts, modified)
        summary = run_serially(job, quiet=True)
        labeled, _ = check_exactly_once(output, keys(source, len(texts)))
        assert texts_of(labeled, source) == texts
        assert summary.documents == len(texts)


def test_run_with_settings_that_change_results_refuses_and_names_them(finished_job: FinishedJob):
    before = snapshot(finished_job.output)
    for setting, key in (("model.max_length=64", "model.max_length"), ("input.min_characters=3", "input.min_characters")):
        with pytest.raises(UserError, match=key):
            run(finished_job.job(finished_job.output, setting), quiet=True)
    assert snapshot(finished_job.output) == before


def test_run_with_other_numbers_of_actors_continues_the_same_output(finished_job: FinishedJob):
    before = snapshot(finished_job.output)
    run(finished_job.job(finished_job.output, "compute.batch_tokens=64", "compute.unit_bytes=1000"), quiet=True)
    assert snapshot(finished_job.output) == before


def test_run_on_an_output_with_leftovers_sweeps_them_and_nothing_else(finished_job: FinishedJob, tmp_path: Path):
    output = shutil.copytree(finished_job.output, tmp_path / "out")
    before = snapshot(output)
    victim = next(output.glob("label=*/*.parquet"))
    unit = victim.name.split("-")[0]
    foreign = output / "label=POSITIVE" / "notes.txt"  # not ours to delete
    foreign.write_text("keep me")
    leftovers = [
        victim.with_name(f"{unit}-{'0' * 12}.parquet"),
        victim.with_name(".incomplete-0123456789abcdef"),
        output / "label=NEVER" / f"{unit}-{'1' * 12}.parquet",
        output / "_rejects" / f"{unit}-{'0' * 12}.jsonl",
    ]
    for path in leftovers:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(victim.read_bytes())
    run(finished_job.job(output), quiet=True)
    assert labels(output) == {*filter(is_label, before), str(foreign)}
    assert not (output / "label=NEVER").exists()


def is_label(path: str) -> bool:
    return "/_lease/" not in path


def labels(output: Path) -> set[str]:
    """Every file of the output but the lease, of which each run leaves another generation."""
    return set(filter(is_label, snapshot(output)))


def texts_of(labeled: pa.Table, source: Path) -> list[str]:
    rows = labeled.sort_by("source_row").to_pylist()
    return [row["text"] for row in rows if row["source_file"] == str(source)]


def source_files(path: Path) -> set[str]:
    """The input files that a labeled file or a commit of the output is about."""
    if path.suffix == ".parquet":
        return set(pq.ParquetFile(path).read()["source_file"].to_pylist())
    if path.parent.name == "_commits":
        return {piece["path"] for piece in json.loads(path.read_text())["pieces"]}
    return set()
