"""JSON lines on stderr in place of text: `run --log-format json`, for what gathers the logs of a cluster.

Each line is an object: time (UTC), level, event, message, run as soon as the run has its id, and the event's own numbers.
"""

import io
import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, NoReturn

LOGGER = logging.getLogger("label_corpus")
COLORS = re.compile(r"\x1b\[[\d;]*m")  # which Ray's own lines have
_about: dict[str, str] = {}  # what stands in every line


class JsonFormatter(logging.Formatter):
    """A record as one line; `facts` of its own (extra={"facts": {…}}) are keys beside the fixed ones."""

    def format(self, record: logging.LogRecord) -> str:
        facts: dict[str, Any] = {"event": "output", **getattr(record, "facts", {})}
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": facts.pop("event"),
            "message": record.getMessage(),
            **_about,
            **facts,
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _Handler(logging.StreamHandler):
    def handleError(self, record: logging.LogRecord) -> NoReturn:
        raise  # what is being handled: logging's own answer would be text on the same stderr


class _ForeignLines(io.TextIOBase):
    """sys.stderr for all that prints there, libraries and warnings too: each of their lines becomes an event `output`."""

    def __init__(self, real: Any):
        self.real, self.begun = real, ""

    def write(self, text: str) -> int:
        *lines, self.begun = (self.begun + text).split("\n")
        for line in lines:
            if line.strip():
                LOGGER.warning("%s", COLORS.sub("", line))
        return len(text)

    def fileno(self) -> int:
        return self.real.fileno()

    def writable(self) -> bool:
        return True


def to_json() -> None:
    """From now on this process writes JSON lines to stderr. What Ray's C++ prints there, past Python, stays as it is."""
    real = sys.stderr.real if isinstance(sys.stderr, _ForeignLines) else sys.stderr
    handler = _Handler(real)
    handler.setFormatter(JsonFormatter())
    LOGGER.handlers[:] = [handler]
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    sys.stderr = _ForeignLines(real)
    _about.clear()


def about(**facts: str) -> None:
    """What stands in every line from now on."""
    _about.update(facts)


def is_json() -> bool:
    return isinstance(sys.stderr, _ForeignLines)


def say_error(message: str, code: int, error: Exception | None = None) -> None:
    """Why a command ends with that exit code, and the traceback of `error`."""
    LOGGER.error("%s", message, extra={"facts": {"event": "error", "exit_code": code}}, exc_info=error)
