"""What an object store's failures mean: for the request, for the object, for the run.

The libraries that raise them are not imported here: half a second of CPU in each process of a job without object storage.
"""

import sys
from typing import Any

PRECONDITION_FAILED = 412
LIBRARY_ERRORS = {
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "aiohttp": ("ClientError",),
    "fsspec.exceptions": ("FSTimeoutError",),
}


class StoreError(OSError):
    """The object store kept failing or gave wrong bytes; what was asked of it may work later.

    `unreachable`: no connection to it was made.
    """

    def __init__(self, message: str, *, unreachable: bool = False):
        super().__init__(message)
        self.unreachable = unreachable


def store_errors() -> tuple[type[Exception], ...]:
    """What a store that refuses or cannot be reached raises; botocore's and aiohttp's errors are no OSErrors."""
    return (OSError, *_library_errors())


def _library_errors() -> tuple[type[Exception], ...]:
    """The errors of the libraries that are loaded: another one has raised nothing."""
    loaded = [(sys.modules.get(module), name) for module, names in LIBRARY_ERRORS.items() for name in names]
    return tuple(getattr(module, name) for module, name in loaded if hasattr(module, name))


def is_store_failing(error: BaseException) -> bool:
    """Whether a store that answers, or has answered, is failing.

    One that cannot be reached, or is asked without credentials, is more likely a mistake in the job.
    """
    return isinstance(error, StoreError) and not error.unreachable


def http_status_of(error: BaseException) -> int | None:
    """The HTTP status of the answer that `error` reports; None where there was none."""
    return response_of(error).get("ResponseMetadata", {}).get("HTTPStatusCode")


def response_of(error: BaseException) -> dict[str, Any]:
    """What botocore has parsed of the answer that `error` reports; {} where there was none."""
    return getattr(error, "response", None) or getattr(error.__cause__, "response", None) or {}


def is_store_fault(error: BaseException) -> bool:
    """Whether the store is at fault, not the object: other objects will fare no better, so a run ends here.

    An object that is gone or may not be read is that object's own fault.
    """
    if isinstance(error, FileNotFoundError | PermissionError | FileExistsError):
        return False
    return isinstance(error, (StoreError, *_library_errors()))


class UserError(ValueError):
    """A user's mistake: one line that names the field, the value and the remedy. The command line prints it and exits 2."""


def as_user_error(key: str, path: str, what: str, error: BaseException) -> BaseException:
    """The user's mistake that it is when `path` cannot be read or written; the error itself when the store is failing."""
    if is_store_failing(error):
        return error
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    reason = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no reason given'}{notes}"
    if type(error).__name__ == "NoCredentialsError":
        reason += "; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; public buckets: storage.anonymous=true"
    return UserError(f"{key}: {path!r} cannot be {what}: {reason}")
