"""The records of a schedule: decided once, read back, never in the way of the output they stand in."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobs.maintenance.sweep import sweep_output
from jobs.maintenance.verify import verify
from pipeline_ops.output import schedule_records
from pipeline_ops.output.commit_log import has_garbage, read_ledger
from pipeline_ops.output.schedule_records import Decision, Ending, Tick, tick_name
from pipeline_ops.storage.paths import join
from pipeline_ops.storage.store import Store
from tests.servers import stepped_store  # noqa: F401 registers stepped://
from tests.support.corpora import write_jsonl
from tests.support.invariant import check_exactly_once
from tests.support.running import keys, make_job, output_files
from tests.support.serial_chain import run_serially

TWO = datetime(2026, 11, 22, 2, tzinfo=UTC)


@pytest.fixture(params=["local", "object store"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "local":
        yield str(tmp_path / "out")
        return
    url = f"stepped://{uuid.uuid4().hex}"
    yield url
    store = Store(url)
    store.delete(store.relative(file.path) for file in store.list_all())


def decision(tick: datetime, by: str = "me", submission_id: str | None = "job-1") -> Decision:
    return Decision(tick_name(tick), submission_id, None if submission_id else "busy", None, by, "2026-11-22T02:00:01Z")


def ending(status: str = "SUCCEEDED", exit_code: int | None = 0) -> Ending:
    return Ending(status, exit_code, "", "2026-11-22T02:10:00Z", "2026-11-22T02:10:04Z")


def test_tick_is_decided_once_and_the_first_decision_stays(output: str) -> None:
    first = decision(TWO, "first")
    assert schedule_records.decide(Store(output), first)
    assert not schedule_records.decide(Store(output), decision(TWO, "second", None))
    assert schedule_records.read_tick(Store(output), tick_name(TWO)) == Tick(first)


def test_tick_that_many_decide_at_once_is_decided_by_one(output: str) -> None:
    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(lambda number: schedule_records.decide(Store(output), decision(TWO, str(number))), range(8)))
    assert won.count(True) == 1
    assert schedule_records.read_tick(Store(output), tick_name(TWO)).decision.by == str(won.index(True))


def test_records_of_a_tick_are_read_back_in_the_order_of_time(output: str) -> None:
    times = [TWO, TWO + timedelta(seconds=15), TWO + timedelta(minutes=1), TWO + timedelta(days=40)]
    decided = [decision(time, submission_id=f"job-{number}" if number != 1 else None) for number, time in enumerate(times)]
    for one in reversed(decided):
        assert schedule_records.decide(Store(output), one)
    ended = ending("FAILED", 1)
    schedule_records.note_submitted(Store(output), decided[0].tick, TWO)
    assert schedule_records.note_ending(Store(output), decided[0].tick, ended)
    assert not schedule_records.note_ending(Store(output), decided[0].tick, ending())
    schedule_records.note_submitted(Store(output), decided[2].tick, TWO)
    known = schedule_records.read_ticks(Store(output), 10)
    assert known == [Tick(decided[0], True, ended), Tick(decided[1]), Tick(decided[2], True), Tick(decided[3])]
    assert [tick.is_open for tick in known] == [False, False, True, True]
    assert schedule_records.read_ticks(Store(output), 2) == known[2:]


def test_output_without_a_schedule_has_no_ticks_and_no_health(output: str) -> None:
    assert schedule_records.read_ticks(Store(output), 10) == []
    assert schedule_records.read_health(Store(output)) is None
    with pytest.raises(FileNotFoundError):
        schedule_records.read_tick(Store(output), tick_name(TWO))


def test_record_that_is_none_is_an_error_that_names_it(output: str) -> None:
    Store(output).put(f"_schedule/{tick_name(TWO)}.json", b'{"tick": 1}')
    with pytest.raises(OSError, match=tick_name(TWO)):
        schedule_records.read_ticks(Store(output), 10)


def test_schedule_begins_once(output: str) -> None:
    assert schedule_records.begin(Store(output), TWO) == TWO
    assert schedule_records.begin(Store(output), TWO + timedelta(days=3)) == TWO


def test_health_is_replaced(output: str) -> None:
    for host in ("first", "second"):
        schedule_records.beat(Store(output), {"host": host})
    assert schedule_records.read_health(Store(output)) == {"host": "second"}


def test_old_ticks_are_forgotten_with_all_their_records(output: str) -> None:
    for day in range(5):
        schedule_records.decide(Store(output), decision(TWO + timedelta(days=day)))
        schedule_records.note_submitted(Store(output), tick_name(TWO + timedelta(days=day)), TWO)
        schedule_records.note_ending(Store(output), tick_name(TWO + timedelta(days=day)), ending())
    schedule_records.begin(Store(output), TWO)
    schedule_records.beat(Store(output), {})
    schedule_records.forget_ticks(Store(output), 2)
    assert [tick.name for tick in schedule_records.read_ticks(Store(output), 10)] == ["20261125T020000Z", "20261126T020000Z"]
    assert len(Store(output).list_all()) == 2 * 3 + 2


def test_records_stand_in_an_output_without_being_part_of_it(model: Path, tmp_path: Path) -> None:
    """They are there before the first run, between two and after them; no command takes them for labels, garbage or input."""
    source, output = tmp_path / "in", str(tmp_path / "out")
    schedule_records.begin(Store(output), TWO)
    schedule_records.decide(Store(output), decision(TWO))
    files = [write_jsonl(source / "a.jsonl", [{"text": "one"}, {"text": "two"}])]
    job = make_job(source, model, output)
    run_serially(job, quiet=True)
    schedule_records.note_submitted(Store(output), tick_name(TWO), TWO)
    schedule_records.note_ending(Store(output), tick_name(TWO), ending())
    schedule_records.beat(Store(output), {})
    records = {path: Store(output).read(Store(output).relative(path)) for path in output_files(join(output, "_schedule"))}
    assert len(records) == 5

    files.append(write_jsonl(source / "b.jsonl", [{"text": "three"}]))
    run_serially(job, quiet=True)
    assert not has_garbage(Store(output), read_ledger(Store(output)), set)
    assert sweep_output(job)["removed"] == 0
    assert verify(job, deep=True)["ok"]
    assert {
        path: Store(output).read(Store(output).relative(path)) for path in output_files(join(output, "_schedule"))
    } == records
    check_exactly_once(output, keys(files[0], 2) + keys(files[1], 1))
    labeled = [file.path for file in Store(output).list_files()]
    assert labeled
    assert not [path for path in labeled if "_schedule" in path]
