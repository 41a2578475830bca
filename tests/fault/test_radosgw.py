"""On a store that checks and writes in one step: one winner of each race. moto, on which the other tests run, is not one.

The gateway also compares the bytes of a put with the signature, which moto does not.
"""

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import pytest

from pipeline_ops.output.lease import Lease, LeaseError, acquire, check_free, read_lease
from pipeline_ops.schema.errors import StoreError
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.etags import PART_BYTES, sent_etag
from pipeline_ops.storage.s3 import MAX_DELETED_PER_REQUEST
from pipeline_ops.storage.store import Store, StoredFile
from tests.servers.radosgw import missing_programs, radosgw_server
from tests.servers.s3_proxy import FaultProxy, Kind, Rule
from tests.servers.s3_server import S3Server

pytestmark = [
    pytest.mark.radosgw,
    pytest.mark.skipif(
        bool(missing_programs()), reason=f"Ceph is not installed, or not all of it: no {', '.join(missing_programs())}"
    ),
]

KIB, MIB = 2**10, 2**20
LEASE_S = 60.0
CONTENDERS = 8
LEASE_ROUNDS = 6
Result = TypeVar("Result")


@dataclass(frozen=True)
class Place:
    """An empty bucket and how the product reaches it."""

    url: str
    storage: StorageConfig

    @property
    def store(self) -> Store:
        return Store(self.url, self.storage)

    def files(self) -> list[StoredFile]:
        return self.store.list_all()


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with radosgw_server(tmp_path_factory.mktemp("radosgw")) as server:
        yield server


@pytest.fixture
def place(server: S3Server) -> Iterator[Place]:
    name, filesystem = f"test-{uuid.uuid4().hex}", server.filesystem()
    filesystem.mkdir(name)
    yield Place(f"s3://{name}", StorageConfig(endpoint_url=server.endpoint_url))
    filesystem.rm(name, recursive=True)


@pytest.fixture
def proxy(server: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(server.endpoint_url) as proxy:
        yield proxy


def at_once(number: int, attempt: Callable[[int], Result]) -> list[Result]:
    """What `attempt` returns for 0 to `number` - 1, all begun in the same moment."""
    start = threading.Barrier(number)

    def begin(index: int) -> Result:
        start.wait()
        return attempt(index)

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(begin, range(number)))


def content_of(index: int, size: int) -> bytes:
    """Differs from that of every other index at every sixteenth byte at least, so that a mixture is none of them."""
    token = uuid.uuid4().bytes[:15] + bytes([index])
    return (token * (size // len(token) + 1))[:size]


@pytest.mark.parametrize(("size", "writers", "rounds"), [(100, 24, 12), (MIB, 24, 8), (8 * MIB, 24, 4)])
def test_creations_at_once_have_one_winner_whose_bytes_stay(place: Place, size: int, writers: int, rounds: int):
    for number in range(rounds):
        path = f"{number}.json"
        contents = [content_of(index, size) for index in range(writers)]

        def create(index: int, path: str = path, contents: list[bytes] = contents) -> tuple[bool, bool]:
            won = place.store.put_new(path, contents[index])
            return won, place.store.read(path) == contents[index]

        results = at_once(writers, create)
        assert sorted(results) == [(False, False)] * (writers - 1) + [(True, True)]
        assert place.store.read(path) == contents[results.index((True, True))]


def test_contenders_for_a_lease_at_once_have_one_holder(place: Place):
    """All have found it free before one of them takes it. In turn it is new, released, and expired."""
    clock = Clock()
    for number in range(LEASE_ROUNDS):
        looked = threading.Barrier(CONTENDERS)

        def contend(_: int, looked: threading.Barrier = looked) -> Lease | None:
            seen = check_free(place.store, clock)
            looked.wait()
            try:
                return acquire(place.store, LEASE_S, seen, clock)
            except LeaseError:
                return None

        holders = [lease for lease in at_once(CONTENDERS, contend) if lease]
        assert len(holders) == 1
        with pytest.raises(LeaseError, match="is being written by"):
            check_free(place.store, clock)
        holders[0].confirm()
        assert len(place.files()) == 1
        if number % 2:
            clock.now += LEASE_S + 1
        else:
            holders[0].release()


def test_contenders_that_look_for_themselves_have_one_holder(place: Place):
    def contend(_: int) -> Lease | None:
        try:
            return acquire(place.store, LEASE_S, check_free(place.store))
        except LeaseError:
            return None

    for _ in range(LEASE_ROUNDS):
        holders = [lease for lease in at_once(CONTENDERS, contend) if lease]
        assert len(holders) == 1
        holders[0].release()


def test_lease_is_renewed_taken_over_when_it_has_expired_and_released(place: Place):
    clock = Clock()
    first = acquire(place.store, LEASE_S, check_free(place.store, clock), clock)
    for _ in range(3):
        clock.now += LEASE_S
        first.confirm()
    clock.now += LEASE_S
    with pytest.raises(LeaseError):
        check_free(place.store, clock)
    clock.now += 0.1
    second = acquire(place.store, LEASE_S, check_free(place.store, clock), clock)
    assert (second.must_fence, second.term > first.term) == (True, True)
    with pytest.raises(LeaseError, match="did not renew it for longer than"):
        first.confirm()
    first.release(forget=True)
    second.confirm()
    record = read_lease(place.store)
    assert record is not None
    assert (record.token, record.released, len(place.files())) == (second.record.token, False, 1)
    second.release()
    assert check_free(place.store, clock) is not None


def test_renewals_of_a_holder_and_of_its_successor_at_once_leave_one_lease(place: Place):
    clock = Clock()
    first = acquire(place.store, LEASE_S, None, clock)
    clock.now += LEASE_S + 1
    seen = check_free(place.store, clock)

    def confirm_or_take_over(index: int) -> Lease | None:
        try:
            if index:
                return acquire(place.store, LEASE_S, seen, clock)
            first.confirm()
            return first
        except LeaseError:
            return None

    holders = [lease for lease in at_once(CONTENDERS, confirm_or_take_over) if lease]
    assert len(holders) == 1
    holders[0].confirm()
    assert len(place.files()) == 1


def test_objects_put_together_are_listed_read_and_deleted(place: Place):
    """More than one page of a listing and one request to delete; names that a glob or a URL would take for something else."""
    names = [f"many/{number:04}" for number in range(MAX_DELETED_PER_REQUEST + 50)]
    names += ["odd/a*b", "odd/a?b", "odd/[ab]", "odd/a b+c=d%25", "odd/ä/文", "odd/a&b<c>"]
    contents = {name: name.encode() for name in names} | {"large": content_of(1, 8 * MIB)}
    place.store.put_many(contents)
    files = place.files()
    assert {file.path: (file.size, file.identity) for file in files} == {
        place.store.join(name): (len(content), sent_etag(content)) for name, content in contents.items()
    }
    assert place.store.read_files(files) == [contents[place.store.relative(file.path)] for file in files]
    place.store.delete([*(name for name in contents if name != "odd/a*b"), "was never there"])
    assert [file.path for file in place.files()] == [place.store.join("odd/a*b")]


def test_object_of_several_parts_has_the_etag_of_what_was_sent(place: Place):
    content = content_of(1, 2 * PART_BYTES + 3 * MIB)
    place.store.put("large", content)
    (file,) = place.files()
    assert (file.size, file.identity) == (len(content), sent_etag(content))
    assert file.identity.endswith("-3")
    assert place.store.read_files([file]) == [content]
    with place.store.open(file, sequential=False) as opened:
        for start in (0, PART_BYTES - 10, len(content) - 20):
            opened.seek(start)
            assert opened.read(20) == content[start : start + 20]


def test_wrong_secret_is_refused_and_the_answer_named(server: S3Server, place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    storage = StorageConfig(endpoint_url=server.endpoint_url, region="us-east-2")  # a client of its own
    with pytest.raises(PermissionError, match="SignatureDoesNotMatch"):
        Store(place.url, storage).put("object", b"")


@pytest.mark.parametrize("sequential", [True, False])
def test_object_that_was_replaced_since_it_was_listed_is_not_read(place: Place, sequential: bool):
    path = "replaced"
    content = content_of(1, 64 * KIB)
    place.store.put(path, content)
    (file,) = place.files()
    with place.store.open(file, sequential=sequential) as opened:
        assert opened.read() == content
    place.store.put(path, content_of(2, 64 * KIB))
    with place.store.open(file, sequential=sequential) as opened, pytest.raises(OSError, match="no longer exists"):
        opened.read(16)
    with pytest.raises(StoreError, match="are not those of the listed object"):
        place.store.read_files([file])


@pytest.mark.parametrize(
    ("kind", "size"),
    [("flip", 100), ("after_status", 100), ("after_reset", 100), ("flip", 2 * PART_BYTES), ("after_reset", 2 * PART_BYTES)],
)
def test_put_that_arrives_spoilt_or_whose_answer_is_lost_is_made_good(place: Place, proxy: FaultProxy, kind: Kind, size: int):
    content = content_of(1, size)
    with proxy.faults(Rule(kind, "PutObject|UploadPart")):
        Store(place.url, StorageConfig(endpoint_url=proxy.endpoint_url)).put("object", content)
    assert proxy.journal.faults() == {kind: 1}
    assert place.store.read_files(place.files()) == [content]


@pytest.mark.parametrize("kind", ["flip", "after_status", "after_reset"])
def test_creation_that_arrives_spoilt_or_whose_answer_is_lost_has_won(place: Place, proxy: FaultProxy, kind: Kind):
    content = content_of(1, 100)
    with proxy.faults(Rule(kind, "PutObject")):
        assert Store(place.url, StorageConfig(endpoint_url=proxy.endpoint_url)).put_new("object", content)
    assert proxy.journal.faults() == {kind: 1}
    assert place.store.read_files(place.files()) == [content]
