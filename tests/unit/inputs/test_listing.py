"""The input corpus: which files, which formats, which column types."""

import bz2
import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from pydantic import ValidationError

from pipeline_ops.inputs.file_formats import format_and_compression
from pipeline_ops.inputs.listing import find_inputs
from pipeline_ops.inputs.passed_over import PassedOver
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
    assert passed_over == [
        PassedOver(f"{tmp_path}/notes.md", "unknown suffix"),
        PassedOver(f"{tmp_path}/_SUCCESS", "names that begin with _ or ."),
    ]


def names_read(folder: Path, names: list[str], path: str = "", **settings: object) -> tuple[set[str], dict[str, set[str]]]:
    """(names of the input files, {why: names of the files that are not read}) of a folder with these files."""
    for name in names:
        write_bytes(folder / name, b"x")
    source = f"{folder}/{path}".rstrip("/")
    files, passed_over = find_inputs(input_of(source, **settings), Store(source))
    reasons = {file.why: {one.path for one in passed_over if one.why == file.why} for file in passed_over}
    start = len(f"{folder}/")
    return {file.path[start:] for file in files}, {why: {path[start:] for path in paths} for why, paths in reasons.items()}


METADATA = "metadata of the data set"
HUB = ["data/a.parquet", "dataset_infos.json", "README.md", "LICENSE.txt", ".gitattributes"]
SAVED = ["train/data-00000-of-00001.arrow", "train/state.json", "train/dataset_info.json", "dataset_dict.json"]


@pytest.mark.parametrize(
    ("names", "read", "metadata"),
    [
        (HUB, {"data/a.parquet"}, {"dataset_infos.json", "LICENSE.txt"}),
        (SAVED, {"train/data-00000-of-00001.arrow"}, {"train/state.json", "train/dataset_info.json", "dataset_dict.json"}),
        (["a.csv", "dataset-metadata.json", "croissant.json", "datapackage.json"], {"a.csv"}, None),
        (["a.jsonl", "state.json", "README.txt"], {"a.jsonl", "state.json"}, {"README.txt"}),  # a state of no saved data set
        (["README.txt", "a.txt"], {"README.txt", "a.txt"}, set()),
        (["README.txt", "LICENSE.txt"], {"README.txt", "LICENSE.txt"}, set()),
        (["dataset_infos.json", "LICENSE.txt"], {"dataset_infos.json", "LICENSE.txt"}, set()),  # nothing else is there
        (["dataset_infos.json"], {"dataset_infos.json"}, set()),
    ],
)
def test_metadata_of_a_data_set_is_left_out_and_named_where_there_is_data(
    tmp_path: Path, names: list[str], read: set[str], metadata: set[str] | None
) -> None:
    found, passed_over = names_read(tmp_path, names)
    assert found == read
    assert passed_over.get(METADATA, set()) == ({*names} - read if metadata is None else metadata)


@pytest.mark.parametrize(
    ("path", "settings", "read"),
    [
        ("LICENSE.txt", {}, {"LICENSE.txt"}),
        ("dataset_infos.json", {}, {"dataset_infos.json"}),
        ("*.json", {}, {"dataset_infos.json"}),
        ("**/*", {}, {"data/a.parquet", "dataset_infos.json", "LICENSE.txt"}),
        ("", {"format": "text"}, {"data/a.parquet", "README.md", "LICENSE.txt"}),
    ],
)
def test_a_file_or_glob_that_names_metadata_reads_it(tmp_path: Path, path: str, settings: dict, read: set[str]) -> None:
    assert names_read(tmp_path, HUB, path, **settings)[0] == read


def test_markers_and_links_to_folders_are_counted_and_not_read(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "loop.jsonl").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "b.jsonl").symlink_to(tmp_path / "in" / "a.jsonl")
    markers = ["_SUCCESS", ".a.jsonl.crc", "_metadata", "_common_metadata", ".git/objects/aa"]
    read, passed_over = names_read(tmp_path / "in", ["a.jsonl", *markers])
    assert read == {"a.jsonl", "b.jsonl"}
    assert passed_over == {"names that begin with _ or .": {*markers}, "links to folders": {"link", "loop.jsonl"}}


def test_find_with_a_given_format_takes_every_file_and_keeps_the_compression(tmp_path: Path) -> None:
    for name in ("part-0", "part-1.gz", "part-2.md"):
        write_bytes(tmp_path / name, b"x")
    files, passed_over = find_inputs(input_of(tmp_path, format="text"), Store(str(tmp_path)))
    assert [(file.format, file.compression) for file in files] == [("text", None), ("text", "gzip"), ("text", None)]
    assert passed_over == []


def test_find_in_a_folder_of_markers_says_so(tmp_path: Path) -> None:
    write_bytes(tmp_path / "_temporary" / "a.parquet", b"x")
    with pytest.raises(UserError, match=r"input\.path: .*only files with names that begin with _ or \..*_temporary/a\.parquet"):
        find_inputs(input_of(tmp_path), Store(str(tmp_path)))


@pytest.mark.parametrize("path", ["missing", "missing.jsonl", "*.jsonl", "empty", "folder"])
def test_find_nothing_says_which_path(tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()
    write_bytes(tmp_path / "folder" / "a.md", b"x")
    with pytest.raises(UserError, match=r"input\.path: .*") as caught:
        find_inputs(input_of(f"{tmp_path}/{path}"), Store(f"{tmp_path}/{path}"))
    assert f"{tmp_path}/{path}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "compress"),
    [
        ("RC_2020-01.zst", zstandard.ZstdCompressor().compress),
        ("RC_2011-01.bz2", bz2.compress),
        ("part.gz", gzip.compress),
        ("part-00000", bytes),
    ],
)
def test_of_files_without_a_format_the_content_shows_json(
    name: str, compress: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(compress(b'{"body": "a text"}\n' * 9))
    with pytest.raises(UserError, match=rf"the first is .*{name}.*its content looks like JSON: set input.format=jsonl"):
        find_inputs(input_of(tmp_path), Store(str(tmp_path)))
    (tmp_path / name).write_bytes(b"\x28\xb5\x2f\xfd broken")
    with pytest.raises(UserError, match=r"; set input.format$"):
        find_inputs(input_of(tmp_path), Store(str(tmp_path)))


def test_find_of_a_file_whose_name_has_glob_characters_finds_it(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "part[1].txt", b"x")
    files, _ = find_inputs(input_of(path), Store(str(path)))
    assert [file.path for file in files] == [str(path)]


def test_unknown_column_type_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="integer64"):
        input_of("x", column_types={"year": "integer64"})
