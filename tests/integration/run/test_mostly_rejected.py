"""A run that rejects most documents of a file says so and exits 1, every time, until the file is mended."""

from pathlib import Path

import pytest

from jobs.maintenance.verify import verify
from tests.support.corpora import write_jsonl, write_text
from tests.support.invariant import check_exactly_once
from tests.support.running import command, job_settings, keys, make_job, write_job_file
from tests.support.serial_chain import run_serially

GOOD = [{"text": f"a good film {number}"} for number in range(20)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A good file, and one of CSV under a wrong name."""
    write_jsonl(tmp_path / "in" / "good.jsonl", GOOD)
    write_text(tmp_path / "in" / "table.jsonl", ["text,stars", *(f"a film,{number}" for number in range(14))])
    return tmp_path / "in"


def test_exit_is_1_at_every_run_until_the_share_is_raised(
    tmp_path: Path, model: Path, source: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = make_job(source, model, tmp_path / "out")
    for _ in range(2):
        result = run_serially(job)
        assert (result.labeled, result.rejected, result.complete) == (20, 15, False)
        assert result.files_mostly_rejected == 1
        assert result.mostly_rejected == [f"{source}/table.jsonl: 15 of 15 documents rejected as broken_json"]
        (said,) = [line for line in capfd.readouterr().err.splitlines() if "mostly rejected" in line]
        assert "15 of 15 documents of" in said
        assert "table.jsonl; is this JSON Lines" in said
        assert "input.max_reject_share=1" in said
    expected = keys(source / "good.jsonl", 20) + keys(source / "table.jsonl", 15)
    check_exactly_once(tmp_path / "out", expected)
    accepted = run_serially(make_job(source, model, tmp_path / "out", "input.max_reject_share=1"))
    assert (accepted.complete, accepted.files_mostly_rejected, accepted.documents_run) == (True, 0, 0)


def test_exit_is_0_once_the_file_is_mended_or_gone(tmp_path: Path, model: Path, source: Path) -> None:
    job = make_job(source, model, tmp_path / "out")
    assert not run_serially(job).complete
    write_jsonl(source / "table.jsonl", GOOD)
    assert run_serially(job).complete
    check_exactly_once(tmp_path / "out", keys(source / "good.jsonl", 20) + keys(source / "table.jsonl", 20))
    write_text(source / "table.jsonl", ["no JSON"] * 15)
    assert not run_serially(job).complete
    (source / "table.jsonl").unlink()
    assert run_serially(job).complete


def test_a_trial_and_many_small_files_count_as_well(tmp_path: Path, model: Path) -> None:
    source = tmp_path / "in"
    for number in range(40):
        write_jsonl(source / f"{number:02}.jsonl", [{"text": None, "body": "a film"}] * 3)
    write_jsonl(source / "good.jsonl", GOOD)
    job = make_job(source, model, tmp_path / "out")
    for result in (run_serially(job, limit=30), run_serially(job)):
        assert not result.complete
        assert result.mostly_rejected[0] == f"{source}/00.jsonl: 3 of 3 documents rejected as null_text"
    expected = [key for number in range(40) for key in keys(source / f"{number:02}.jsonl", 3)]
    check_exactly_once(tmp_path / "out", expected + keys(source / "good.jsonl", 20))


def test_a_run_that_labels_next_to_nothing_is_no_success(
    tmp_path: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = write_jsonl(tmp_path / "in" / "a.jsonl", [{"text": None}, {"text": 1}] * 20 + [{"text": "a film"}])
    assert not run_serially(make_job(source, model, tmp_path / "mixed")).complete
    assert "mostly rejected for 2 reasons, most often null_text: 40 of 41 documents" in capfd.readouterr().err
    write_jsonl(source, [{"text": " "}] * 3)
    job = make_job(source, model, tmp_path / "blank", "input.min_characters=1")
    for _ in range(2):
        assert not run_serially(job).complete
        assert "mostly rejected as too_short: 3 of 3 documents" in capfd.readouterr().err
    assert verify(job, quiet=True)["mostly_rejected"] == [f"{source}: 3 of 3 documents rejected as too_short"]
    write_jsonl(source, [{"text": " "}] * 30 + [{"text": "a film"}])
    assert run_serially(job).complete
    check_exactly_once(tmp_path / "blank", keys(source, 31))


@pytest.mark.slow
def test_the_command_status_and_verify_agree(tmp_path: Path, model: Path, source: Path, ray_address: str) -> None:
    job_file = write_job_file(tmp_path / "job.yaml", job_settings(source, model, tmp_path / "out"))
    finished = command("run", job_file)
    assert (finished.code, finished.result["files_mostly_rejected"]) == (1, 1), finished.stderr
    said = f"{source}/table.jsonl: 15 of 15 documents rejected as broken_json"
    assert finished.result["mostly_rejected"] == [said]
    found = command("status", job_file)
    assert found.result["state"] == "incomplete"
    assert f"mostly rejected: {said}" in found.stderr
    verified = command("verify", job_file)
    assert (verified.code, verified.result["ok"], verified.result["mostly_rejected"]) == (0, True, [said])
    assert f"mostly rejected: {said}" in verified.stderr
    check_exactly_once(tmp_path / "out", keys(source / "good.jsonl", 20) + keys(source / "table.jsonl", 15))
