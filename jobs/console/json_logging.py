"""JSON lines on stderr in place of text (`run --log-format json`), for log collectors.

Each line is an object: time (UTC), level, event, message, the run's id once it is known, and the keys of the event.
"""

import io
import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, NoReturn

LOGGER = logging.getLogger("label_corpus")
COLORS = re.compile(r"\x1b\[[\d;]*m")  # in lines of Ray
_common_keys: dict[str, str] = {}  # in every line


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON line; the entries of `extra={"facts": {…}}` are added to the fixed keys."""

    def format(self, record: logging.LogRecord) -> str:
        facts: dict[str, Any] = {"event": "output", **getattr(record, "facts", {})}
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": facts.pop("event"),
            "message": record.getMessage(),
            **_common_keys,
            **facts,
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _Handler(logging.StreamHandler):
    def handleError(self, record: logging.LogRecord) -> NoReturn:
        raise  # the error being handled: logging would print it as text to the same stderr


class _LineLogger(io.TextIOBase):
    """sys.stderr for other writers, such as libraries and warnings: logs each of their lines as an event `output`."""

    def __init__(self, real: Any):
        self.real, self.unfinished = real, ""

    def write(self, text: str) -> int:
        *lines, self.unfinished = (self.unfinished + text).split("\n")
        for line in lines:
            if line.strip():
                LOGGER.warning("%s", COLORS.sub("", line))
        return len(text)

    def fileno(self) -> int:
        return self.real.fileno()

    def writable(self) -> bool:
        return True


def to_json() -> None:
    """Write JSON lines to stderr in this process. Lines of Ray's C++ code, which writes to the descriptor, stay as they are."""
    real = sys.stderr.real if isinstance(sys.stderr, _LineLogger) else sys.stderr
    handler = _Handler(real)
    handler.setFormatter(JsonFormatter())
    LOGGER.handlers[:] = [handler]
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    sys.stderr = _LineLogger(real)
    _common_keys.clear()


def add_common_keys(**facts: str) -> None:
    """Add keys to every line from now on."""
    _common_keys.update(facts)


def is_json() -> bool:
    return isinstance(sys.stderr, _LineLogger)


def log_error(message: str, code: int, error: Exception | None = None) -> None:
    """Log why a command ends with exit code `code`, with the traceback of `error`."""
    LOGGER.error("%s", message, extra={"facts": {"event": "error", "exit_code": code}}, exc_info=error)
