"""The input corpus: which files, which formats, which column types."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline_ops.inputs.file_formats import format_and_compression
from pipeline_ops.inputs.listing import find_inputs
from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.store import Store
from tests.support.corpora import write_bytes
from tests.support.reading_path import input_of


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.parquet", ("parquet", None)),
        ("a.pq", ("parquet", None)),
        ("a.jsonl", ("jsonl", None)),
        ("a.ndjson.gz", ("jsonl", "gzip")),
        ("a.JSON.ZST", ("jsonl", "zstd")),
        ("a.csv.bz2", ("csv", "bz2")),
        ("a.tsv", ("csv", None)),
        ("a.v2.txt", ("text", None)),
        ("folder.jsonl/a", (None, None)),
        ("a.gz", (None, "gzip")),
        ("a.md", (None, None)),
    ],
)
def test_suffixes_say_format_and_compression(name: str, expected: tuple) -> None:
    assert format_and_compression(f"s3://bucket/{name}") == expected


def test_find_in_a_mixed_folder_gives_each_files_format_in_path_order(tmp_path: Path) -> None:
    for name in ("c.txt", "b/a.jsonl.zst", "a.parquet", "_SUCCESS", "notes.md"):
        write_bytes(tmp_path / name, b"x")
    files, passed_over = find_inputs(input_of(tmp_path), Store(str(tmp_path)))
    assert [(file.path, file.format, file.compression) for file in files] == [
        (f"{tmp_path}/a.parquet", "parquet", None),
        (f"{tmp_path}/b/a.jsonl.zst", "jsonl", "zstd"),
        (f"{tmp_path}/c.txt", "text", None),
    ]
    assert passed_over == [f"{tmp_path}/notes.md"]


def test_find_with_a_given_format_takes_every_file_and_keeps_the_compression(tmp_path: Path) -> None:
    for name in ("part-0", "part-1.gz", "part-2.md"):
        write_bytes(tmp_path / name, b"x")
    files, passed_over = find_inputs(input_of(tmp_path, format="text"), Store(str(tmp_path)))
    assert [(file.format, file.compression) for file in files] == [("text", None), ("text", "gzip"), ("text", None)]
    assert passed_over == []


@pytest.mark.parametrize("path", ["missing", "missing.jsonl", "*.jsonl", "empty", "folder"])
def test_find_nothing_says_which_path(tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()
    write_bytes(tmp_path / "folder" / "a.md", b"x")
    with pytest.raises(UserError, match=r"input\.path: .*") as caught:
        find_inputs(input_of(f"{tmp_path}/{path}"), Store(f"{tmp_path}/{path}"))
    assert f"{tmp_path}/{path}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_find_of_a_file_whose_name_has_glob_characters_finds_it(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "part[1].txt", b"x")
    files, _ = find_inputs(input_of(path), Store(str(path)))
    assert [file.path for file in files] == [str(path)]


def test_unknown_column_type_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="integer64"):
        input_of("x", column_types={"year": "integer64"})
