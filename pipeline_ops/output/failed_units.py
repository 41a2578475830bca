"""Quarantined units: one record each under `_failed/`, excluded from later runs until cleared."""

from dataclasses import replace

from pipeline_ops.schema.failures import Failure
from pipeline_ops.storage.store import Store, StoredFile

FAILED_FOLDER = "_failed"


def read_failures(store: Store) -> list[Failure]:
    """The quarantined failures of an output, by file and row."""
    files = [file for file in store.list_all(FAILED_FOLDER) if file.path.endswith(".json")]
    found = [Failure.from_json(content) for content in store.read_files(files)]
    return sorted(found, key=lambda failure: (failure.pieces[0].path, failure.pieces[0].start_row))


def quarantine(store: Store, failure: Failure, run: str) -> None:
    """Records a failure, so that later runs skip its pieces."""
    store.put(f"{FAILED_FOLDER}/{failure.id}.json", replace(failure, run=run).to_json().encode())


def clear_failures(store: Store, failures: list[Failure]) -> None:
    """Deletes the records of these failures, so that runs label their pieces again."""
    store.delete(f"{FAILED_FOLDER}/{failure.id}.json" for failure in failures)


def outdated_failures(failures: list[Failure], listed: dict[str, StoredFile]) -> list[Failure]:
    """The failures of files that were deleted or changed; `listed` is the input by path."""
    return [
        failure
        for failure in failures
        if any(piece.path not in listed or listed[piece.path].identity != piece.identity for piece in failure.pieces)
    ]
