"""`train` stopped in the middle by SIGTERM and by Ctrl-C: the last line is true, and the same command continues."""

import os
import signal
from pathlib import Path

import pytest

from jobs.config import load_config
from jobs.console import signals
from jobs.start.train import TrainConfig, train
from pipeline_ops.training.trainer import newest_checkpoint
from tests.support.corpora import write_jsonl
from tests.support.running import Finished, command_in_own_process, running_command, wait_for, write_job_file
from tests.support.signal_handlers import installed_handlers

STEPS = 400
START_TIMEOUT_S = 120


def interrupted(train_file: Path, stop: signal.Signals, *overrides: str, checkpoints: bool = True) -> Finished:
    """The training, stopped after its first checkpoint; without checkpoints, when it has just begun."""
    with running_command("train", train_file, *overrides) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "steps of 4 documents" in line:
                break
        if checkpoints:
            cache = train_file.parent / "cache" / "training"
            wait_for(lambda: has_checkpoint(cache) or process.poll() is not None, "a checkpoint", START_TIMEOUT_S)
        os.kill(process.pid, stop)
        out, err = process.communicate(timeout=START_TIMEOUT_S)
        return Finished(process.returncode, out, "".join(lines) + err, 0)


def has_checkpoint(folder: Path) -> bool:
    """Whether a training has a checkpoint from which it could continue."""
    return any(newest_checkpoint(str(one)) is not None for one in folder.glob("*"))


@pytest.fixture
def train_file(tmp_path: Path) -> Path:
    rows = [{"text": f"{word} " * (1 + row % 9), "label": word} for row in range(90) for word in ("good", "bad")]
    write_jsonl(tmp_path / "in.jsonl", rows)
    options = {"dim": 32, "n_heads": 2, "n_layers": 2, "hidden_dim": 64, "max_position_embeddings": 64}
    return write_job_file(
        tmp_path / "train.yaml",
        {
            "input": {"path": str(tmp_path / "in.jsonl")},
            "model": {"architecture": {"model_type": "distilbert", "vocab_size": 120, "options": options}},
            "training": {"batch_size": 4, "max_steps": STEPS, "save_minutes": 0.01},
            "output": {"path": str(tmp_path / "model")},
            "storage": {"cache_folder": str(tmp_path / "cache")},
        },
    )


@pytest.mark.parametrize(
    ("stop", "code"),
    [
        pytest.param(signal.SIGTERM, 143, id="sigterm", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, id="ctrl-c", marks=pytest.mark.campaign),
    ],
)
def test_training_stopped_in_the_middle_is_continued(train_file: Path, tmp_path: Path, stop: signal.Signals, code: int) -> None:
    first = interrupted(train_file, stop, "training.max_steps=4000")
    assert first.code == code, first.stderr
    assert f"`label-corpus train {train_file} training.max_steps=4000` continues from step " in first.error_lines[-1]
    step = int(first.error_lines[-1].rsplit(" ", 1)[1].replace(",", ""))
    assert f", step {step:,} of 4,000;" in first.error_lines[-1]
    assert not (tmp_path / "model").exists()
    other = command_in_own_process("train", train_file)  # other settings: nothing is taken up
    assert other.code == 0, other.stderr
    assert "training starts over" in other.stderr
    assert other.result["steps"] == STEPS


@pytest.mark.campaign
def test_continued_training_gives_the_model_of_one_that_was_never_stopped(train_file: Path, tmp_path: Path) -> None:
    long = ("training.max_steps=1500",)
    first = interrupted(train_file, signal.SIGTERM, *long)
    assert "continues from step " in first.error_lines[-1], first.stderr
    step = first.error_lines[-1].rsplit(" ", 1)[1]
    second = command_in_own_process("train", train_file, *long)
    assert second.code == 0, second.stderr
    assert f"1,500 steps of 4 documents, of which {step} are done" in second.stderr
    assert second.result["steps"] == 1500
    assert list((tmp_path / "cache" / "training").iterdir()) == []
    whole = command_in_own_process("train", train_file, *long, f"output.path={tmp_path / 'whole'}")
    assert whole.result["accuracy"] == second.result["accuracy"]


@pytest.mark.slow
def test_training_without_checkpoints_says_that_it_starts_over(train_file: Path) -> None:
    first = interrupted(train_file, signal.SIGTERM, "training.save_minutes=0", "training.max_steps=4000", checkpoints=False)
    assert first.code == 143, first.stderr
    assert first.error_lines[-1].endswith("starts over")


@pytest.mark.parametrize("save_minutes", [0, 5])
def test_signal_that_something_else_has_caught_ends_the_training_at_its_next_step(
    train_file: Path, tmp_path: Path, save_minutes: int
) -> None:
    """Some libraries catch everything while they are imported."""
    config = load_config(TrainConfig, str(train_file), ["training.max_steps=20", f"training.save_minutes={save_minutes}"])
    with installed_handlers():
        with pytest.raises(SystemExit):
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(signals.Interrupted, match="ended by SIGTERM") as stopped:
            train(config, quiet=True)
    assert stopped.value.code == 143
    assert not (tmp_path / "model").exists()
