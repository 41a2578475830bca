"""Several drivers at once on one output: whatever the order of their requests, nothing is lost and nothing stands twice.

Each driver (tests/support/protocol_drivers.py) can stall before any of its requests for any time, lose a request or an answer,
be interrupted or be killed. More examples than in the suite: `python -m tests.unit.output.test_commit_protocol 2000`.
"""

import json
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

import jobs.publishing.existing_output
import jobs.run.commit_writer
import pipeline_ops.output.lease
import pipeline_ops.publishing.publisher
from pipeline_ops.output.commit_log import (
    gaps,
    garbage_files,
    overlaps,
    pieces_by_file,
    read_ledger,
)
from pipeline_ops.output.lease import Lease, LeaseError, acquire, check_free
from pipeline_ops.schema.errors import UserError, is_store_fault
from pipeline_ops.schema.units import Piece
from pipeline_ops.writing.commit_record import Commit
from tests.servers.stepped_store import Fault, Interrupted, Killed, Program, SteppedFileSystem
from tests.support.protocol_drivers import INPUTS, LEASE_S, TABLE_FOLDER, Driver, PathsTable, World, here, rows_of
from tests.support.tiers import mostly_slow

LOOSE_RECORDS = 2  # the product's is 1000


def check_output(world: World) -> dict[str, list[Piece]]:
    """What a fresh reader finds stands once, in one version, and on storage; returns the pieces by input file."""
    current = read_ledger(world.store).current
    there = {world.store.relative(file.path) for file in world.store.list_all()}
    named = [file.path for commit in current.values() for file in commit.all_files()]
    assert len(named) == len(set(named)), "a file is named twice"
    assert set(named) <= there, f"lost: {sorted(set(named) - there)}"
    world.states.append({*named})
    check_table(world, there)
    found = pieces_by_file(current.values())
    for path, pieces in found.items():
        assert not overlaps(pieces), f"twice: {overlaps(pieces)}"
        assert len({piece.identity for piece in pieces}) == 1, f"two versions of {path}"
    return found


def check_table(world: World, there: set[str]) -> None:
    """Each version of the table is what was committed at some moment, in their order, and the newest one can be read."""
    names = [world.store.relative(file.path) for file in world.store.list_all(TABLE_FOLDER)]
    versions = [set(json.loads(world.store.read(name))["paths"]) for name in names]
    moments = iter(world.states)
    state = next(moments)
    for version in versions:
        while state != version:
            state = next(moments, None)
            assert state is not None, f"a version of what was not committed, or not then: {sorted(version)}"
    newest = versions[-1] if versions else set()
    assert newest <= there, f"lost: {sorted(newest - there)}"


def check_complete(world: World) -> None:
    """Every input file is labeled from its first row to its last as it is now, nothing else is, and the table has just that."""
    found = check_output(world)
    assert PathsTable(world.store).read().paths == world.states[-1], "the table is not what is committed"
    assert set(found) == set(world.inputs), f"{sorted(found)}, not {sorted(world.inputs)}"
    for path, identity in world.inputs.items():
        assert {piece.identity for piece in found[path]} == {identity}, f"{path} is not as it is now"
        assert not gaps(found[path]), f"missing: {path} {gaps(found[path])}"


def kind_of(request: tuple[str, str] | None) -> str:
    """What a request is for."""
    if request is None:
        return "end"
    what, path = request
    folder = next((name for name in ("_lease", "_commits", TABLE_FOLDER) if f"/{name}" in path), "data")
    return f"{what} {folder}"


KINDS = (
    "put _lease",
    "list _lease",
    "delete _lease",
    "put _commits",
    "read _commits",
    "delete _commits",
    "list _commits",
    f"put {TABLE_FOLDER}",
    f"read {TABLE_FOLDER}",
    f"list {TABLE_FOLDER}",
    "put data",
    "list data",
    "delete data",
)
FAULTS: tuple[Fault, ...] = ("lost request", "lost answer", "interrupted before", "interrupted after")
slots = st.integers(0, 2)


class CommitProtocol(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.drivers: dict[int, tuple[Driver, Program]] = {}
        self.stalled: list[Program] = []

    def _start(self, slot: int, driver: Driver) -> None:
        self.drivers[slot] = (driver, Program(driver.run))

    def _step(self, slot: int, fault: Fault | None = None) -> None:
        driver, program = self.drivers[slot]
        what, path = program.request or ("", "")
        program.step(fault)
        if program.ended:
            del self.drivers[slot]
        check_output(self.world)
        if fault is None and kind_of((what, path)) == "put _commits" and "/pack-" not in path:
            counts = {commit.name for commit in read_ledger(self.world.store).commits.values()}
            there = Commit.from_json(self.world.store.read(self.world.store.relative(f"stepped:/{path}")))
            driver.voided = driver.voided or there.name not in counts
        if program.ended:
            check_error(driver, program)

    @precondition(lambda self: len(self.drivers) < 3)
    @rule(skew_s=st.sampled_from([0.0, 45.0, -45.0]), compacts=st.booleans(), until=st.sampled_from(KINDS))
    def start(self, skew_s: float, compacts: bool, until: str) -> None:
        slot = next(slot for slot in range(3) if slot not in self.drivers)
        self._start(slot, Driver(self.world, skew_s, compacts))
        self.run_until(slot, until, 1)

    @precondition(lambda self: self.drivers)
    @rule(slot=slots, steps=st.integers(1, 5))
    def go_on(self, slot: int, steps: int) -> None:
        for _ in range(steps):
            if slot in self.drivers:
                self._step(slot)

    @precondition(lambda self: self.drivers)
    @rule(slot=slots, kind=st.sampled_from(KINDS), times=st.integers(1, 3))
    def run_until(self, slot: int, kind: str, times: int) -> None:
        """It stalls before a request of that kind: only after it has made `times - 1` of them."""
        while slot in self.drivers:
            self._step(slot)
            if slot in self.drivers and kind_of(self.drivers[slot][1].request) == kind:
                times -= 1
                if not times:
                    return

    @precondition(lambda self: self.drivers)
    @rule(slot=slots)
    def finish(self, slot: int) -> None:
        while slot in self.drivers:
            self._step(slot)

    @precondition(lambda self: self.drivers)
    @rule(slot=slots, fault=st.sampled_from(FAULTS))
    def fail(self, slot: int, fault: Fault) -> None:
        if slot in self.drivers:
            self._step(slot, fault)

    @precondition(lambda self: self.drivers)
    @rule(slot=slots)
    def kill(self, slot: int) -> None:
        if slot in self.drivers:
            self.drivers.pop(slot)[1].kill()

    @precondition(lambda self: self.drivers)
    @rule(slot=slots)
    def renew(self, slot: int) -> None:
        """What happens in the background, but while a request for the lease is under way."""
        driver, program = self.drivers.get(slot, (None, None))
        if driver and program and driver.lease and not kind_of(program.request).endswith("_lease"):
            try:
                driver.lease.confirm()
            except LeaseError:
                return

    @rule(seconds=st.sampled_from([10.0, 35.0, 61.0, 120.0]))
    def wait(self, seconds: float) -> None:
        self.world.now += seconds

    @rule(path=st.sampled_from(sorted(INPUTS)), identity=st.sampled_from(["v1", "v2", None]))
    def change(self, path: str, identity: str | None) -> None:
        """The content of an earlier version has its identity again, as etags have."""
        if identity is None and len(self.world.inputs) > 1:
            self.world.inputs.pop(path, None)
        elif identity:
            self.world.inputs[path] = identity

    @invariant()
    def output_is_whole(self) -> None:
        check_output(self.world)

    def _run_alone(self) -> bool:
        """A run that nobody disturbs; says whether there was anything to do."""
        self.world.now += 10 * LEASE_S
        driver = Driver(self.world)
        program = Program(driver.run)
        while not program.ended:
            kind = kind_of(program.request)
            program.step()
            if kind == "put _commits":
                check_output(self.world)
        if program.error is not None:
            raise program.error
        check_complete(self.world)
        ledger = read_ledger(self.world.store)
        assert not garbage_files(self.world.store, ledger, set), "garbage is left"
        named = sum(len(commit.all_files()) for commit in ledger.current.values())
        files = [file.path for file in self.world.store.list_all() if "/label=" in file.path]
        assert len(files) == named, "files that no commit names are left"
        return driver.lease is not None

    def teardown(self) -> None:
        try:
            had_the_lease = self._run_alone()
            for slot in list(self.drivers):  # whoever was stalled goes on only now
                self.finish(slot)
                if had_the_lease:  # else one that has seen another input may take the lease now
                    check_complete(self.world)
            self._run_alone()
        finally:
            for _, program in self.drivers.values():
                program.kill()
            root = self.world.output.path.removeprefix("stepped:/")
            for path in [path for path in SteppedFileSystem.store if path.startswith(root)]:
                del SteppedFileSystem.store[path]


def check_error(driver: Driver, program: Program) -> None:
    """A driver ends well, or because of what the test did to it: never with an error of its own making."""
    error = program.error
    cause = error.__cause__ or error if isinstance(error, UserError) else error
    nothing_there = isinstance(error, UserError) and "holds no labels" in str(error)
    is_planned = nothing_there or isinstance(cause, LeaseError | Interrupted | Killed)
    if cause is not None and not is_planned and not is_store_fault(cause):
        raise AssertionError(f"a driver failed: {type(error).__name__}: {error}") from error
    assert error is not None or not driver.voided, "a run ended well, but what it committed does not count"


SUITE = settings(
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large),
)


def run_machine(how: settings) -> None:
    """The product's functions with each driver's own clock, and packs of few records."""

    def clocked_acquire(*arguments: Any, **options: Any) -> Lease:
        driver = here.driver
        driver.lease = acquire(*arguments, **options, clock=driver.clock)
        return driver.lease

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs.run.commit_writer, "LOOSE_RECORDS", LOOSE_RECORDS)
        patch.setattr(pipeline_ops.output.lease, "acquire", clocked_acquire)
        patch.setattr(pipeline_ops.publishing.publisher, "open_table", lambda store, output: PathsTable(store))
        patch.setattr(pipeline_ops.publishing.publisher, "table_rows", rows_of)
        patch.setattr(jobs.publishing.existing_output, "check_free", lambda store: check_free(store, here.driver.clock))
        run_state_machine_as_test(CommitProtocol, settings=how)


@pytest.mark.parametrize("examples", mostly_slow([70, 200], quick=[70]))
def test_commit_protocol_in_any_order_of_requests_loses_nothing_and_doubles_nothing(examples: int) -> None:
    run_machine(settings(SUITE, max_examples=examples))


if __name__ == "__main__":
    run_machine(settings(SUITE, max_examples=int(sys.argv[1]), stateful_step_count=40, derandomize=False))
