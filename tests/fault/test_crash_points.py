"""The commit protocol under attack: driver or worker are killed at each point of it, on S3; the next run completes it."""

import signal

import pytest

from jobs.label_corpus import run
from jobs.maintenance.verify import verify
from tests.fault.conftest import Corpus, kill, once, worker_processes
from tests.servers.s3_proxy import Rule
from tests.support.running import command_in_own_process, start_command, wait_for
from tests.support.serial_chain import run_serially

TIMEOUT_S = 120
DATA, COMMITS = r"out/label=.*", r"out/_commits/.*"


def stalled(operation: str, key: str, skip: int = 0) -> Rule:
    return Rule("stall", operation, key, skip=skip, times=None, seconds=600)


CRASH_POINTS = {
    "before_the_first_file": stalled("PutObject", DATA),
    "between_two_files_of_a_unit": stalled("PutObject", DATA, skip=1),
    "after_the_files_before_the_commit": stalled("PutObject", COMMITS),
    "between_two_commits": stalled("PutObject", COMMITS, skip=3),
    "in_the_first_sweep": stalled("DeleteObjects", "", skip=0),
}


TIERS = {
    "after_the_files_before_the_commit": (),
    "between_two_commits": pytest.mark.slow,
    "in_the_first_sweep": pytest.mark.slow,
}


@pytest.mark.parametrize("point", [pytest.param(point, marks=TIERS.get(point, pytest.mark.campaign)) for point in CRASH_POINTS])
def test_driver_killed_at_a_crash_point_is_continued_exactly_once(ray_address: str, corpus: Corpus, point: str):
    rule, proxy = CRASH_POINTS[point], corpus.bucket.proxy
    if point == "in_the_first_sweep":  # something has to be swept: a run that died before
        leave_garbage(corpus)
    with proxy.faults(rule):
        process = start_command("run", corpus.job_file, "--quiet", ray_address=ray_address)
        try:
            wait_for(
                lambda: bool(corpus.bucket.journal.faults()["stall"]) or process.poll() is not None,
                point,
                TIMEOUT_S,
            )
            assert process.poll() is None, process.communicate()[1]
        finally:
            process.kill()
            process.communicate()
    committed = set(corpus.commits())
    assert bool(committed) == (point == "between_two_commits")
    summary = run_serially(corpus.job, quiet=True)
    corpus.check_exactly_once()
    assert summary.units_skipped == len(committed), "what was committed is not labeled again"
    assert verify(corpus.job, deep=True)["ok"]


def leave_garbage(corpus: Corpus) -> None:
    for name in ("0" * 24 + "-" + "0" * 12, "1" * 24 + "-" + "1" * 12):
        corpus.bucket.filesystem.pipe_file(f"{corpus.output}/label=POSITIVE/{name}.parquet", b"left by a run that died")


def test_commit_that_was_put_but_whose_answer_was_lost_counts_as_ours(corpus: Corpus):
    with corpus.bucket.proxy.faults(
        Rule("after_reset", "PutObject", COMMITS, times=2),
        Rule("after_status", "PutObject", COMMITS, skip=2, times=2, status=500),
    ):
        summary = run_serially(corpus.job, quiet=True)
    assert sum(corpus.bucket.journal.faults("PutObject", COMMITS).values()) == 4
    assert summary.files_incomplete == 0
    corpus.check_exactly_once()


@pytest.mark.slow
def test_commit_whose_answer_is_lost_for_good_is_found_by_the_next_run(ray_address: str, corpus: Corpus):
    with corpus.bucket.proxy.faults(Rule("after_reset", "PutObject", COMMITS, times=None)):
        finished = command_in_own_process("run", corpus.job_file, "--quiet", ray_address=ray_address)
    assert finished.code == 1
    assert len(corpus.commits()) == 1
    assert run_serially(corpus.job, quiet=True).units_skipped == 1
    corpus.check_exactly_once()


@pytest.mark.parametrize("actor", ["ClassifyActor", pytest.param("TokenizeActor", marks=pytest.mark.campaign)])
def test_worker_killed_in_the_middle_is_replaced_within_the_run(ray_address: str, corpus: Corpus, actor: str):
    """A classifier while the first unit is being committed; a tokenizer, which may be done by then, once it is there."""

    def is_time() -> bool:
        return bool(corpus.bucket.journal.faults()["delay"] if actor == "ClassifyActor" else worker_processes(actor))

    pause = Rule("delay", "PutObject", COMMITS, seconds=5)
    with corpus.bucket.proxy.faults(pause), once(is_time, lambda: kill(worker_processes(actor)[0])):
        summary = run(corpus.job, quiet=True)
    assert (summary.units_failed, summary.files_incomplete) == (0, 0)
    corpus.check_exactly_once()
    assert verify(corpus.job)["ok"]


@pytest.mark.slow
def test_driver_ended_by_sigterm_frees_the_output_at_once(ray_address: str, corpus: Corpus):
    with corpus.bucket.proxy.faults(Rule("delay", "PutObject", COMMITS, skip=1, times=None, seconds=1)):
        process = start_command("run", corpus.job_file, "--quiet", ray_address=ray_address)
        try:
            wait_for(lambda: bool(corpus.commits()) or process.poll() is not None, "a commit", TIMEOUT_S)
            process.send_signal(signal.SIGTERM)
            stderr = process.communicate(timeout=TIMEOUT_S)[1]
        finally:
            process.kill()
    assert process.returncode == 143, stderr
    assert run_serially(corpus.job, quiet=True).units_skipped >= 1
    corpus.check_exactly_once()
