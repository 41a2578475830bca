"""`label-corpus init`: what it says about files that cannot be labeled, or look otherwise than they are read."""

import json
from pathlib import Path

import pytest

from jobs.start.init import init
from tests.support.corpora import write_bytes
from tests.support.running import command


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Job files are written here."""
    monkeypatch.chdir(tmp_path)


def test_files_that_cannot_be_labeled_are_named_and_not_counted(tmp_path: Path, model: Path) -> None:
    documents = b"".join(json.dumps({"text": f"a line of a text, number {row}"}).encode() + b"\n" for row in range(30))
    for name in "abc":
        write_bytes(tmp_path / "in" / f"{name}.jsonl", documents)
    write_bytes(tmp_path / "in" / "answers.jsonl", b'{"answer": 42}\n' * 500)
    write_bytes(tmp_path / "in" / "page.jsonl.gz", b"<html><body>404 Not Found</body></html>\n")
    write_bytes(tmp_path / "in" / "pointer.csv", b"version https://git-lfs.github.com/spec/v1\noid sha256:4\nsize 12345\n")
    done = command("init", tmp_path / "in", "--model", model, "--job", "job.yaml")
    assert done.code == 0, done.stderr
    assert (done.result["documents_estimate"], done.result["documents_counted"]) == (90, True)
    planned = command("plan", "job.yaml")
    for found in (done, planned):
        said = " ".join(found.stderr.split())
        assert "cannot be read, and will be quarantined: " in said
        assert "page.jsonl.gz is HTML by its first bytes, not JSON Lines" in said
        assert "pointer.csv is a Git LFS pointer" in said
    assert "not labeled, for want of a text column 'text': " in " ".join(done.stderr.split())
    for name in ("a.jsonl", "b.jsonl", "c.jsonl", "answers.jsonl"):
        (tmp_path / "in" / name).unlink()
    refused = command("init", tmp_path / "in", "--model", model, "--job", "other.yaml")
    assert (refused.code, len(refused.error_lines)) == (2, 1), refused.stderr


def test_of_many_columns_the_first_are_listed(tmp_path: Path, model: Path) -> None:
    wide = {"text": "a line of a text", **{f"c{number}": {f"k{key}": key for key in range(30)} for number in range(100)}}
    source = write_bytes(tmp_path / "in" / "a.jsonl", json.dumps(wide).encode() + b"\n")
    done = command("init", source, "--model", model, "--job", "job.yaml")
    assert done.code == 0, done.stderr
    assert len(done.result["columns"]) == 101
    listed = next(line for line in Path("job.yaml").read_text().splitlines() if "columns: " in line)
    assert listed.startswith("#   columns: 'text' string, 'c0' struct<k0: int64")
    assert listed.endswith(" and 89 more")
    assert len(listed) < 1000


def test_remark_on_a_column_of_several_types_has_each_once(tmp_path: Path, model: Path) -> None:
    write_bytes(tmp_path / "in" / "a.jsonl", b'{"text": "a line of a text", "body": "x"}\n' * 3)
    write_bytes(tmp_path / "in" / "b.jsonl", b'{"text": "a line of a text", "body": "x"}\n{"text": "a", "body": 1}\n')
    remarks = init(str(tmp_path / "in"), "job.yaml", str(model))["remarks"]
    assert any("column 'body' is string or int64 in JSON Lines" in remark for remark in remarks), remarks


@pytest.mark.parametrize("name", ["csv", "text"])
def test_json_that_is_read_as_another_format_is_named(name: str, tmp_path: Path, model: Path) -> None:
    lines = "".join(f'{{"text": "a line of a text, number {row}"}}\n' for row in range(30))
    source = write_bytes(tmp_path / "in" / "a.jsonl", lines.encode())
    settings = [f"input.format={name}", "input.header=false"]
    remarks = init(str(source), "job.yaml", str(model), overrides=settings)["remarks"]
    assert any(remark.startswith(f"looks like JSON Lines, but input.format={name}: ") for remark in remarks), remarks


def test_pages_in_place_of_records_are_named_as_such(tmp_path: Path, model: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        write_bytes(tmp_path / "in" / name, b"\n<!DOCTYPE html>\n<title>404</title>\n<p>Not Found</p>\n")
    refused = command("init", tmp_path / "in", "--model", model, "--job", "job.yaml")
    assert (refused.code, len(refused.error_lines)) == (2, 1), refused.stderr
    assert "a.jsonl is HTML by its first bytes, not JSON Lines" in refused.error_lines[0]
    assert "nor can 1 other of this format be read" in refused.error_lines[0]
