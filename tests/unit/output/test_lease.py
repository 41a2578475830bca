"""Who may write: one at a time, by a clock that the test sets, also when requests come late or their answers are lost."""

import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline_ops.output.lease import Lease, LeaseError, LeaseRecord, acquire, check_free, read_lease
from pipeline_ops.schema.errors import StoreError, UserError
from pipeline_ops.storage.store import Store
from tests.servers.stepped_store import Fault, Program
from tests.support import REPOSITORY

SECONDS = 60.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["local", "object store"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder that does not exist yet, and a place on a store without folders."""
    if request.param == "local":
        yield str(tmp_path / "out")
        return
    url = f"stepped://{uuid.uuid4().hex}"
    yield url
    store = Store(url)
    store.delete(store.relative(file.path) for file in store.list_all())


def take(output: str, clock: Clock, pack_term: int = 0) -> Lease:
    """Looks, and takes the lease if it is free, as a run does."""
    return acquire(Store(output), SECONDS, check_free(Store(output), clock), clock, pack_term=pack_term)


def objects(output: str) -> list[str]:
    return [Store(output).relative(file.path) for file in Store(output).list_all()]


def test_lease_of_a_new_output_is_free_and_then_held(output: str, clock: Clock) -> None:
    assert check_free(Store(output), clock) is None
    lease = take(output, clock)
    assert (lease.term, lease.must_fence) == (1, False)
    with pytest.raises(LeaseError):
        check_free(Store(output), clock)
    assert objects(output) == ["_lease/0000000001.json"]


def test_lease_that_is_held_says_by_whom_since_when_and_how_long_it_has_been_silent(output: str, clock: Clock) -> None:
    take(output, clock)
    clock.now += 25
    with pytest.raises(LeaseError) as error:
        check_free(Store(output), clock)
    record = read_lease(Store(output))
    assert record is not None
    for part in (record.holder, "since 2027-01-15 08:00:00 UTC", "last heard of 25 s ago", "35 s"):
        assert part in str(error.value)


def test_lease_that_is_released_is_free_at_once_and_nobody_is_taken_over_from(output: str, clock: Clock) -> None:
    first = take(output, clock)
    first.release()
    second = take(output, clock)
    assert second.term > first.term
    assert not second.must_fence
    assert len(objects(output)) == 1


def test_lease_that_expires_can_be_taken_over_and_not_a_moment_sooner(output: str, clock: Clock) -> None:
    first = take(output, clock)
    clock.now += SECONDS
    with pytest.raises(LeaseError):
        check_free(Store(output), clock)
    clock.now += 0.1
    second = take(output, clock)
    assert second.must_fence
    assert second.term > first.term


def test_lease_that_is_renewed_lasts_and_leaves_one_object(output: str, clock: Clock) -> None:
    lease = take(output, clock)
    for _ in range(10):
        clock.now += SECONDS / 2
        lease.confirm()
    assert len(objects(output)) == 1
    assert lease.term == 1
    with pytest.raises(LeaseError):
        check_free(Store(output), clock)


def test_check_renews_only_when_half_of_the_time_is_over(output: str, clock: Clock) -> None:
    lease = take(output, clock)
    clock.now += SECONDS / 2
    lease.check()
    assert objects(output) == ["_lease/0000000001.json"]
    clock.now += 1
    lease.check()
    assert objects(output) == ["_lease/0000000002.json"]


@pytest.mark.parametrize("renewals", [0, 1, 5])
def test_holder_that_was_slow_learns_of_it_and_cannot_disturb_the_next_one(output: str, clock: Clock, renewals: int) -> None:
    slow = take(output, clock)
    clock.now += SECONDS + 1
    second = take(output, clock)
    for _ in range(renewals):  # after one, the generation that the slow one would create is free again
        second.confirm()
    for use in (slow.check, slow.confirm, slow.check):
        with pytest.raises(LeaseError, match="did not renew it for longer than"):
            use()
    slow.release(forget=True)
    second.confirm()
    record = read_lease(Store(output))
    assert record is not None
    assert (record.token, record.released) == (second.record.token, False)
    assert len(objects(output)) == 1


def test_release_that_comes_late_does_not_free_the_lease_of_the_next_one(output: str, clock: Clock) -> None:
    slow = take(output, clock)
    clock.now += SECONDS + 1
    second = take(output, clock)
    second.confirm()
    slow.release()
    with pytest.raises(LeaseError):
        check_free(Store(output), clock)
    second.confirm()


def test_clock_that_was_set_back_makes_no_lease_last_longer_than_the_store_says(output: str, clock: Clock) -> None:
    lease = take(output, clock)
    clock.now += SECONDS + 1
    take(output, clock)
    clock.now -= 1000
    with pytest.raises(LeaseError):
        lease.confirm()


def test_acquirers_at_once_have_one_winner(tmp_path: Path, clock: Clock) -> None:
    output = str(tmp_path)
    for _ in range(10):
        seen = check_free(Store(output), clock)
        start = threading.Barrier(4)

        def attempt(_: int, seen: LeaseRecord | None = seen, start: threading.Barrier = start) -> Lease | None:
            start.wait()
            try:
                return acquire(Store(output), SECONDS, seen, clock)
            except LeaseError:
                return None

        with ThreadPoolExecutor(4) as pool:
            won = [lease for lease in pool.map(attempt, range(4)) if lease]
        assert len(won) == 1
        won[0].confirm()
        won[0].release()


@pytest.mark.parametrize("renewals", [0, 3])
def test_acquirer_that_comes_late_does_not_win(output: str, clock: Clock, renewals: int) -> None:
    seen = check_free(Store(output), clock)
    holder = take(output, clock)
    for _ in range(renewals):
        holder.confirm()
    with pytest.raises(LeaseError):
        acquire(Store(output), SECONDS, seen, clock)
    holder.confirm()
    assert len(objects(output)) == 1


def test_acquirer_that_saw_a_lease_which_was_forgotten_since_does_not_win_beside_another(output: str, clock: Clock) -> None:
    first = take(output, clock)
    first.release()
    seen = check_free(Store(output), clock)
    Store(output).delete(objects(output))
    holder = take(output, clock)
    with pytest.raises(LeaseError):
        acquire(Store(output), SECONDS, seen, clock)
    holder.confirm()


def test_terms_go_on_behind_the_newest_pack_where_the_lease_was_deleted(output: str, clock: Clock) -> None:
    assert take(output, clock, pack_term=7).term == 8


def test_released_lease_whose_holder_has_not_sealed_is_taken_over(output: str, clock: Clock) -> None:
    take(output, clock)
    clock.now += SECONDS + 1
    second = take(output, clock)
    second.release()  # without the pack that it had to write
    third = take(output, clock)
    assert third.must_fence
    third.release()
    assert not take(output, clock, pack_term=third.term).must_fence


def test_forgotten_lease_leaves_nothing(tmp_path: Path, output: str, clock: Clock) -> None:
    lease = take(output, clock)
    lease.confirm()
    lease.release(forget=True)
    assert objects(output) == []
    assert not (tmp_path / "out" / "_lease").exists()
    assert take(output, clock).term == 1


def test_lease_that_is_released_cannot_be_used(output: str, clock: Clock) -> None:
    lease = take(output, clock)
    lease.release()
    with pytest.raises(LeaseError, match="released"):
        lease.check()


def test_object_that_is_no_lease_is_an_error_that_names_it(output: str, clock: Clock) -> None:
    for content in (b"{", b"[]", b'{"generation": 1}'):
        Store(output).put("_lease/0000000003.json", content)
        with pytest.raises(OSError, match=r"0000000003.* is no lease"):
            check_free(Store(output), clock)


def test_other_objects_beside_the_lease_are_left_alone(output: str, clock: Clock) -> None:
    for name in ("notes.txt", ".incomplete-0000000009.json", "9.json"):
        Store(output).put(f"_lease/{name}", b"mine")
    take(output, clock).release()
    assert check_free(Store(output), clock) is not None
    assert len(objects(output)) == 4


HOLDER = """
import sys, time
from pipeline_ops.output.lease import acquire, check_free
from pipeline_ops.storage.store import Store
from pipeline_ops.storage.store import Store
store = Store(sys.argv[1])
acquire(store, 3600, check_free(store))
print("held", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("reaped", [True, False])
def test_lease_of_a_process_of_this_machine_is_held_until_it_is_killed(tmp_path: Path, reaped: bool) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            with pytest.raises(LeaseError, match=f"process {process.pid}"):
                check_free(Store(str(tmp_path)))
        finally:
            process.kill()
            if reaped:
                process.wait()
        deadline = time.monotonic() + 30
        seen = None
        while seen is None:  # killed, it is gone in a moment
            try:
                seen = check_free(Store(str(tmp_path)))
            except LeaseError:
                assert time.monotonic() < deadline
    assert acquire(Store(str(tmp_path)), SECONDS, seen).must_fence


class CarelessFileSystem(MemoryFileSystem):
    """A store that takes If-None-Match and ignores it."""

    protocol = "careless"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("careless://", "memory://"))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: object) -> None:
        super().pipe_file(path, value)


def test_store_that_ignores_conditional_puts_is_refused(clock: Clock) -> None:
    fsspec.register_implementation("careless", CarelessFileSystem, clobber=True)
    output = f"careless://{uuid.uuid4().hex}"
    with pytest.raises(UserError, match="ignores conditional puts"):
        take(output, clock)
    assert objects(output) == []


def run_with_fault(function: Callable[[], None], kind: str, fault: Fault) -> BaseException | None:
    """Runs a function, with a fault at its first request of that kind; returns what it raised."""
    program = Program(function)
    pending: list[Fault] = [fault]
    while program.request:
        program.step(pending.pop() if pending and program.request[0] == kind else None)
    return program.error


@pytest.mark.parametrize("request_kind", ["put", "list", "delete"])
@pytest.mark.parametrize("fault", ["lost request", "lost answer"])
def test_renewal_that_fails_half_way_can_be_done_again(clock: Clock, request_kind: str, fault: Fault) -> None:
    output = f"stepped://{uuid.uuid4().hex}"
    lease = take(output, clock)
    assert isinstance(run_with_fault(lease.confirm, request_kind, fault), StoreError)
    clock.now += SECONDS / 2
    lease.confirm()
    record = read_lease(Store(output))
    assert record is not None
    assert (record.token, record.renewed) == (lease.record.token, clock.now)
    lease.release()
    assert check_free(Store(output), clock) is not None


def test_lease_is_renewed_in_the_background_while_the_block_runs(
    output: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the test's clock: while the thread that renews it waits, the time passes, and another run looks at its end."""
    looks: list[bool] = []
    seen_enough = threading.Event()

    class Waiting(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            if not seen_enough.is_set():
                clock.now += timeout
                looks.append(is_held(output, clock))
                if clock.now > began + 3 * SECONDS:
                    seen_enough.set()
                return False
            return super().wait(timeout)

    lease, began = take(output, clock), clock.now
    monkeypatch.setattr("pipeline_ops.output.lease.threading", SimpleNamespace(Event=Waiting, Thread=threading.Thread))
    with lease.renewed():
        assert seen_enough.wait(60)
        assert all(looks), "held all the time"
        assert lease.record.generation > 3
        lease.check()
    lease.release()
    assert not is_held(output, clock)


def is_held(output: str, clock: Clock) -> bool:
    """Whether another run would be refused."""
    try:
        check_free(Store(output), clock)
    except LeaseError:
        return True
    return False


def test_lease_that_is_lost_in_the_background_shows_at_the_next_check(output: str) -> None:
    lease = acquire(Store(output), 0.2, None)
    other = lease.record.generation + 1
    stolen = Store(output).read(objects(output)[0]).replace(lease.record.token.encode(), b"another")
    Store(output).put(f"_lease/{other:010}.json", stolen)
    with lease.renewed(), pytest.raises(LeaseError):
        check_for(lease, seconds=30)


def check_for(lease: Lease, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        lease.check()
        time.sleep(0.02)
