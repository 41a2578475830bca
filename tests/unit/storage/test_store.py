"""Files and objects: whole or not at all, listed as readers of data sets expect. memory:// stands for object stores here."""

import os
import pickle
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline_ops.schema.errors import UserError
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.paths import full_path
from pipeline_ops.storage.store import Store


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty folder on local disk, and one on a store that fsspec knows."""
    if request.param == "local":
        yield Store(str(tmp_path))
        return
    store = Store(f"memory://{uuid.uuid4().hex}")
    yield store
    store.delete(names(store))


def names(store: Store) -> list[str]:
    return [store.relative(file.path) for file in store.list_all()]


def write_all(store: Store, *names: str) -> None:
    store.put_many({name: name.encode() for name in names})


def test_put_many_writes_each_object_whole_and_leaves_nothing_else(store: Store) -> None:
    contents = {"label=a b/1.bin": b"\x00\xff", "2.bin": b"", "ü/3.bin": b"x" * 10**6}
    store.put_many(contents)
    assert names(store) == sorted(["2.bin", "label=a b/1.bin", "ü/3.bin"])
    assert {name: store.read(name) for name in contents} == contents


def test_put_many_of_nothing_does_nothing(store: Store) -> None:
    store.put_many({})
    assert names(store) == []


def test_put_of_an_object_that_exists_replaces_it_whole(store: Store) -> None:
    store.put("a", b"the first and longer content")
    store.put("a", b"second")
    assert store.read("a") == b"second"
    assert names(store) == ["a"]


def test_put_that_fails_leaves_the_old_object_and_nothing_else(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.put("a", b"old")
    not_bytes: object = "text where bytes are due"
    with pytest.raises(TypeError):
        store.put_many({"a": not_bytes})
    assert store.read("a") == b"old"
    assert names(Store(str(tmp_path))) == ["a"]


def test_put_new_creates_once_and_keeps_the_first(store: Store) -> None:
    name = "_commits/unit.json"
    assert store.put_new(name, b"first")
    assert not store.put_new(name, b"second")
    assert store.put_new(name, b"first")  # a lost answer, put again: ours
    assert store.read(name) == b"first"
    assert names(store) == ["_commits/unit.json"]


def test_put_new_by_many_at_once_has_one_winner(tmp_path: Path) -> None:
    store, name = Store(str(tmp_path)), "deep/unit.json"
    contents = [f"attempt {index}".encode() for index in range(16)]
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda content: store.put_new(name, content), contents))
    assert won.count(True) == 1
    assert store.read(name) == contents[won.index(True)]
    assert names(Store(str(tmp_path))) == ["deep/unit.json"]


def test_list_files_below_a_folder_leaves_out_hidden_names_at_any_depth(store: Store) -> None:
    write_all(
        store, "a.txt", "b/c.txt", "b/d/e.txt", "_SUCCESS", ".hidden", "_commits/x.json", "b/.f/g.txt", "b/_h.txt", "i_j.txt"
    )
    listed = store.list_files()
    assert [file.path for file in listed] == [store.join(name) for name in ("a.txt", "b/c.txt", "b/d/e.txt", "i_j.txt")]
    assert [file.size for file in listed] == [5, 7, 9, 7]


def test_list_files_of_a_folder_that_is_itself_hidden_gives_its_files(store: Store) -> None:
    write_all(store, "_inputs/a.txt")
    assert [file.path for file in Store(store.join("_inputs")).list_files()] == [store.join("_inputs/a.txt")]


def test_list_files_of_one_file_gives_it_also_when_hidden(store: Store) -> None:
    write_all(store, "a.txt", "ab.txt", "_b.txt")
    for name in ("a.txt", "_b.txt"):
        assert [file.path for file in Store(store.join(name)).list_files()] == [store.join(name)]


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
def test_list_files_by_glob_gives_the_files_that_match(store: Store, glob: str, expected: list[str]) -> None:
    write_all(store, "b.txt", "a.txt", "deep/c.txt", "deep/er/d.txt", "e.md")
    assert [file.path for file in Store(store.join(glob)).list_files()] == [store.join(name) for name in expected]


def test_list_files_with_a_trailing_slash_is_the_same_folder(store: Store) -> None:
    write_all(store, "a.txt")
    assert Store(store.path + "/").list_files() == store.list_files()


@pytest.mark.parametrize("path", ["missing", "missing/*.txt"])
def test_list_files_of_what_is_not_there_is_empty(store: Store, path: str) -> None:
    assert Store(store.join(path)).list_files() == []


def test_list_files_identity_changes_with_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    (first,) = Store(str(path)).list_files()
    assert Store(str(path)).list_files() == [first]
    path.write_text("longer")
    (second,) = Store(str(path)).list_files()
    assert second.identity != first.identity


@pytest.mark.parametrize("path", ["in", "in/*.txt", "in/link.txt"])
def test_list_files_gives_a_link_to_a_file_as_that_file(tmp_path: Path, path: str) -> None:
    (tmp_path / "in" / "folder.txt").mkdir(parents=True)
    (tmp_path / "file").write_bytes(b"content")
    os.utime(tmp_path / "file", (1, 1))
    (tmp_path / "in" / "link.txt").symlink_to(tmp_path / "file")
    store = Store(str(tmp_path / path))
    (file,) = store.list_files()
    with store.open(file, sequential=True) as opened:  # which compares size and time
        assert opened.read() == b"content"
    (tmp_path / "file").write_bytes(b"CONTENT")
    assert store.list_files()[0].identity != file.identity
    (tmp_path / "file").unlink()
    with pytest.raises(FileNotFoundError):
        store.open(file, sequential=True)


def test_list_files_of_a_relative_path_and_a_file_url_give_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("one")
    monkeypatch.chdir(tmp_path)
    for path in ("in", "./in/", f"file://{tmp_path}/in", "in/*.txt"):
        assert [file.path for file in Store(path).list_files()] == [str(tmp_path / "in" / "a.txt")]


def test_list_all_gives_hidden_files_too(store: Store) -> None:
    write_all(store, "_commits/a.json", ".b", "c")
    assert names(store) == [".b", "_commits/a.json", "c"]
    assert Store(store.join("missing")).list_all() == []


@pytest.mark.parametrize("sequential", [True, False])
def test_open_gives_a_seekable_file(store: Store, sequential: bool) -> None:
    write_all(store, "content.txt")
    with store.open(store.stat("content.txt"), sequential=sequential) as file:
        assert file.read() == b"content.txt"
        file.seek(3)
        assert file.read(4) == b"tent"


@pytest.mark.parametrize("content", ["longer than before", "same size"])
def test_open_of_a_local_file_that_changed_since_it_was_listed_fails(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a"
    path.write_text("of a size")
    store = Store(str(tmp_path))
    file = store.stat("a")
    path.write_text(content)
    os.utime(path, (1, 1))  # a clock that is too coarse would tell nothing
    with pytest.raises(OSError, match="changed"):
        store.open(file, sequential=True)


def test_read_files_gives_contents_in_the_order_asked_for(store: Store) -> None:
    write_all(store, "a", "b", "c")
    a, b, c = store.list_files()
    assert store.read_files([c, a, b]) == [b"c", b"a", b"b"]
    assert store.read_files([b]) == [b"b"]
    assert store.read_files([]) == []


def test_read_files_of_one_that_is_gone_fails_and_trying_gives_the_others(store: Store) -> None:
    write_all(store, "a", "b", "c")
    files = store.list_files()
    store.delete([store.relative(files[1].path)])
    with pytest.raises(FileNotFoundError):
        store.read_files(files)
    first, missing, last = store.try_read_files(files)
    assert (first, last) == (b"a", b"c")
    assert isinstance(missing, FileNotFoundError)


@pytest.mark.parametrize("count", [1, 3])
def test_read_files_whose_names_look_like_patterns_gives_them(store: Store, count: int) -> None:
    write_all(store, "a[1].txt", "b*.txt", "c?.txt", "a1.txt", "bb.txt", "cc.txt")
    files = [store.stat(name) for name in ("a[1].txt", "b*.txt", "c?.txt")][:count]
    assert store.read_files(files) == [b"a[1].txt", b"b*.txt", b"c?.txt"][:count]


def test_read_files_of_one_with_another_size_than_listed_fails(store: Store) -> None:
    write_all(store, "a")
    files = store.list_files()
    store.put("a", b"more than was listed")
    with pytest.raises(OSError, match="changed"):
        store.read_files(files)


def test_read_tails_of_one_that_is_gone_gives_its_error_and_the_others(store: Store) -> None:
    write_all(store, "a", "b")
    files = store.list_files()
    store.delete([store.relative(files[0].path)])
    missing, there = store.read_tails(files, 4)
    assert isinstance(missing, FileNotFoundError)
    assert there == b"b"


def test_read_tails_gives_the_ends_of_long_and_short_files(store: Store) -> None:
    write_all(store, "a", "long name")
    files = store.list_files()
    assert store.read_tails(files, 4) == [b"a", b"name"]
    assert store.read_tails([], 4) == []


def test_read_of_a_missing_object_fails(store: Store) -> None:
    with pytest.raises(FileNotFoundError):
        store.read("missing")


def test_delete_many_deletes_what_is_named_and_accepts_what_is_gone(tmp_path: Path) -> None:
    write_all(Store(str(tmp_path)), "a", "b", "c")
    Store(str(tmp_path)).delete(["a", "c", "gone"])
    assert names(Store(str(tmp_path))) == ["b"]


def test_check_writable_leaves_nothing_behind(store: Store) -> None:
    write_all(store, "a")
    store.check_writable()
    Store(store.join("new", "deeper")).check_writable()
    assert names(store) == ["a"]
    if store.is_local:
        assert [path.name for path in Path(store.path).iterdir()] == ["a"]


def test_check_writable_of_a_folder_below_a_file_fails_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="file"):
        Store(str(tmp_path / "file" / "out")).check_writable()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_remove_empty_partitions_keeps_the_folder_and_what_holds_files(tmp_path: Path) -> None:
    (tmp_path / "label=a" / "deep").mkdir(parents=True)
    write_all(Store(str(tmp_path)), "label=b/file")
    Store(str(tmp_path)).remove_empty_partitions()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["label=b"]
    Store(str(tmp_path / "label=b" / "missing")).remove_empty_partitions()
    assert names(Store(str(tmp_path))) == ["label=b/file"]


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
        Store("nosuch://bucket/a").list_files()


def test_store_pickled_is_equal_and_its_path_a_full_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("in/", StorageConfig(endpoint_url="http://localhost:9000"))
    assert pickle.loads(pickle.dumps(store)) == store == Store(str(tmp_path / "in"), store.config)
