"""Requests to a real S3 server that fail, and bytes that arrive wrong: what is tried again, what is found, what is said."""

import json
import threading

import pytest
from botocore.exceptions import NoCredentialsError

from pipeline_ops.schema.errors import StoreError, is_store_failing, is_store_fault
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.etags import has_right_bytes, sent_etag
from pipeline_ops.storage.s3 import REQUEST_TRIES
from pipeline_ops.storage.store import Store
from tests.conftest import Bucket
from tests.servers.s3_proxy import Rule
from tests.support.tiers import mostly_slow

CONTENT = bytes(range(256)) * 400


def store_of(s3: Bucket, folder: str = "in", *, checksums: bool = True) -> Store:
    return Store(f"{s3.url}/{folder}", StorageConfig(endpoint_url=s3.endpoint_url, checksums=checksums))


def put_and_list(s3: Bucket, names: tuple[str, ...] = ("a.bin",)):
    store_of(s3).put_many(dict.fromkeys(names, CONTENT))
    return store_of(s3).list_all()


@pytest.mark.parametrize(
    "kind", mostly_slow(["status", "reset", "reset_mid", "close_mid", "short", "flip"], quick=["status", "close_mid", "flip"])
)
def test_read_that_fails_twice_gives_the_right_bytes(s3: Bucket, kind):
    files = put_and_list(s3, ("a.bin", "b.bin"))
    with s3.proxy.faults(Rule(kind, "GetObject", times=2)):
        assert store_of(s3).read_files(files) == [CONTENT, CONTENT]
    assert s3.journal.faults()[kind] == 2


@pytest.mark.parametrize("kind", mostly_slow(["status", "close_mid", "short", "flip"], quick=["flip"]))
def test_read_that_always_fails_says_so_after_a_few_requests(s3: Bucket, kind):
    files = put_and_list(s3)
    with s3.proxy.faults(Rule(kind, "GetObject", times=None)), pytest.raises(StoreError, match=r"in/a\.bin"):
        store_of(s3).read_files(files)
    assert REQUEST_TRIES - 2 <= len(s3.journal.requests("GetObject")) <= 4 * REQUEST_TRIES


@pytest.mark.parametrize("sequential", [True, False])
@pytest.mark.parametrize("kind", mostly_slow(["flip", "short", "close_mid", "reset"], quick=["flip", "short"]))
def test_range_that_arrives_wrong_once_is_read_again(s3: Bucket, kind, sequential: bool):
    (file,) = put_and_list(s3)
    with s3.proxy.faults(Rule(kind, "GetObject")), store_of(s3).open(file, sequential=sequential) as opened:
        opened.seek(100)
        assert opened.read(5000) == CONTENT[100:5100]
    assert s3.journal.faults()[kind] == 1


def test_object_that_changed_since_it_was_listed_is_not_read(s3: Bucket):
    (file,) = put_and_list(s3)
    store_of(s3).put("a.bin", CONTENT[::-1])
    with pytest.raises(OSError, match="longer exists"), store_of(s3).open(file, sequential=True) as opened:
        opened.read(10)
    with pytest.raises(StoreError):
        store_of(s3).read_files([file])


@pytest.mark.parametrize(
    "kind", mostly_slow(["status", "reset", "after_status", "after_reset", "flip"], quick=["after_status", "flip"])
)
def test_put_that_fails_twice_leaves_the_right_bytes(s3: Bucket, kind):
    with s3.proxy.faults(Rule(kind, "PutObject", times=2)):
        store_of(s3, "out").put_many({"a": CONTENT, "b": CONTENT})
        assert store_of(s3, "out").put_new("new", b'{"token": 1}')
    assert s3.journal.faults()[kind] == 2
    for name in ("a", "b"):
        assert s3.filesystem.cat_file(f"{s3.name}/out/{name}") == CONTENT
    assert not store_of(s3, "out").put_new("new", b'{"token": 2}')


@pytest.mark.parametrize("fraction", [0, 0.5])
def test_create_only_put_whose_refusal_arrives_cut_finds_the_object_that_is_there(s3: Bucket, fraction: float):
    assert store_of(s3, "out").put_new("new", b'{"token": 1}')
    with s3.proxy.faults(Rule("short", "PutObject", times=None, fraction=fraction)):
        assert not store_of(s3, "out").put_new("new", b'{"token": 2}')
        assert store_of(s3, "out").put_new("new", b'{"token": 1}'), "ours, put before"


@pytest.mark.parametrize("fraction", [0, 0.5])
def test_listing_that_arrives_cut_is_asked_for_again_and_never_believed(s3: Bucket, fraction: float):
    files = put_and_list(s3, ("a.bin", "b.bin"))
    with s3.proxy.faults(Rule("short", "ListObjects", fraction=fraction)):
        assert store_of(s3).list_all() == files
    with s3.proxy.faults(Rule("short", "ListObjects", times=None, fraction=fraction)), pytest.raises(StoreError):
        store_of(s3).list_all()
    assert store_of(s3, "other").list_all() == []


@pytest.mark.parametrize(("checksums", "why"), [(True, "CRC32"), (False, "other bytes")])
def test_put_of_bytes_that_always_arrive_wrong_is_an_error(s3: Bucket, checksums: bool, why: str):
    store = store_of(s3, "out", checksums=checksums)
    with s3.proxy.faults(Rule("flip", "PutObject", times=None)), pytest.raises(StoreError, match=why):
        store.put_many({"a": CONTENT})
    assert s3.filesystem.exists(f"{s3.name}/out/a") != checksums, "a store that is sent a checksum keeps no wrong bytes"


def test_put_to_a_store_that_is_sent_no_checksum_is_made_good_at_once(s3: Bucket):
    store = store_of(s3, "out", checksums=False)
    with s3.proxy.faults(Rule("flip", "PutObject", "out/a"), Rule("flip", "PutObject", "out/new")):
        store.put_many({"a": CONTENT})
        assert store.put_new("new", b'{"token": 1}')
    assert s3.filesystem.cat_file(f"{s3.name}/out/a") == CONTENT
    assert s3.filesystem.cat_file(f"{s3.name}/out/new") == b'{"token": 1}'
    assert [request.operation for request in s3.journal.requests("PutObject|GetObject", "out/.*")] == ["PutObject"] * 4


def test_create_only_put_by_many_at_once_has_one_winner_also_when_answers_are_lost(s3: Bucket):
    contents = [json.dumps({"attempt": number}).encode() for number in range(12)]
    won: list[bytes] = []

    def create(content: bytes) -> None:
        if store_of(s3, "out").put_new("_commits/unit.json", content):
            won.append(content)

    with s3.proxy.faults(Rule("after_reset", "PutObject", times=4), Rule("after_status", "PutObject", skip=4, times=4)):
        threads = [threading.Thread(target=create, args=[content]) for content in contents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert won == [s3.filesystem.cat_file(f"{s3.name}/out/_commits/unit.json")]


def test_deletion_that_the_store_refuses_for_one_object_is_an_error(s3: Bucket):
    put_and_list(s3, ("a.bin", "b.bin"))
    refusal = Rule("status", "DeleteObjects", times=None, status=403, code="AccessDenied")
    with s3.proxy.faults(refusal), pytest.raises(PermissionError):
        store_of(s3).delete(["a.bin", "b.bin"])
    store_of(s3).delete(["a.bin", "b.bin"])
    assert store_of(s3).list_all() == []


def test_etags_and_sizes_tell_right_bytes_from_wrong_ones() -> None:
    assert has_right_bytes(b"one", 3, sent_etag(b"one"))
    assert not has_right_bytes(b"one", 3, sent_etag(b"two"))
    assert not has_right_bytes(b"on", 3, "0123-2")
    assert has_right_bytes(b"one", 3, "0123-2")  # of a multipart upload: it says nothing


def test_outages_are_told_from_mistakes_and_from_the_objects_own_faults() -> None:
    assert is_store_failing(StoreError("busy"))
    assert not is_store_failing(StoreError("no connection", unreachable=True))
    assert not is_store_failing(NoCredentialsError())
    for error in (StoreError("busy"), StoreError("no connection", unreachable=True), NoCredentialsError()):
        assert is_store_fault(error)
    for error in (FileNotFoundError(), PermissionError(), OSError("broken zstd"), ValueError()):
        assert not is_store_fault(error)


def test_create_only_put_refused_without_naming_the_condition_is_recognised(s3: Bucket):
    """As radosgw answers; moto and AWS name the header, which s3fs turns into FileExistsError."""
    store = store_of(s3, "out")
    assert store.put_new("_commits/unit.json", b"first")
    with s3.proxy.faults(Rule("status", "PutObject", times=None, status=412, code="PreconditionFailed")):
        assert not store.put_new("_commits/unit.json", b"second")
        assert store.put_new("_commits/unit.json", b"first"), "ours: the answer to an earlier put was lost"
