"""What screens say of one thing, and of none."""

import pytest

from jobs.console.step_progress import Steps
from jobs.remote.schedule_status import print_history
from jobs.remote.submissions import print_jobs


@pytest.mark.parametrize(("total", "expected"), [(1, "1 of 1 file, a.parquet"), (2, "1 of 2 files, a.parquet")])
def test_progress_counts_one_file_and_two_files(total: int, expected: str):
    steps = Steps("verify", quiet=True)
    steps.begin("checking", total, item="file")
    steps.add(1, "a.parquet")
    assert f"checking: {expected}," in steps.line()


def test_progress_of_bytes_and_of_nothing_in_particular_has_no_noun():
    steps = Steps("verify", quiet=True)
    steps.begin("reading", 5_000_000, is_bytes=True)
    steps.add(1_000_000)
    assert "reading: 1.0 of 5.0 MB," in steps.line()
    steps.begin("thinking", 3)
    assert "thinking: 0 of 3," in steps.line()


def test_jobs_and_schedules_say_so_where_there_are_none(capsys: pytest.CaptureFixture[str]):
    print_jobs({"jobs": []})
    print_history({"ticks": [], "healthy": False, "reason": "no scheduler has run"})
    assert capsys.readouterr().err.splitlines() == [
        "no jobs have been submitted to this cluster",
        "no tick has been decided yet",
        "label-corpus: no scheduler has run",
    ]


def test_a_schedule_without_another_tick_is_not_none(capsys: pytest.CaptureFixture[str]):
    beat = {"host": "a", "pid": 5, "next": None, "trouble": None}
    print_history({"ticks": [], "healthy": True, "heartbeat": beat, "age_s": 3})
    assert capsys.readouterr().err.splitlines()[-1] == "a, process 5, 3 s ago; next never"
