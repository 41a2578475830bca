"""Schedule records under `_schedule/`: each tick of a schedule is decided exactly once, also by several schedulers.

- `<tick>.json`: the decision, to submit a run for the tick or to skip it, with the reason.
- `<tick>.submitted.json`: the cluster has accepted the run.
- `<tick>.end.json`: how the run ended.
- `_begun.json`: the time from which missed ticks are caught up.
- `_health.json`: the scheduler's last heartbeat; the only object that is replaced.

Guarantee: the records of a tick are create-only puts, which exactly one caller wins. A decision without a submission, after a
crash, is submitted again under its submission id, which the cluster accepts once.
"""

import json
import re
import uuid
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from pipeline_ops.schema.units import iso
from pipeline_ops.storage.store import Store, StoredFile

SCHEDULE_FOLDER = "_schedule"
NAME_FORMAT = "%Y%m%dT%H%M%SZ"  # with seconds, so that names sort as times do
RECORD = re.compile(r"(\d{8}T\d{6}Z)(?:\.(submitted|end))?\.json")
BEGUN_FILE, HEALTH_FILE = "_begun.json", "_health.json"
MAX_PUTS = 20  # on local disk a run's sweep may delete the temporary file of a put

Record = TypeVar("Record", bound="Decision | Ending")


def new_token() -> str:
    """Makes the content of a create-only put unique to this attempt (Store.put_new)."""
    return uuid.uuid4().hex


@dataclass(frozen=True)
class Decision:
    """The decision about a tick. Times are ISO 8601, UTC."""

    tick: str  # its name, see tick_name
    submission_id: str | None  # of the run; None: the tick is skipped
    reason: str | None  # why it is skipped
    missed_after: str | None  # the tick decided before this one, where ticks in between were missed
    by: str  # for people
    at: str
    token: str = field(default_factory=new_token)


@dataclass(frozen=True)
class Ending:
    """How a tick's run ended."""

    status: str  # the cluster's SUCCEEDED, FAILED or STOPPED; NOT_SUBMITTED; LOST: the cluster no longer knows it
    exit_code: int | None
    message: str
    ended: str | None  # by the cluster's clock
    at: str  # when this was found
    token: str = field(default_factory=new_token)


@dataclass(frozen=True)
class Tick:
    """The records of one tick."""

    decision: Decision
    submitted: bool = False
    ending: Ending | None = None

    @property
    def name(self) -> str:
        return self.decision.tick

    @property
    def is_open(self) -> bool:
        """True if a run was decided and its end is not recorded."""
        return self.decision.submission_id is not None and self.ending is None


def tick_name(time: datetime) -> str:
    return time.astimezone(UTC).strftime(NAME_FORMAT)


def tick_time(name: str) -> datetime:
    return datetime.strptime(name, NAME_FORMAT).replace(tzinfo=UTC)


def decide(store: Store, decision: Decision) -> bool:
    """Records the decision; False if another scheduler has decided the tick."""
    return _create(store, f"{decision.tick}.json", asdict(decision))


def note_submitted(store: Store, tick: str, at: datetime) -> None:
    """Records that the cluster has the tick's run."""
    _create(store, f"{tick}.submitted.json", {"at": iso(at), "token": new_token()})


def note_ending(store: Store, tick: str, ending: Ending) -> bool:
    """Records how the tick's run ended; False if another scheduler has."""
    return _create(store, f"{tick}.end.json", asdict(ending))


def read_tick(store: Store, tick: str) -> Tick:
    """One tick's records; raises FileNotFoundError if it has not been decided."""
    return _read(store, [tick], _listed(store))[0]


def read_ticks(store: Store, newest: int) -> list[Tick]:
    """The newest ticks that have been decided, oldest first.

    Raises:
        OSError: the store cannot be read, or holds something else under these names.
    """
    listed = _listed(store)
    return _read(store, _decided(listed)[-newest:], listed)


def begin(store: Store, at: datetime) -> datetime:
    """Records `at` as the time when the output's first schedule began, unless one is recorded; returns the recorded time."""
    if _create(store, BEGUN_FILE, {"at": iso(at), "token": new_token()}):
        return at
    return datetime.fromisoformat(json.loads(store.read(f"{SCHEDULE_FOLDER}/{BEGUN_FILE}"))["at"])


def beat(store: Store, health: dict[str, Any]) -> None:
    """Replaces the scheduler's heartbeat."""
    for attempt in range(MAX_PUTS):
        try:
            return store.put(f"{SCHEDULE_FOLDER}/{HEALTH_FILE}", json.dumps(health).encode())
        except FileNotFoundError:
            if attempt + 1 == MAX_PUTS:
                raise


def read_health(store: Store) -> dict[str, Any] | None:
    """The last heartbeat of a scheduler; None if there has been none."""
    try:
        return json.loads(store.read(f"{SCHEDULE_FOLDER}/{HEALTH_FILE}"))
    except FileNotFoundError:
        return None


def forget_ticks(store: Store, keep: int) -> None:
    """Deletes the records of all but the newest `keep` ticks: every run lists the output, which must stay short."""
    listed = _listed(store)
    kept = set(_decided(listed)[-keep:])
    outdated = [file for tick, files in listed.items() if tick not in kept for file in files.values()]
    store.delete(store.relative(file.path) for file in outdated)


def _create(store: Store, name: str, record: dict[str, Any]) -> bool:
    name, data = f"{SCHEDULE_FOLDER}/{name}", json.dumps(record).encode()
    for _ in range(MAX_PUTS):
        try:
            return store.put_new(name, data)
        except FileNotFoundError:
            continue
    raise OSError(f"{store.join(name)}: could not be created, {MAX_PUTS} times")


def _listed(store: Store) -> dict[str, dict[str | None, StoredFile]]:
    """{tick: {None, "submitted" or "end": its object}}, oldest first."""
    listed: dict[str, dict[str | None, StoredFile]] = defaultdict(dict)
    for file in store.list_all(SCHEDULE_FOLDER):
        match = RECORD.fullmatch(file.path.rsplit("/", 1)[-1])
        if match:
            listed[match.group(1)][match.group(2)] = file
    return dict(sorted(listed.items()))


def _decided(listed: dict[str, dict[str | None, StoredFile]]) -> list[str]:
    return [tick for tick, files in listed.items() if None in files]


def _read(store: Store, ticks: list[str], listed: dict[str, dict[str | None, StoredFile]]) -> list[Tick]:
    for tick in ticks:
        if None not in listed.get(tick, {}):
            raise FileNotFoundError(f"tick {tick} has not been decided")
    files = [file for tick in ticks for kind, file in listed[tick].items() if kind != "submitted"]
    contents = {file.path: content for file, content in zip(files, store.read_files(files), strict=True)}
    return [
        Tick(
            _parse(Decision, listed[tick][None], contents),
            "submitted" in listed[tick],
            _parse(Ending, listed[tick]["end"], contents) if "end" in listed[tick] else None,
        )
        for tick in ticks
    ]


def _parse(kind: type[Record], file: StoredFile, contents: dict[str, bytes]) -> Record:
    try:
        return kind(**json.loads(contents[file.path]))
    except (ValueError, TypeError) as error:
        raise OSError(f"{file.path} is no schedule record: {error}") from error
