"""What a schedule has done, as objects under the output: each of its ticks is decided once, by whoever is first.

`_schedule/<tick>.json` says that a run is submitted for the tick, or that it is skipped and why; `<tick>.submitted.json` that
the cluster has the run; `<tick>.end.json` how it ended. Each is only ever created, by a put that only the first caller wins. So
several schedulers, or one that is started again, never decide a tick twice; and a decision that stands alone after a crash is
carried out later: the cluster recognizes what it has been given by its submission id, which the decision names.

`_begun.json` is the time from which missed ticks are caught up, `_health.json` what the scheduler last said of itself.
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
PUTS = 20  # on local disk a run's sweep may take what is being written for an interrupted run's leftover

Record = TypeVar("Record", bound="Decision | Ending")


def new_token() -> str:
    """Tells this attempt's object from another's with the same content (storage.put_new)."""
    return uuid.uuid4().hex


@dataclass(frozen=True)
class Decision:
    """What is done about a tick. Times are ISO 8601, UTC."""

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
    """All that is on storage about one tick."""

    decision: Decision
    submitted: bool = False
    ending: Ending | None = None

    @property
    def name(self) -> str:
        return self.decision.tick

    @property
    def is_open(self) -> bool:
        """Whether there is a run whose end is not known."""
        return self.decision.submission_id is not None and self.ending is None


def tick_name(time: datetime) -> str:
    return time.astimezone(UTC).strftime(NAME_FORMAT)


def tick_time(name: str) -> datetime:
    return datetime.strptime(name, NAME_FORMAT).replace(tzinfo=UTC)


def decide(store: Store, decision: Decision) -> bool:
    """Records the decision; False: the tick has been decided by another."""
    return _create(store, f"{decision.tick}.json", asdict(decision))


def note_submitted(store: Store, tick: str, at: datetime) -> None:
    """Records that the cluster has the tick's run."""
    _create(store, f"{tick}.submitted.json", {"at": iso(at), "token": new_token()})


def note_ending(store: Store, tick: str, ending: Ending) -> bool:
    """Records how the tick's run ended; False: another has."""
    return _create(store, f"{tick}.end.json", asdict(ending))


def read_tick(store: Store, tick: str) -> Tick:
    """One tick's records; raises FileNotFoundError where it has not been decided."""
    return _read(store, [tick], _listed(store))[0]


def read_ticks(store: Store, newest: int) -> list[Tick]:
    """The newest ticks that have been decided, oldest first.

    Raises:
        OSError: the store cannot be read, or holds something else under these names.
    """
    listed = _listed(store)
    return _read(store, _decided(listed)[-newest:], listed)


def begin(store: Store, at: datetime) -> datetime:
    """When the output's first schedule began: now, or what is recorded."""
    if _create(store, BEGUN_FILE, {"at": iso(at), "token": new_token()}):
        return at
    return datetime.fromisoformat(json.loads(store.read(f"{SCHEDULE_FOLDER}/{BEGUN_FILE}"))["at"])


def beat(store: Store, health: dict[str, Any]) -> None:
    """Replaces what the scheduler last said of itself."""
    for attempt in range(PUTS):
        try:
            return store.put(f"{SCHEDULE_FOLDER}/{HEALTH_FILE}", json.dumps(health).encode())
        except FileNotFoundError:
            if attempt + 1 == PUTS:
                raise


def read_health(store: Store) -> dict[str, Any] | None:
    """What the last scheduler said of itself; None: there has been none."""
    try:
        return json.loads(store.read(f"{SCHEDULE_FOLDER}/{HEALTH_FILE}"))
    except FileNotFoundError:
        return None


def forget_ticks(store: Store, keep: int) -> None:
    """Deletes the records of all but the newest ticks: every run lists the output, and a year has half a million minutes."""
    listed = _listed(store)
    kept = set(_decided(listed)[-keep:])
    outdated = [file for tick, files in listed.items() if tick not in kept for file in files.values()]
    store.delete(store.relative(file.path) for file in outdated)


def _create(store: Store, name: str, record: dict[str, Any]) -> bool:
    name, data = f"{SCHEDULE_FOLDER}/{name}", json.dumps(record).encode()
    for _ in range(PUTS):
        try:
            return store.put_new(name, data)
        except FileNotFoundError:
            continue
    raise OSError(f"{store.join(name)}: could not be created, {PUTS} times")


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
        raise OSError(f"{file.path} is no record of a schedule: {error}") from error
