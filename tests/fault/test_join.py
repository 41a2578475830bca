"""A join that ends at any of its requests, by a kill or a fault, or whose outputs change there: the next one completes it, each
document once."""

import uuid
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import pytest

from pipeline_ops.output.commit_log import garbage_files, overlaps, pieces_by_file, read_ledger
from pipeline_ops.output.integrity import VerifyState, check_commit
from pipeline_ops.output.labeled_output import open_labeled, read_columns
from pipeline_ops.schema.errors import ReplacedError, UserError
from pipeline_ops.schema.units import Piece
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.store import Store
from tests.conftest import Bucket
from tests.fault.conftest import every_fault
from tests.servers.s3_proxy import Rule
from tests.servers.stepped_store import Program, SteppedFileSystem
from tests.support.joined_outputs import LabeledOnce, Rows, expected_rows, join_here, piece_of
from tests.support.running import command, start_command, wait_for
from tests.support.tiers import mostly_slow

QUALITY, TOPIC = ("good", "bad"), ("art", "law", "maths")
X, Y, Z, NEW, CHANGED = (
    piece_of("x", 0, 6),
    piece_of("y", 0, 5),
    piece_of("z", 0, 4),
    piece_of("n", 0, 3),
    piece_of("x", 0, 9, version="v2"),
)
CHANGED_AGAIN = piece_of("x", 0, 8, version="v3")
REJECTED = [2]
TIMEOUT_S = 180
FAULTS: tuple[str, ...] = ("lost request", "lost answer", "interrupted before", "interrupted after")


def make_outputs(root: str, storage: StorageConfig = StorageConfig()) -> tuple[LabeledOnce, LabeledOnce]:
    """Two outputs, joined into ROOT/c, and of whose files some have changed since, some are new or gone."""
    a = LabeledOnce(f"{root}/a", "models/quality", QUALITY, storage)
    b = LabeledOnce(f"{root}/b", "models/topic", TOPIC, storage, partition_by=[])
    first = [(one.add(X, Y, reject=REJECTED), one.add(Z)) for one in (a, b)]
    join_here(f"{root}/c", a, b)
    a.add(NEW)
    a.add(Y, CHANGED, reject=REJECTED, replaces=[first[0][0]])
    b.add(CHANGED, Y, NEW, replaces=[first[1][0]])
    for one, (_, its) in zip((a, b), first, strict=True):
        one.drop(its)
    return a, b


def rows_of(store: Store) -> Rows:
    """The rows that the current commits name; checks that none stands twice, and that each is what the commits say."""
    ledger = read_ledger(store)
    assert not any(overlaps(pieces) for pieces in pieces_by_file(ledger.current.values()).values())
    if not ledger.current:
        return {}
    labeled, state = open_labeled(store), VerifyState()
    assert [line for commit in labeled.commits for line in check_commit(store, commit, labeled.columns, state)] == []
    names = ["source_file", "source_row", "text", "quality_label", "topic_label"]
    tables = [table for _, table in read_columns(store, labeled.files, names, labeled.partition_types)]
    found = [row for table in tables for row in zip(*(column.to_pylist() for column in table.columns), strict=True)]
    return {(path, row): tuple(rest) for path, row, *rest in found}


def expected(*pieces: Piece) -> Rows:
    return expected_rows(pieces, REJECTED, labels=(QUALITY, TOPIC)) | expected_rows(
        [piece for piece in pieces if piece in (Z, NEW)], labels=(QUALITY, TOPIC)
    )


class Snapshot:
    """The objects of a stepped store as they are now, to go back to."""

    def __init__(self, root: str):
        self.root = SteppedFileSystem._strip_protocol(root)
        self.contents = {path: file.getvalue() for path, file in self._files().items()}

    def _files(self) -> dict[str, Any]:
        return {path: file for path, file in SteppedFileSystem.store.items() if path.startswith(self.root)}

    def restore(self) -> None:
        for path in self._files():
            del SteppedFileSystem.store[path]
        for path, content in self.contents.items():
            SteppedFileSystem().pipe_file(path, content)


@pytest.mark.parametrize(
    ("fault", "every"), mostly_slow([("killed", 9), ("killed", 1), *((fault, 2) for fault in FAULTS)], [("killed", 9)])
)
def test_join_that_ends_at_any_request_is_completed_by_the_next(
    monkeypatch: pytest.MonkeyPatch, fault: str, every: int
) -> None:
    monkeypatch.setattr("pipeline_ops.output.lease.is_gone", lambda process: True)  # of the join that has ended
    monkeypatch.setattr("pipeline_ops.joining.join_plan.UNIT_ROWS", 7)  # several units, one of two files
    root = f"stepped://{uuid.uuid4().hex}"
    a, b = make_outputs(root)
    joined, snapshot = Store(f"{root}/c"), Snapshot(root)
    assert rows_of(joined) == expected(X, Y, Z)
    for steps in count(1, every):
        snapshot.restore()
        program = Program(partial(join_here, joined.path, a, b))
        for _ in range(steps):
            if program.ended:
                break
            program.step()
        finished = program.ended
        if fault == "killed":
            program.kill()
        elif not finished:
            program.step(fault)  # pyright: ignore[reportArgumentType]
            while not program.ended:
                program.step()
        meanwhile = rows_of(joined)
        assert meanwhile.keys() >= expected(Y).keys(), "rows of files that have not changed stay"
        join_here(joined.path, a, b)
        assert rows_of(joined) == expected(CHANGED, Y, NEW)
        assert garbage_files(joined, read_ledger(joined), set) == []
        if finished:
            assert program.error is None, program.error
            assert steps > 20
            return


def compacted(one: LabeledOnce) -> None:
    assert command("compact", one.store.path).code == 0


def labeled_again(one: LabeledOnce) -> None:
    """A file has changed once more; the old labels are deleted."""
    commits = read_ledger(one.store).current.values()
    replaced = [commit for commit in commits if any(piece.path == X.path for piece in commit.pieces)]
    kept = [piece for commit in replaced for piece in commit.pieces if piece.path != X.path]
    one.add(*kept, CHANGED_AGAIN, reject=REJECTED if one.labels == QUALITY else [], replaces=replaced)
    assert command("sweep", one.store.path).result["removed"] > 0


def begun_anew(one: LabeledOnce) -> None:
    """The folder was deleted, and holds the labels of another model."""
    one.store.delete([one.store.relative(file.path) for file in one.store.list_all()])
    other = LabeledOnce(one.store.path, "models/other", one.labels[::-1], partition_by=one.output.partition_by)
    other.add(CHANGED, Y, NEW, reject=REJECTED)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "number"), [(compacted, 0), (labeled_again, 0), (labeled_again, 1), (begun_anew, 0), (begun_anew, 1)]
)
def test_output_that_is_rewritten_during_a_join(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[LabeledOnce], None], number: int
) -> None:
    monkeypatch.setattr("pipeline_ops.joining.join_plan.UNIT_ROWS", 7)
    root = f"stepped://{uuid.uuid4().hex}"
    outputs = make_outputs(root)
    joined, snapshot = Store(f"{root}/c"), Snapshot(root)
    before, after = expected(X, Y, Z), expected(CHANGED, Y, NEW)
    again = expected(CHANGED_AGAIN, Y, NEW)
    replaced = 0
    for steps in count(1, 9):
        snapshot.restore()
        program = Program(partial(join_here, joined.path, *outputs))
        for _ in range(steps):
            if not program.ended:
                program.step()
        finished = program.ended
        change(outputs[number])
        while not program.ended:
            program.step()
        assert program.error is None or isinstance(program.error, ReplacedError | UserError), program.error
        replaced += isinstance(program.error, ReplacedError)
        meanwhile = rows_of(joined)
        assert meanwhile.keys() >= expected(Y).keys(), "rows of files that have not changed stay"
        assert meanwhile.items() <= before.items() | after.items(), "no label of another version or model"
        if change is begun_anew:
            with pytest.raises(UserError, match="holds labels of other settings"):
                join_here(joined.path, *outputs)
        else:
            assert not isinstance(program.error, UserError), program.error
            result = join_here(joined.path, *outputs)
            if change is labeled_again:
                assert not result["complete"]
                labeled_again(outputs[1 - number])
                join_here(joined.path, *outputs)
            assert rows_of(joined) == (again if change is labeled_again else after)
        if finished:
            assert replaced
            return


@pytest.mark.slow
@pytest.mark.parametrize("point", [r"c/quality_label=.*", r"c/_commits/.*", r"c/_job.json"])
def test_join_killed_on_s3_is_completed_by_the_next_among_faults(s3: Bucket, point: str) -> None:
    storage = StorageConfig(endpoint_url=s3.endpoint_url)
    a, b = make_outputs(s3.url, storage)
    joined = Store(f"{s3.url}/c", storage)
    arguments = ("join", a.store.path, b.store.path, f"storage.endpoint_url={s3.endpoint_url}", "--output", joined.path)
    with s3.proxy.faults(Rule("stall", "PutObject", point, times=None, seconds=600)):
        process = start_command(*arguments)
        try:
            wait_for(lambda: bool(s3.journal.faults()["stall"]) or process.poll() is not None, point, TIMEOUT_S)
            assert process.poll() is None, process.communicate()[1]
        finally:
            process.kill()
            process.communicate()
    assert rows_of(joined) in (expected(X, Y, Z), expected(X, Y)), "nothing of what it had not committed"
    with s3.proxy.faults(*every_fault(0.02)):
        finished = command(*arguments)
    assert (finished.code, finished.result["complete"]) == (0, True), finished.stderr
    assert rows_of(joined) == expected(CHANGED, Y, NEW)
    assert garbage_files(joined, read_ledger(joined), set) == []
    assert command(*arguments).result["documents_joined"] == 0


@pytest.mark.slow
def test_two_joins_at_once_are_one_after_the_other(s3: Bucket) -> None:
    storage = StorageConfig(endpoint_url=s3.endpoint_url)
    a, b = make_outputs(s3.url, storage)
    joined = Store(f"{s3.url}/c", storage)
    arguments = ("join", a.store.path, b.store.path, f"storage.endpoint_url={s3.endpoint_url}", "--output", joined.path)
    first = start_command(*arguments)
    try:
        with s3.proxy.faults(Rule("stall", "PutObject", r"c/_commits/.*", times=None, seconds=10)):
            wait_for(lambda: bool(s3.journal.faults()["stall"]) or first.poll() is not None, "its commit", TIMEOUT_S)
            second = command(*arguments)
            assert (second.code, "is being written by" in second.stderr) == (3, True), second.stderr
        assert first.wait(TIMEOUT_S) == 0
    finally:
        first.kill()
        first.communicate()
    assert rows_of(joined) == expected(CHANGED, Y, NEW)
