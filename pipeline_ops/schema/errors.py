"""UserError and StoreError, and what the errors of object store clients mean for a request, an object and the run.

The client libraries are not imported here: it would cost each process of a job without object storage half a second of CPU.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic_core import PydanticCustomError

PRECONDITION_FAILED = 412
MAX_NAMES, MAX_NAME_CHARACTERS = 30, 40  # in a message
LIBRARY_ERRORS = {
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "aiohttp": ("ClientError",),
    "fsspec.exceptions": ("FSTimeoutError",),
    "httpx": ("HTTPError",),  # of huggingface_hub, by its version
    "httpx2": ("HTTPError",),
}


class StoreError(OSError):
    """The object store kept failing, or returned wrong bytes, after all retries; the same request may succeed later.

    unreachable: no connection was made.
    """

    def __init__(self, message: str, *, unreachable: bool = False):
        super().__init__(message)
        self.unreachable = unreachable


class ReplacedError(FileNotFoundError):
    """A file of an output is gone since its commits were read: a run or compact has replaced it; reading anew helps."""


def store_errors() -> tuple[type[Exception], ...]:
    """The exception types of a store that refuses a request or cannot be reached; not all of them are OSErrors."""
    return (OSError, *_library_errors())


def _library_errors() -> tuple[type[Exception], ...]:
    """LIBRARY_ERRORS of the libraries that are imported: no other one can have raised."""
    loaded = [(sys.modules.get(module), name) for module, names in LIBRARY_ERRORS.items() for name in names]
    return tuple(getattr(module, name) for module, name in loaded if hasattr(module, name))


def is_store_failing(error: BaseException) -> bool:
    """True if the store can be reached but fails.

    One that cannot be reached, or has no credentials for the request, is more likely a mistake in the job.
    """
    return isinstance(error, StoreError) and not error.unreachable


def http_status_of(error: BaseException) -> int | None:
    """The HTTP status of the response that `error` reports; None if there was no response."""
    return response_of(error).get("ResponseMetadata", {}).get("HTTPStatusCode")


def response_of(error: BaseException) -> dict[str, Any]:
    """The response that `error` reports, as parsed by botocore; {} if there was none."""
    return getattr(error, "response", None) or getattr(error.__cause__, "response", None) or {}


def is_store_fault(error: BaseException) -> bool:
    """True if the store is at fault, not the object: other objects would fail as well, so the run ends.

    False for an object that is missing or may not be read.
    """
    if isinstance(error, FileNotFoundError | PermissionError | FileExistsError):
        return False
    return isinstance(error, (StoreError, *_library_errors()))


class UserError(ValueError):
    """A user's mistake: one line that names the key, the value and the remedy. The command line prints it and exits 2."""


SECRET = "secret"  # the type of pydantic's error


def secret_error(message: str) -> PydanticCustomError:
    """The error of a validator for a value that is a secret, and is not shown therefore."""
    return PydanticCustomError(SECRET, "{message}", {"message": message})


def names_shown(names: Sequence[str]) -> str:
    """The first names of columns for a message, quoted; a document that was taken for a header is cut."""
    short = [
        repr(name if len(name) <= MAX_NAME_CHARACTERS else f"{name[: MAX_NAME_CHARACTERS - 1]}…") for name in names[:MAX_NAMES]
    ]
    return ", ".join(short) + (f" and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else "")


def one_line(error: BaseException) -> str:
    """The message of an exception and its notes, in one line."""
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    return (" ".join(str(error).split()) or "no reason given") + notes


def without_credentials(text: str) -> str:
    """Without what stands before the host in a URL: the message of another library may quote one with a password in it."""
    return re.sub(r"://\S*@", "://", text)


@contextmanager
def store_access(key: str, path: str, what: str, *further: type[Exception]) -> Iterator[None]:
    """Turns a store's refusal into a UserError that `path` cannot be used; errors of a failing store pass unchanged.

    Args:
        key: the config key that holds `path`.
        what: what the block does, as a participle: "read", "written".
        further: exceptions that mean the same as a refusal.

    Raises:
        UserError: the store refuses the block's requests, or cannot be reached.
        StoreError: the store is failing.
    """
    try:
        yield
    except (*store_errors(), *further) as error:
        if is_store_failing(error):
            raise
        reason = f"{type(error).__name__}: {one_line(error)}"
        if type(error).__name__ == "NoCredentialsError":
            reason += (
                "; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; public buckets: storage.anonymous=true"
            )
        raise UserError(f"{key}: {path!r} cannot be {what}: {reason}") from error
