"""Quarantined units under _failed/."""

from dataclasses import replace

from pipeline_ops.schema.failures import Failure
from pipeline_ops.storage.files import StorageConfig, StoredFile, delete_many, join, list_all, put, read_files

FAILED_FOLDER = "_failed"


def read_failures(output: str, storage: StorageConfig) -> list[Failure]:
    """The failures that are quarantined in an output, by file and row."""
    files = _listed(output, storage)
    found = [Failure.from_json(content) for content in read_files(files, storage)]
    return sorted(found, key=lambda failure: (failure.pieces[0].path, failure.pieces[0].start_row))


def quarantine(failure: Failure, run: str, output: str, storage: StorageConfig) -> None:
    """Records a failure, so that later runs leave its pieces alone."""
    put(join(output, FAILED_FOLDER, f"{failure.id}.json"), replace(failure, run=run).to_json().encode(), storage)


def clear_failures(failures: list[Failure], output: str, storage: StorageConfig) -> None:
    """Lets runs take up the pieces of these failures again."""
    delete_many([join(output, FAILED_FOLDER, f"{failure.id}.json") for failure in failures], storage)


def outdated_failures(failures: list[Failure], listed: dict[str, StoredFile]) -> list[Failure]:
    """Those about a file that is gone or has changed; `listed` is the input by path."""
    return [
        failure
        for failure in failures
        if any(piece.path not in listed or listed[piece.path].identity != piece.identity for piece in failure.pieces)
    ]


def _listed(output: str, storage: StorageConfig) -> list[StoredFile]:
    return [file for file in list_all(join(output, FAILED_FOLDER), storage) if file.path.endswith(".json")]
