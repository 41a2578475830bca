"""An object store that fails: for a moment, for good, or with wrong bytes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.label_corpus import RunResult, run
from jobs.maintenance.verify import verify
from tests.fault.conftest import Corpus, every_fault
from tests.servers.s3_proxy import Rule
from tests.support.running import command, command_in_own_process
from tests.support.serial_chain import run_serially
from tests.support.tiers import mostly_slow

INPUT, DATA, COMMITS = r"in/.*", r"out/label=.*", r"out/_commits/.*"
TWO_MINUTES = 120

TRANSIENT = [
    Rule("status", "ListObjects", times=2),
    Rule("reset", "ListObjects"),
    Rule("status", "GetObject", INPUT, times=3),
    Rule("status", "GetObject", INPUT, times=2, status=503, code="SlowDown"),
    Rule("flip", "GetObject", INPUT),
    Rule("reset_mid", "GetObject", INPUT),
    Rule("short", "GetObject", INPUT),
    Rule("close_mid", "GetObject", INPUT, times=2),
    Rule("reset", "GetObject", INPUT, times=2),
    Rule("stall_mid", "GetObject", INPUT, seconds=2),
    Rule("status", "PutObject", DATA, times=3),
    Rule("status", "PutObject", DATA, times=3, status=503, code="SlowDown"),
    Rule("reset", "PutObject", DATA, times=2),
    Rule("after_status", "PutObject", DATA, times=2),
    Rule("after_reset", "PutObject", DATA, times=2),
    Rule("flip", "PutObject", DATA, times=2),
    Rule("delay", "PutObject", DATA, seconds=1),
    Rule("status", "PutObject", COMMITS, times=3),
    Rule("reset", "PutObject", COMMITS, times=2),
    Rule("flip", "PutObject", COMMITS),
    Rule("after_reset", "PutObject", COMMITS, times=2),
    Rule("status", "PutObject", r"out/_lease/.*", times=2),
    Rule("after_status", "PutObject", r"out/_lease/.*", times=2),
]


@pytest.mark.parametrize("label_job", mostly_slow([run_serially, run], quick=[run_serially]), ids=["serially", "on Ray"])
def test_transient_faults_of_every_kind_are_survived_in_one_run(
    ray_address: str, corpus: Corpus, label_job: Callable[..., RunResult]
):
    with corpus.bucket.proxy.faults(*TRANSIENT, in_a_row=3):
        summary = label_job(corpus.job, quiet=True)
    met = corpus.bucket.journal.faults()
    assert {rule.kind for rule in TRANSIENT} <= set(met), met
    assert (summary.files_incomplete, summary.units_failed, summary.rejected) == (0, 0, 0)
    corpus.check_exactly_once()
    assert verify(corpus.job, deep=True)["ok"]


@pytest.mark.slow
def test_faults_at_random_are_survived(corpus: Corpus):
    """Every tenth request fails in some way."""
    with corpus.bucket.proxy.faults(*every_fault(0.0125), in_a_row=3):
        summary = run_serially(corpus.job, quiet=True)
    assert sum(corpus.bucket.journal.faults().values()) > 4
    assert (summary.files_incomplete, summary.units_failed) == (0, 0)
    corpus.check_exactly_once()
    assert verify(corpus.job, deep=True)["ok"]


PERMANENT = {
    "inputs_are_throttled": Rule("status", "GetObject", INPUT, times=None, status=503, code="SlowDown"),
    "inputs_break_off": Rule("close_mid", "GetObject", INPUT, times=None),
    "inputs_have_wrong_bytes": Rule("flip", "GetObject", r"in/b\.txt", times=None),
    "listings_fail": Rule("status", "ListObjects", times=None),
    "files_cannot_be_put": Rule("status", "PutObject", DATA, skip=6, times=None),
    "files_arrive_wrong": Rule("flip", "PutObject", DATA, skip=6, times=None),
    "commits_cannot_be_put": Rule("reset", "PutObject", COMMITS, skip=3, times=None),
}


SLOW = ("listings_fail", "commits_cannot_be_put")


@pytest.mark.parametrize(
    "fault", [pytest.param(case, marks=pytest.mark.slow if case in SLOW else pytest.mark.campaign) for case in PERMANENT]
)
def test_permanent_fault_ends_the_run_in_one_line_and_the_next_run_completes_it(ray_address: str, corpus: Corpus, fault: str):
    with corpus.bucket.proxy.faults(PERMANENT[fault]):
        # in a process that is gone when the next run asks who holds the lease: nobody releases it while the store fails
        finished = command_in_own_process("run", corpus.job_file, "--quiet", ray_address=ray_address, timeout_s=TWO_MINUTES)
    assert finished.code == 1, finished.stderr
    assert "Traceback" not in finished.stderr
    said = [line for line in finished.error_lines if line.startswith("label-corpus: ")]
    assert len(said) == 1, finished.stderr
    assert "s3://" in said[0]
    committed = len(corpus.commits())
    assert run_serially(corpus.job, quiet=True).units_skipped == committed
    corpus.check_exactly_once()


@pytest.mark.campaign
def test_store_that_never_answers_ends_the_run_within_two_minutes(ray_address: str, corpus: Corpus):
    with corpus.bucket.proxy.faults(Rule("stall", "PutObject", COMMITS, times=None, seconds=600)):
        finished = command_in_own_process("run", corpus.job_file, "--quiet", ray_address=ray_address, timeout_s=2 * TWO_MINUTES)
    assert (finished.code, "Traceback" in finished.stderr) == (1, False), finished.stderr
    assert finished.seconds < TWO_MINUTES
    run_serially(corpus.job, quiet=True)
    corpus.check_exactly_once()


def test_flipped_byte_in_a_written_file_is_found_by_a_deep_verify(corpus: Corpus, tmp_path: Path):
    run_serially(corpus.job, quiet=True)
    victim = next(path for path in corpus.output_files() if path.endswith(".parquet"))
    content = bytes(corpus.bucket.filesystem.cat_file(victim))  # pyright: ignore[reportArgumentType]
    corpus.bucket.filesystem.pipe_file(victim, content[:100] + bytes([content[100] ^ 1]) + content[101:])
    found = command("verify", corpus.job_file, "--deep")
    assert found.code == 1
    assert victim.removeprefix(f"{corpus.output}/") in "".join(found.result["broken"])
