"""`publish --hub` while the hub fails, others commit, the output changes, or the publication is killed."""

import random
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.config import load_job
from jobs.maintenance.compact import compact
from jobs.publishing import hub as hub_publication
from jobs.results.labels import labels
from tests.servers.hub_server import Fault, HubServer
from tests.support.corpora import write_jsonl
from tests.support.hub_publications import (
    HAND_WRITTEN,
    NAME,
    check_each_commit,
    check_same_rows,
    label_files,
    publish,
    rows_of,
    table_of,
    write_file,
)
from tests.support.running import (
    command,
    command_in_own_process,
    job_settings,
    kill_group,
    start_command,
    write_job_file,
)
from tests.support.serial_chain import run_serially
from tests.support.tiers import mostly_slow

FAULTS = (
    Fault("POST .*/commit/", status=500),
    Fault("POST .*/commit/", status=412, times=3),
    Fault("POST .*/commit/", skip=1),
    Fault("POST .*/commit/", done=True),
    Fault("POST .*/commit/", done=True, skip=2),
    Fault("POST .*/commit/", status=403, skip=1),  # as a kill does, these end the publication
    Fault("POST .*/info/lfs", status=403, skip=1),
    Fault("GET /api/datasets", status=403, skip=2),
)


def other_commit(server: HubServer, job_file: Path) -> None:
    """Somebody else commits just before the first commit, as does the network."""

    def before(request: str) -> None:
        if request == f"POST /api/datasets/{NAME}/commit/main":
            server.before = lambda request: None
            server.put(NAME, "README.md", HAND_WRITTEN.encode())

    server.before = before


def busy(server: HubServer, job_file: Path) -> None:
    server.faults = [Fault("POST .*/commit/", status=503, times=2), Fault("POST .*/commit/", status=409)]


def lost_answer(server: HubServer, job_file: Path) -> None:
    server.faults = [Fault("POST .*/commit/", done=True, skip=1), Fault("POST .*/commit/", done=True, skip=2)]


def cut_upload(server: HubServer, job_file: Path) -> None:
    server.faults = [Fault("PUT /objects/"), Fault("GET .*/tree/"), Fault("POST .*/preupload/")]


@pytest.mark.parametrize("trouble", mostly_slow([other_commit, busy, lost_answer, cut_upload], quick=[lost_answer]))
def test_publication_comes_through(
    server: HubServer, labeled_once: Path, monkeypatch: pytest.MonkeyPatch, trouble: Callable[[HubServer, Path], None]
) -> None:
    monkeypatch.setattr(hub_publication, "BATCH_FILES", 2)
    server.create(NAME)
    trouble(server, labeled_once)
    publish(labeled_once)
    check_same_rows(server.files(NAME), labeled_once.parent / "out")
    check_each_commit(server)


@pytest.mark.slow
def test_hub_that_keeps_failing_ends_with_a_line_and_without_addresses(server: HubServer, labeled_once: Path) -> None:
    server.create(NAME)
    server.faults = [Fault("POST .*/commit/", status=500, times=1000)]
    finished = command("publish", labeled_once, "--hub", NAME, "--quiet")
    assert finished.code == 1
    assert finished.error_lines[-1] == (
        f"label-corpus: failed: the hub answered 500 for {NAME}: injected; run it again to continue"
    )
    assert "Signature" not in finished.stderr
    assert check_each_commit(server) == [set()]


@pytest.mark.slow
def test_output_that_changes_meanwhile_is_published_as_it_is_then(
    server: HubServer, job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run replaces files, and deletes the old ones, between two commits of the publication."""
    monkeypatch.setattr(hub_publication, "BATCH_FILES", 2)
    write_file(job_file.parent / "corpus", 0, rows=4)

    def before(request: str) -> None:
        if request == f"POST /api/datasets/{NAME}/commit/main":
            server.before = lambda request: None
            run_serially(load_job(str(job_file), ["compute.unit_bytes=100000"]), quiet=True)
            compact(load_job(str(job_file), []), 2**28, quiet=True)

    server.before = before
    assert publish(job_file).result["removed"] > 0
    check_same_rows(server.files(NAME), job_file.parent / "out")
    check_each_commit(server)


@pytest.mark.slow
def test_large_files_are_uploaded_in_parts_and_found_by_the_next_publication(
    server: HubServer, model: Path, tmp_path: Path
) -> None:
    numbers = iter(range(10**9))
    rows = [{"text": " ".join(f"{next(numbers) * 2654435761 % 2**32:x}" for _ in range(300))} for _ in range(400)]
    write_jsonl(tmp_path / "in.jsonl", rows)
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(tmp_path / "in.jsonl", model, tmp_path / "out"))
    run_serially(load_job(str(job_file), ["model.max_length=16"]), quiet=True)
    server.create(NAME)
    server.faults = [Fault("POST .*/commit/", status=403)]
    refused = command("publish", job_file, "model.max_length=16", "--hub", NAME)
    assert refused.code == 2
    assert sum("/objects/" in path and method == "PUT" for method, path, _ in server.requests) > 1
    server.requests.clear()
    publish(job_file)
    assert server.uploads() == [], "what the hub has received is not sent again"
    check_same_rows(server.files(NAME), tmp_path / "out")


@pytest.mark.slow
def test_publication_that_was_killed_is_continued(server: HubServer, model: Path, tmp_path: Path) -> None:
    """At moments from the first upload on; every commit has each document at most once, and the end has all."""
    job_file = label_files(tmp_path, model)
    for kills, request in enumerate(("PUT /objects/", "POST .*/verify", "POST .*/commit/", "PUT /objects/")):
        write_file(tmp_path / "corpus", 1, rows=3 + kills)
        write_file(tmp_path / "corpus", 10 + kills)
        run_serially(load_job(str(job_file), []), quiet=True)
        _publish_and_kill(server, job_file, request)
        check_each_commit(server)
        received = set(server.objects)
        server.requests.clear()
        finished = command_in_own_process("publish", job_file, "--hub", NAME, environment=server.environment())
        assert finished.code == 0, finished.stderr
        assert not received.intersection(server.uploads()), "what was uploaded before the kill is not sent again"
        check_same_rows(server.files(NAME), tmp_path / "out")
        check_each_commit(server)


def _publish_and_kill(server: HubServer, job_file: Path, request: str) -> None:
    process = start_command("publish", job_file, "--hub", NAME, environment=server.environment())
    killed = threading.Event()

    def before(found: str) -> None:
        if re.match(request, found) and not killed.is_set():
            killed.set()
            kill_group(process)
            process.wait()

    server.before = before
    process.communicate(timeout=120)
    server.before = lambda request: None
    assert killed.is_set()
    assert process.returncode < 0


@pytest.mark.slow
def test_any_order_of_runs_publications_and_faults(server: HubServer, job_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No commit ever has a document twice, or a row that was not committed, and a publication that comes through has all."""
    monkeypatch.setattr(hub_publication, "BATCH_FILES", 2)
    monkeypatch.setattr("pipeline_ops.publishing.hub_files.FILE_BYTES", 6000)
    draw, folder, came_through = random.Random(0), job_file.parent, 0
    committed = set[str]()
    for _ in range(14):
        for number in draw.sample(range(6), k=draw.randint(0, 2)):
            if draw.random() < 0.2:
                (folder / "corpus" / f"f{number}.jsonl").unlink(missing_ok=True)
            else:
                write_file(folder / "corpus", number, rows=draw.randint(1, 20), reject=draw.random() < 0.3)
        run_serially(load_job(str(job_file), ["output.drop_removed=true"]), quiet=True)
        if draw.random() < 0.2:
            compact(load_job(str(job_file), []), 2**28, quiet=True)
        committed.update(map(repr, rows_of(labels(str(folder / "out"), "arrow").to_table())))
        server.faults = [replace(draw.choice(FAULTS))] if draw.random() < 0.7 else []
        finished = command("publish", job_file, "--hub", NAME, "--quiet")
        server.faults = []
        if finished.code == 0:
            came_through += 1
            check_same_rows(server.files(NAME), folder / "out")
        else:
            assert "403" in finished.error_lines[-1]
    check_each_commit(server)
    for sha in server.repositories[NAME].log:
        assert committed.issuperset(map(repr, rows_of(table_of(server.files(NAME, sha)))))
    assert came_through
    publish(job_file)
    check_same_rows(server.files(NAME), folder / "out")
