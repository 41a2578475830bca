"""Documents, units and files that do harm: each is quarantined with its reason, and everything else is labeled."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.label_corpus import run
from jobs.maintenance.verify import verify
from tests.models import tiny
from tests.support.corpora import real_documents, write_bytes, write_jsonl, write_parquet
from tests.support.invariant import Key, check_exactly_once
from tests.support.ray_nodes import ray_nodes
from tests.support.running import (
    command,
    job_settings,
    keys,
    kill_group,
    make_job,
    output_files,
    snapshot,
    start_command,
    write_job_file,
)
from tests.support.serial_chain import run_serially
from tests.support.tiers import mostly_slow

UNIT_BYTES = 4000


@pytest.fixture(scope="session")
def poisonous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("poisonous")
    return tiny.make_poisonous_model(folder / "model", folder / "cured")


def texts_with(poison: dict[int, str], count: int = 60) -> list[str]:
    texts = [text[:300] for text in real_documents(count, seed=3)]
    for row, word in poison.items():
        texts[row] = f"a text with {word} in it"
    return texts


def test_document_that_makes_the_model_raise_is_rejected_alone(poisonous: Path, tmp_path: Path):
    poison = {7: tiny.RAISING_WORD, 8: tiny.RAISING_WORD, 30: tiny.UNKNOWN_WORD, 59: tiny.RAISING_WORD}
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts_with(poison)])
    job = make_job(source, poisonous, tmp_path / "out", "model.trust_remote_code=true", f"compute.unit_bytes={UNIT_BYTES}")
    summary = run_serially(job, quiet=True)
    _, rejects = check_exactly_once(tmp_path / "out", keys(source, 60))
    assert {reject["source_row"]: reject["reason"] for reject in rejects} == dict.fromkeys(poison, "model_error")
    assert "a poisonous document" in next(reject["detail"] for reject in rejects if reject["source_row"] == 7)
    assert "token id" in next(reject["detail"] for reject in rejects if reject["source_row"] == 30)
    assert (summary.rejected, summary.units_failed, summary.files_incomplete) == (4, 0, 0)
    assert verify(job, deep=True)["ok"]


@pytest.mark.campaign
def test_unit_that_kills_its_classifier_on_a_gpu_is_quarantined_alone(poisonous: Path, tmp_path: Path):
    """Beside it, the process has another unit's call in flight, which is not to blame, and is labeled once."""
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts_with({7: tiny.KILLING_WORD}, count=20)])
    gpu = ("compute.gpus_per_classifier=1", "compute.batch_tokens=64", "compute.unit_bytes=1")
    settings = job_settings(source, poisonous, tmp_path / "out", "model.trust_remote_code=true", *gpu)
    with ray_nodes(tmp_path) as nodes:
        nodes.add_node(num_cpus=4, num_gpus=1)
        process = start_command(
            *("run", write_job_file(tmp_path / "job.yaml", settings), "--quiet"),
            ray_address=nodes.address,
            environment=nodes.environment,
            module="tests.support.pretended_gpus",
        )
        try:
            stdout, stderr = process.communicate(timeout=240)
        finally:
            kill_group(process)
    assert process.returncode == 1, stderr
    (why,) = json.loads(stdout.splitlines()[-1])["failed"]
    assert "died 3 times" in why
    missing = set(keys(source, 20)) - read_keys(tmp_path / "out")
    assert missing == set(keys(source, range(7, 8))), "a unit of one document"


@pytest.mark.slow
def test_unit_that_kills_its_worker_is_quarantined_and_labeled_by_a_retry(ray_address: str, poisonous: Path, tmp_path: Path):
    """The segmentation fault is a real one, in the process that holds the model."""
    source = write_parquet(
        tmp_path / "in.parquet", [{"text": text} for text in texts_with({25: tiny.KILLING_WORD})], row_group_size=10
    )
    output = tmp_path / "out"
    settings = job_settings(source, poisonous, output, "model.trust_remote_code=true", "compute.unit_bytes=1")
    job_file = write_job_file(tmp_path / "job.yaml", settings)
    first = command("run", job_file, "--quiet")
    failed_rows = set(keys(source, range(25, 26)))
    found = read_keys(output)
    assert first.code == 1, first.stderr
    assert failed_rows <= set(keys(source, 60)) - found
    assert len(found) >= 50, "the rest is labeled"
    assert (first.result["units_failed"], first.result["files_incomplete"]) == (1, 1)
    (why,) = first.result["failed"]
    assert str(source) in why
    assert "died 3 times" in why

    # a later run leaves it alone, and says so
    before = output_files(output)
    again = command("run", job_file, "--quiet")
    assert (again.code, again.result["units_failed"], again.result["documents_run"]) == (1, 1, 0)
    assert output_files(output) == before
    assert command("verify", job_file).code == 1

    cured = poisonous.parent / "cured"
    cured.touch()
    try:
        retried = command("run", job_file, "--quiet", "--retry-failed")
    finally:
        cured.unlink()
    assert (retried.code, retried.result["units_failed"]) == (0, 0), retried.stderr
    check_exactly_once(output, keys(source, 60))
    assert command("verify", job_file).code == 0


def test_unreadable_files_are_quarantined_by_name_and_taken_up_when_they_change(model: Path, tmp_path: Path):
    source, output = tmp_path / "in", tmp_path / "out"
    texts = [{"text": text[:300]} for text in real_documents(90, seed=4)]
    good = [write_parquet(source / "a.parquet", texts[:30]), write_jsonl(source / "z.jsonl", texts[:30])]
    truncated = write_parquet(source / "b.parquet", texts[:30])
    truncated.write_bytes(truncated.read_bytes()[:-100])
    broken = write_jsonl(source / "c.jsonl.zst", [{"text": f"{row} {document['text']}"} for row, document in enumerate(texts)])
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    job = make_job(source, model, output, f"compute.unit_bytes={UNIT_BYTES}")
    summary = run_serially(job, quiet=True)
    failed = json.dumps(summary.failed)
    assert str(truncated) in failed
    assert str(broken) in failed
    assert (summary.units_failed, summary.files_incomplete) == (2, 2)
    labeled = read_keys(output)
    assert {key for key in labeled if key[0] != str(broken)} == {key for path in good for key in keys(path, 30)}
    assert not verify(job)["ok"]

    assert run_serially(job, quiet=True).documents_run == 0, "left alone"

    write_bytes(broken, b"")
    broken.write_bytes(whole)
    write_parquet(truncated, texts[:30])
    mended = run_serially(job, quiet=True)
    everything = [key for path in [*good, truncated] for key in keys(path, 30)] + keys(broken, 90)
    check_exactly_once(output, everything)
    assert (mended.units_failed, mended.files_incomplete) == (0, 0)
    assert verify(job)["ok"]


def write_one_good_file(folder: Path, broken: Path) -> list[Key]:
    """Five documents beside what a server has sent in place of a file."""
    broken.write_bytes(b"<html>404</html>")
    return keys(write_jsonl(folder / "ok.jsonl.gz", [{"text": f"a good text, number {row}"} for row in range(5)]), 5)


def write_many_good_files(folder: Path, broken: Path) -> list[Key]:
    """59 files of 20 kB, of which half stand before the broken one."""
    broken.write_bytes(random.Random(0).randbytes(20_000))
    texts = [text[:300] for text in real_documents(60)]
    found = []
    for number in range(59):
        path = write_jsonl(folder / f"{'a' if number < 30 else 'c'}{number}.jsonl", [{"text": text} for text in texts])
        found += keys(path, 60)
    return found


@pytest.mark.usefixtures("ray_address")
@pytest.mark.parametrize(
    "write_good_files", mostly_slow([write_one_good_file, write_many_good_files], quick=[write_many_good_files])
)
def test_small_broken_file_is_quarantined_and_those_beside_it_are_labeled(
    write_good_files: Callable[[Path, Path], list[Key]], model: Path, tmp_path: Path
):
    """Ray puts what is read of small files into one block: there, rows of units that failed stand beside good ones."""
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    broken = source / "bad.jsonl.gz"
    expected = write_good_files(source, broken)
    job = make_job(source, model, output)
    first = run(job, quiet=True)
    check_exactly_once(output, expected)
    assert (first.labeled, first.rejected, first.units_failed, first.files_incomplete) == (len(expected), 0, 1, 1)
    (why,) = first.failed
    assert str(broken) in why
    assert not first.complete, "the command ends with 1"

    before = snapshot(output)
    again = run(job, quiet=True)
    assert (again.documents_run, again.labeled, again.failed) == (0, len(expected), first.failed)
    assert snapshot(output) == before


def test_run_with_more_failures_than_allowed_stops_early(model: Path, tmp_path: Path):
    source = tmp_path / "in"
    write_jsonl(source / "0.jsonl", [{"text": "a good one"}])
    for number in range(1, 9):
        write_bytes(source / f"{number}.parquet", b"this is no Parquet file")
    job = make_job(source, model, tmp_path / "out", "compute.max_failed_units=2")
    summary = run_serially(job, quiet=True)
    assert summary.units_failed == 3
    assert summary.files_incomplete >= 8
    assert all("Parquet" in why or "parquet" in why for why in summary.failed), "though no file of the format can be read"


def read_keys(output: Path) -> set[Key]:
    """What stands in an output that is not complete; nothing twice."""
    from fsspec.implementations.local import LocalFileSystem

    from tests.support.invariant import read_labeled, read_rejects

    labeled = read_labeled(output, LocalFileSystem())
    found = list(zip(labeled["source_file"].to_pylist(), labeled["source_row"].to_pylist(), strict=True))
    found += [(reject["source_file"], reject["source_row"]) for reject in read_rejects(output, LocalFileSystem())]
    assert len(found) == len(set(found))
    return set(found)
