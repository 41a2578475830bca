"""Scheduled runs over an input on S3 that grows, changes and shrinks: what is read, what is listed, what a reader sees."""

import json
import uuid
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest

from jobs.maintenance.verify import verify
from pipeline_ops.output.commit_log import read_ledger
from pipeline_ops.storage.store import Store
from tests.conftest import Bucket
from tests.servers.s3_proxy import Rule
from tests.servers.stepped_store import Program
from tests.support.invariant import check_exactly_once
from tests.support.running import keys, make_job
from tests.support.serial_chain import run_serially

INPUT = "in/.*"


def put_lines(s3: Bucket, name: str, texts: Iterable[str]) -> str:
    s3.filesystem.pipe_file(f"{s3.name}/in/{name}", "".join(json.dumps({"text": text}) + "\n" for text in texts).encode())
    return f"{s3.url}/in/{name}"


@pytest.fixture
def texts() -> list[str]:
    return [f"document {number}, which is about number {number * number}" for number in range(100)]


def test_changed_file_is_read_alone_and_its_neighbors_rows_stay(s3: Bucket, model: Path, texts: list[str]):
    """Small files share units: the unchanged ones are neither read nor labeled again."""
    paths = [put_lines(s3, f"{number}.jsonl", texts[10 * number : 10 * number + 10]) for number in range(5)]
    job = make_job(f"{s3.url}/in", model, f"{s3.url}/out", f"storage.endpoint_url={s3.endpoint_url}")
    first = run_serially(job, quiet=True)
    assert first.units == 1, "they share a unit"

    put_lines(s3, "1.jsonl", texts[50:53])
    new = put_lines(s3, "9.jsonl", texts[60:64])
    s3.journal.clear()
    second = run_serially(job, quiet=True)
    assert {request.key for request in s3.journal.requests("GetObject", INPUT)} == {"in/1.jsonl", "in/9.jsonl"}
    expected = [key for path in paths if path != paths[1] for key in keys(path, 10)] + keys(paths[1], 3) + keys(new, 4)
    labeled, _ = check_exactly_once(f"{s3.name}/out", expected, s3.filesystem)
    rows = {(row["source_file"], row["source_row"]): row["text"] for row in labeled.to_pylist()}
    assert [rows[paths[1], row] for row in range(3)] == texts[50:53]
    assert [rows[paths[4], row] for row in range(10)] == texts[40:50]
    assert (second.documents, second.documents_run, second.files_changed) == (47, 7, 1)
    assert verify(job, deep=True)["ok"]

    # nothing has changed: the input is listed once, and nothing else of it is asked for
    s3.journal.clear()
    run_serially(job, quiet=True)
    assert [request.operation for request in s3.journal.requests(key=INPUT)] == []
    assert s3.journal.requests("PutObject|DeleteObjects?") == []


def test_unchanged_input_is_listed_once(s3: Bucket, model: Path, texts: list[str]):
    put_lines(s3, "a.jsonl", texts[:5])
    job = make_job(f"{s3.url}/in", model, f"{s3.url}/out", f"storage.endpoint_url={s3.endpoint_url}")
    run_serially(job, quiet=True)
    put_lines(s3, "b.jsonl", texts[5:9])
    s3.journal.clear()
    run_serially(job, quiet=True)
    asked = [request.prefix for request in s3.journal.requests("ListObjects")]
    assert asked.count("in/") == 1, asked
    assert s3.journal.requests("HeadObject", INPUT) == []


def test_reader_of_commits_never_sees_both_versions_of_a_changed_file(model: Path, texts: list[str]):
    """Read between any two requests of a run that replaces it."""
    root = f"stepped://{uuid.uuid4().hex}"
    source, job = Store(f"{root}/in"), make_job(f"{root}/in", model, f"{root}/out")
    contents = ["".join(json.dumps({"text": text}) + "\n" for text in texts[start : start + 10]) for start in (0, 10, 20, 50)]
    paths = [source.join(f"{number}.jsonl") for number in range(3)]
    source.put_many({f"{number}.jsonl": contents[number].encode() for number in range(3)})
    run_serially(job, quiet=True)
    source.put("1.jsonl", contents[3].encode())
    seen: list[list[tuple[str, str]]] = []
    program = Program(partial(run_serially, job, quiet=True))
    while not program.ended:
        program.step()
        current = read_ledger(job.output_store).current.values()
        seen.append(sorted({(piece.path, piece.identity) for commit in current for piece in commit.pieces}))
    assert program.error is None, program.error
    before, after = seen[0], seen[-1]
    assert len(seen) > 20
    assert [path for path, _ in before] == [path for path, _ in after] == paths
    assert before[1] != after[1]
    for versions in seen:
        found = [path for path, _ in versions]
        assert len(found) == len(set(found)), "two versions of one file"
        assert {paths[0], paths[2]} <= set(found), "unchanged files are always there"


@pytest.mark.parametrize("drop", [False, True])
def test_removed_file_is_reported_and_dropped_only_on_request(s3: Bucket, model: Path, texts: list[str], drop: bool):
    kept = put_lines(s3, "kept.jsonl", texts[:5])
    gone = put_lines(s3, "gone.jsonl", [*texts[5:9], ""])
    alone = f"{s3.url}/in/alone.txt"
    s3.filesystem.pipe_file(f"{s3.name}/in/alone.txt", b"of another format, so in a unit of its own\n")
    storage = f"storage.endpoint_url={s3.endpoint_url}"
    job = make_job(f"{s3.url}/in", model, f"{s3.url}/out", storage, "input.min_characters=1", f"output.drop_removed={drop}")
    run_serially(job, quiet=True)
    for path in (gone, alone):
        s3.filesystem.rm_file(path.removeprefix("s3://"))
    put_lines(s3, "new.jsonl", texts[10:12])
    s3.journal.clear()
    summary = run_serially(job, quiet=True)
    assert (summary.files_removed, summary.removed) == (2, [alone, gone])
    assert {request.key for request in s3.journal.requests("GetObject", INPUT)} == {"in/new.jsonl"}
    expected = keys(kept, 5) + keys(f"{s3.url}/in/new.jsonl", 2)
    if not drop:
        expected += keys(gone, 5) + keys(alone, 1)
    check_exactly_once(f"{s3.name}/out", expected, s3.filesystem)
    assert summary.documents == len(expected)
    report = verify(job, deep=True)
    assert report["ok"]
    assert bool(report["removed"]) != drop


def test_changed_file_that_cannot_be_read_keeps_its_old_labels(s3: Bucket, model: Path, texts: list[str]):
    paths = [put_lines(s3, f"{name}.jsonl", texts[:5]) for name in "ab"]
    job = make_job(f"{s3.url}/in", model, f"{s3.url}/out", f"storage.endpoint_url={s3.endpoint_url}")
    run_serially(job, quiet=True)
    put_lines(s3, "a.jsonl", texts[20:29])
    with s3.proxy.faults(Rule("status", "GetObject", "in/a.jsonl", skip=1, times=None, status=403, code="AccessDenied")):
        summary = run_serially(job, quiet=True)
    assert (summary.units_failed, summary.files_incomplete) == (1, 1)
    check_exactly_once(f"{s3.name}/out", [key for path in paths for key in keys(path, 5)], s3.filesystem)
    run_serially(job, quiet=True, retry_failed=True)
    check_exactly_once(f"{s3.name}/out", keys(paths[0], 9) + keys(paths[1], 5), s3.filesystem)
