"""A user's mistakes: each one clear line, exit 2, and nothing written."""

import os
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from jobs.config import JobConfig, check_config, override
from jobs.label_corpus import run
from pipeline_ops.schema.errors import UserError
from tests.support.corpora import write_bytes, write_csv, write_jsonl, write_parquet, write_text
from tests.support.invariant import check_exactly_once
from tests.support.running import command, job_settings, keys, make_job, write_job_file
from tests.support.serial_chain import run_serially

TEXTS = ["one", "two", "three"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Inputs of all kinds beside each other; the output is not there yet."""
    write_parquet(tmp_path / "in" / "corpus.parquet", [{"body": text, "year": 2024, "text": text} for text in TEXTS])
    write_parquet(tmp_path / "labeled.parquet", [{"text": text, "label": "mine", "score": 1} for text in TEXTS])
    write_jsonl(tmp_path / "corpus.jsonl", [{"body": text, "lang": "en"} for text in TEXTS])
    write_csv(tmp_path / "corpus.csv", [{"title": "t", "content": text} for text in TEXTS])
    write_parquet(tmp_path / "numbers.parquet", pa.table({"text": [1, 2, 3]}))
    write_bytes(tmp_path / "broken.parquet", b"this is no Parquet file")
    write_bytes(tmp_path / "images" / "a.png", b"\x89PNG")
    (tmp_path / "empty").mkdir()
    return tmp_path


def settings_for(folder: Path, model: Path, source: str, *overrides: str) -> dict[str, Any]:
    return job_settings(folder / source, model, folder / "out", *(text.format(folder=folder) for text in overrides))


MISTAKES = {
    "missing_input": ("nowhere", [], r"input\.path: .*nowhere.* does not exist"),
    "empty_glob": ("in/*.jsonl", [], r"input\.path: .*in/\*\.jsonl.* matches no file"),
    "empty_folder": ("empty", [], r"input\.path: .*holds no files"),
    "no_known_suffix": ("images", [], r"input\.path: .*no file .* has a suffix of a format .*a\.png"),
    "no_column_in_parquet": ("in", ["input.text_column=txt"], r"input\.text_column: .*'txt'.*'body', 'year', 'text'"),
    "no_column_in_jsonl": ("corpus.jsonl", [], r"input\.text_column: .*'text'.*'body', 'lang'"),
    "no_column_in_csv": ("corpus.csv", [], r"input\.text_column: .*'text'.*'title', 'content'"),
    "text_column_of_numbers": ("numbers.parquet", [], r"input\.text_column: .*int64"),
    "no_such_output_column": ("in", ["output.columns=[author]"], r"output\.columns: .*'author'.*'body', 'year', 'text'"),
    "no_such_partition": ("in", ["output.partition_by=[author]"], r"output\.partition_by: .*'author'"),
    "column_named_label": ("labeled.parquet", [], r"output\.label_name: .*'label'"),
    "column_named_score": ("labeled.parquet", ["output.label_name=mood"], r"output\.score_column: .*'score'"),
    "not_parquet": ("broken.parquet", [], r"input\.path: .*broken\.parquet"),
    "unknown_key": ("in", ["compute.batch_token=9"], r"compute\.batch_token: unknown key; did you mean compute\.batch_tokens"),
    "unknown_section": ("in", ["ouput.scores=true"], r"ouput: unknown key; did you mean output"),
    "bad_value": ("in", ["compute.batch_tokens=many"], r"compute.batch_tokens: invalid value 'many'"),
    "unknown_model_id": ("in", ["model.path=nobody/no-such-model"], r"model\.path: 'nobody/no-such-model'"),
    "model_folder_without_model": ("in", ["model.path={folder}/empty"], r"model\.path: .*empty"),
    "too_long": ("in", ["model.max_length=129"], r"model\.max_length: 129 .*128"),
    "output_in_input": ("in", ["output.path={folder}/in/out"], r"output\.path: .*is inside the input"),
    "output_is_input": ("in", ["output.path={folder}/in"], r"output\.path: .*is inside the input"),
    "output_in_globbed_input": ("in/**/*.parquet", ["output.path={folder}/in/x/out"], r"output\.path: .*is inside the input"),
    "input_in_output": ("in", ["output.path={folder}"], r"input\.path: .*is inside the output"),
    "output_below_a_file": ("in", ["output.path={folder}/corpus.csv/out"], r"output\.path: .*cannot be (written|read)"),
    "too_many_actors": (
        "in",
        ["compute.classifiers=1000", "compute.wait_for_nodes=1"],
        r"compute: 1000 classifiers .*compute\.classifiers",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_run_with_a_mistake_says_it_in_one_line_and_writes_nothing(ray_address: str, model: Path, folder: Path, mistake: str):
    source, overrides, expected = MISTAKES[mistake]
    before = sorted(folder.rglob("*"))
    with pytest.raises(UserError) as raised:
        run(check_config(JobConfig, settings_for(folder, model, source, *overrides)), quiet=True)
    assert re.match(expected, str(raised.value)), str(raised.value)
    assert "\n" not in str(raised.value)
    assert sorted(folder.rglob("*")) == before


def test_run_with_a_model_without_head_exits_2_unless_allowed(model_without_head: Path, folder: Path):
    settings = settings_for(folder, model_without_head, "in")
    job_file = write_job_file(folder / "job.yaml", settings)
    before = sorted(folder.rglob("*"))
    for name in ("plan", "run"):
        finished = command(name, job_file, "--quiet")
        assert (finished.code, finished.stdout) == (2, ""), finished.stderr
        (line,) = finished.error_lines
        assert "classification head" in line
        assert "model.allow_new_weights" in line
        assert sorted(folder.rglob("*")) == before
    override(settings, "model.allow_new_weights=true")
    assert run_serially(check_config(JobConfig, settings), quiet=True).labeled == len(TEXTS)


def test_run_says_before_its_first_unit_that_files_look_like_no_documents(
    tmp_path: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, lines in (("a_text.txt", TEXTS), ("a_labels.txt", ["1"] * len(TEXTS))):
        write_text(tmp_path / "in" / name, lines)
    result = run_serially(make_job(tmp_path / "in", model, tmp_path / "out"))
    assert result.documents == 2 * len(TEXTS)
    (said,) = [line for line in capfd.readouterr().err.splitlines() if "perhaps no documents" in line]
    assert "a_labels.txt: half of the lines have 1 character or less; to read only the others: input.path=" in said
    check_exactly_once(
        tmp_path / "out", keys(tmp_path / "in" / "a_text.txt", len(TEXTS)) + keys(tmp_path / "in" / "a_labels.txt", len(TEXTS))
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_run_with_an_unwritable_output_says_it_in_one_line(ray_address: str, model: Path, folder: Path):
    (folder / "out").mkdir(mode=0o500)
    with pytest.raises(UserError, match=r"output\.path: .*cannot be written: .*Permission denied"):
        run(check_config(JobConfig, settings_for(folder, model, "in")), quiet=True)
    assert list((folder / "out").iterdir()) == []


@pytest.mark.parametrize("mistake", ["missing_input", "no_column_in_jsonl", "unknown_key", "output_below_a_file"])
def test_command_with_a_mistake_exits_2_with_one_line_and_no_traceback(model: Path, folder: Path, mistake: str):
    source, overrides, expected = MISTAKES[mistake]
    job_file = write_job_file(folder / "job.yaml", settings_for(folder, model, source))
    before = sorted(folder.rglob("*"))
    overrides = [text.format(folder=folder) for text in overrides]
    finished = command("run", job_file, *overrides)
    assert (finished.code, finished.stdout) == (2, ""), finished.stderr
    assert len(finished.error_lines) == 1, finished.stderr
    assert re.search(expected, finished.stderr), finished.stderr
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("arguments", [["run", "nowhere.yaml"], ["verify", "nowhere.yaml"], ["no-such-command"]])
def test_command_without_a_job_file_or_name_exits_2(arguments: list[str]):
    finished = command(*arguments)
    assert (finished.code, finished.stdout) == (2, "")
    assert "Traceback" not in finished.stderr
