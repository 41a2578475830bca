"""How a command ends: its exit code, and the line on stderr that says why."""

import signal
from pathlib import Path

import pytest

from jobs.console.signals import Interrupted
from jobs.maintenance import sweep
from pipeline_ops.output.lease import LeaseError
from pipeline_ops.schema.errors import UserError
from tests.support.running import command, command_in_own_process, job_settings, write_job_file


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("input.path: no such folder"), 2, "label-corpus: input.path: no such folder"),
        (LeaseError("another run holds the lease"), 3, "label-corpus: another run holds the lease"),
        (Interrupted("the job goes on", 130), 130, "label-corpus: the job goes on"),
        (RuntimeError("two\nlines"), 1, "label-corpus: failed: two lines; run it again to continue"),
        (KeyboardInterrupt(), 130, "label-corpus: interrupted; run it again to continue"),
        (SystemExit(128 + signal.SIGTERM), 143, "label-corpus: ended by SIGTERM; run it again to continue"),
        (SystemExit(signal.SIGTERM), 143, "label-corpus: ended by SIGTERM; run it again to continue"),
    ],
)
def test_error_of_a_command_becomes_its_exit_code_and_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, line: str
) -> None:
    def fail(job: object) -> None:
        raise error

    monkeypatch.setattr(sweep, "sweep_output", fail)
    finished = command("sweep", write_job_file(tmp_path / "job.yaml", job_settings("in", "model", tmp_path / "out")))
    assert (finished.code, finished.stdout, finished.error_lines[-1]) == (code, "", line)
    assert ("Traceback" in finished.stderr) == isinstance(error, RuntimeError)


@pytest.mark.parametrize("arguments", [["schema"], ["run", "nowhere.yaml"]])
def test_process_prints_and_exits_as_the_command_does_in_this_one(arguments: list[str]) -> None:
    own, here = command_in_own_process(*arguments), command(*arguments)
    assert (own.code, own.stdout, own.stderr) == (here.code, here.stdout, here.stderr)
