"""Files and objects: whole or not at all, listed as readers of data sets expect. memory:// stands for object stores here."""

import os
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.files import (
    StorageConfig,
    check_writable,
    delete_many,
    full_path,
    is_local,
    join,
    list_all,
    list_files,
    open_to_read,
    put,
    put_many,
    put_new,
    read_bytes,
    read_files,
    read_tails,
    remove_empty_folders,
    stat_file,
    try_read_files,
)

STORAGE = StorageConfig()


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty folder on local disk, and one on a store that fsspec knows."""
    if request.param == "local":
        yield str(tmp_path)
        return
    url = f"memory://{uuid.uuid4().hex}"
    yield url
    delete_many([file.path for file in list_all(url, STORAGE)], STORAGE)


def names(folder: str) -> list[str]:
    return [file.path.removeprefix(folder).lstrip("/") for file in list_all(folder, STORAGE)]


def write_all(folder: str, *paths: str) -> None:
    put_many({join(folder, path): path.encode() for path in paths}, STORAGE)


def test_put_many_writes_each_object_whole_and_leaves_nothing_else(folder: str) -> None:
    contents = {join(folder, "label=a b/1.bin"): b"\x00\xff", join(folder, "2.bin"): b"", join(folder, "ü/3.bin"): b"x" * 10**6}
    put_many(contents, STORAGE)
    assert names(folder) == sorted(["2.bin", "label=a b/1.bin", "ü/3.bin"])
    assert {path: read_bytes(path, STORAGE) for path in contents} == contents


def test_put_many_of_nothing_does_nothing(folder: str) -> None:
    put_many({}, STORAGE)
    assert names(folder) == []


def test_put_of_an_object_that_exists_replaces_it_whole(folder: str) -> None:
    path = join(folder, "a")
    put(path, b"the first and longer content", STORAGE)
    put(path, b"second", STORAGE)
    assert read_bytes(path, STORAGE) == b"second"
    assert names(folder) == ["a"]


def test_put_that_fails_leaves_the_old_object_and_nothing_else(tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    put(path, b"old", STORAGE)
    not_bytes: object = "text where bytes are due"
    with pytest.raises(TypeError):
        put_many({path: not_bytes}, STORAGE)
    assert read_bytes(path, STORAGE) == b"old"
    assert names(str(tmp_path)) == ["a"]


def test_put_new_creates_once_and_keeps_the_first(folder: str) -> None:
    path = join(folder, "_commits", "unit.json")
    assert put_new(path, b"first", STORAGE)
    assert not put_new(path, b"second", STORAGE)
    assert put_new(path, b"first", STORAGE)  # a lost answer, put again: ours
    assert read_bytes(path, STORAGE) == b"first"
    assert names(folder) == ["_commits/unit.json"]


def test_put_new_by_many_at_once_has_one_winner(tmp_path: Path) -> None:
    path = str(tmp_path / "deep" / "unit.json")
    contents = [f"attempt {index}".encode() for index in range(16)]
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda content: put_new(path, content, STORAGE), contents))
    assert won.count(True) == 1
    assert read_bytes(path, STORAGE) == contents[won.index(True)]
    assert names(str(tmp_path)) == ["deep/unit.json"]


def test_list_files_below_a_folder_leaves_out_hidden_names_at_any_depth(folder: str) -> None:
    write_all(
        folder, "a.txt", "b/c.txt", "b/d/e.txt", "_SUCCESS", ".hidden", "_commits/x.json", "b/.f/g.txt", "b/_h.txt", "i_j.txt"
    )
    listed = list_files(folder, STORAGE)
    assert [file.path for file in listed] == [join(folder, name) for name in ("a.txt", "b/c.txt", "b/d/e.txt", "i_j.txt")]
    assert [file.size for file in listed] == [5, 7, 9, 7]


def test_list_files_of_a_folder_that_is_itself_hidden_gives_its_files(folder: str) -> None:
    write_all(folder, "_inputs/a.txt")
    assert [file.path for file in list_files(join(folder, "_inputs"), STORAGE)] == [join(folder, "_inputs/a.txt")]


def test_list_files_of_one_file_gives_it_also_when_hidden(folder: str) -> None:
    write_all(folder, "a.txt", "ab.txt", "_b.txt")
    for name in ("a.txt", "_b.txt"):
        assert [file.path for file in list_files(join(folder, name), STORAGE)] == [join(folder, name)]


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("*.txt", ["a.txt", "b.txt"]),
        ("?.txt", ["a.txt", "b.txt"]),
        ("[a]*.txt", ["a.txt"]),
        ("*/*.txt", ["deep/c.txt"]),
        ("**/*.txt", ["a.txt", "b.txt", "deep/c.txt", "deep/er/d.txt"]),
        ("*.csv", []),
        ("deep*", []),
    ],
)
def test_list_files_by_glob_gives_the_files_that_match(folder: str, glob: str, expected: list[str]) -> None:
    write_all(folder, "b.txt", "a.txt", "deep/c.txt", "deep/er/d.txt", "e.md")
    assert [file.path for file in list_files(join(folder, glob), STORAGE)] == [join(folder, name) for name in expected]


def test_list_files_with_a_trailing_slash_is_the_same_folder(folder: str) -> None:
    write_all(folder, "a.txt")
    assert list_files(folder + "/", STORAGE) == list_files(folder, STORAGE)


@pytest.mark.parametrize("path", ["missing", "missing/*.txt"])
def test_list_files_of_what_is_not_there_is_empty(folder: str, path: str) -> None:
    assert list_files(join(folder, path), STORAGE) == []


def test_list_files_identity_changes_with_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    (first,) = list_files(str(path), STORAGE)
    assert list_files(str(path), STORAGE) == [first]
    path.write_text("longer")
    (second,) = list_files(str(path), STORAGE)
    assert second.identity != first.identity


def test_list_files_of_a_relative_path_and_a_file_url_give_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("one")
    monkeypatch.chdir(tmp_path)
    for path in ("in", "./in/", f"file://{tmp_path}/in", "in/*.txt"):
        assert [file.path for file in list_files(path, STORAGE)] == [str(tmp_path / "in" / "a.txt")]


def test_list_all_gives_hidden_files_too(folder: str) -> None:
    write_all(folder, "_commits/a.json", ".b", "c")
    assert names(folder) == [".b", "_commits/a.json", "c"]
    assert list_all(join(folder, "missing"), STORAGE) == []


@pytest.mark.parametrize("sequential", [True, False])
def test_open_to_read_gives_a_seekable_file(folder: str, sequential: bool) -> None:
    write_all(folder, "content.txt")
    with open_to_read(stat_file(join(folder, "content.txt"), STORAGE), STORAGE, sequential=sequential) as file:
        assert file.read() == b"content.txt"
        file.seek(3)
        assert file.read(4) == b"tent"


@pytest.mark.parametrize("content", ["longer than before", "same size"])
def test_open_to_read_of_a_local_file_that_changed_since_it_was_listed_fails(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a"
    path.write_text("of a size")
    file = stat_file(str(path), STORAGE)
    path.write_text(content)
    os.utime(path, (1, 1))  # a clock that is too coarse would tell nothing
    with pytest.raises(OSError, match="changed"):
        open_to_read(file, STORAGE, sequential=True)


def test_read_files_gives_contents_in_the_order_asked_for(folder: str) -> None:
    write_all(folder, "a", "b", "c")
    a, b, c = list_files(folder, STORAGE)
    assert read_files([c, a, b], STORAGE) == [b"c", b"a", b"b"]
    assert read_files([b], STORAGE) == [b"b"]
    assert read_files([], STORAGE) == []


def test_read_files_of_one_that_is_gone_fails_and_trying_gives_the_others(folder: str) -> None:
    write_all(folder, "a", "b", "c")
    files = list_files(folder, STORAGE)
    delete_many([files[1].path], STORAGE)
    with pytest.raises(FileNotFoundError):
        read_files(files, STORAGE)
    first, missing, last = try_read_files(files, STORAGE)
    assert (first, last) == (b"a", b"c")
    assert isinstance(missing, FileNotFoundError)


@pytest.mark.parametrize("count", [1, 3])
def test_read_files_whose_names_look_like_patterns_gives_them(folder: str, count: int) -> None:
    write_all(folder, "a[1].txt", "b*.txt", "c?.txt", "a1.txt", "bb.txt", "cc.txt")
    files = [stat_file(join(folder, name), STORAGE) for name in ("a[1].txt", "b*.txt", "c?.txt")][:count]
    assert read_files(files, STORAGE) == [b"a[1].txt", b"b*.txt", b"c?.txt"][:count]


def test_read_files_of_one_with_another_size_than_listed_fails(folder: str) -> None:
    write_all(folder, "a")
    files = list_files(folder, STORAGE)
    put(files[0].path, b"more than was listed", STORAGE)
    with pytest.raises(OSError, match="changed"):
        read_files(files, STORAGE)


def test_read_tails_of_one_that_is_gone_gives_its_error_and_the_others(folder: str) -> None:
    write_all(folder, "a", "b")
    files = list_files(folder, STORAGE)
    delete_many([files[0].path], STORAGE)
    missing, there = read_tails(files, 4, STORAGE)
    assert isinstance(missing, FileNotFoundError)
    assert there == b"b"


def test_read_tails_gives_the_ends_of_long_and_short_files(folder: str) -> None:
    write_all(folder, "a", "long name")
    files = list_files(folder, STORAGE)
    assert read_tails(files, 4, STORAGE) == [b"a", b"name"]
    assert read_tails([], 4, STORAGE) == []


def test_read_of_a_missing_object_fails(folder: str) -> None:
    with pytest.raises(FileNotFoundError):
        read_bytes(join(folder, "missing"), STORAGE)


def test_delete_many_deletes_what_is_named_and_accepts_what_is_gone(tmp_path: Path) -> None:
    write_all(str(tmp_path), "a", "b", "c")
    delete_many([str(tmp_path / name) for name in ("a", "c", "gone")], STORAGE)
    assert names(str(tmp_path)) == ["b"]


def test_check_writable_leaves_nothing_behind(folder: str) -> None:
    write_all(folder, "a")
    check_writable(folder, STORAGE)
    check_writable(join(folder, "new", "deeper"), STORAGE)
    assert names(folder) == ["a"]
    if is_local(folder):
        assert [path.name for path in Path(folder).iterdir()] == ["a"]


def test_check_writable_of_a_folder_below_a_file_fails_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="file"):
        check_writable(str(tmp_path / "file" / "out"), STORAGE)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_remove_empty_folders_keeps_the_folder_and_what_holds_files(tmp_path: Path) -> None:
    (tmp_path / "label=a" / "deep").mkdir(parents=True)
    write_all(str(tmp_path), "label=b/file")
    remove_empty_folders(str(tmp_path), STORAGE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["label=b"]
    remove_empty_folders(str(tmp_path / "label=b" / "missing"), STORAGE)
    assert names(str(tmp_path)) == ["label=b/file"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("s3://bucket/a/", "s3://bucket/a"),
        ("s3a://bucket/a", "s3://bucket/a"),
        ("/a/b/../c/", "/a/c"),
        ("file:///a/b", "/a/b"),
        ("memory://a/b", "memory://a/b"),
    ],
)
def test_full_path_is_the_form_that_is_recorded(path: str, expected: str) -> None:
    assert full_path(path) == expected


def test_full_path_of_a_home_folder_is_absolute() -> None:
    assert full_path("~/a") == str(Path.home() / "a")


def test_unknown_protocol_is_a_users_mistake() -> None:
    with pytest.raises(UserError, match="nosuch"):
        list_files("nosuch://bucket/a", STORAGE)
