"""Cron expressions and time zones, as Kubernetes takes them."""

from collections.abc import Sequence
from zoneinfo import ZoneInfo

MACROS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
# name, lowest and highest value, names of the values from the lowest on; as Kubernetes has them: Sunday is 0, never 7
CRON_FIELDS = (
    ("minute", 0, 59, []),
    ("hour", 0, 23, []),
    ("day of the month", 1, 31, []),
    ("month", 1, 12, MONTHS),
    ("day of the week", 0, 6, WEEKDAYS),
)


def check_timezone(timezone: str) -> None:
    """Raises ValueError for an unknown time zone."""
    try:
        if timezone.lower() == "local":
            raise ValueError(timezone)
        ZoneInfo(timezone)
    except (ValueError, OSError, KeyError) as error:  # KeyError: ZoneInfoNotFoundError
        raise ValueError(f"timezone: there is no {timezone!r}; give a name such as Europe/Berlin or Etc/UTC") from error


def check_cron(cron: str) -> None:
    """Raises ValueError for a schedule that Kubernetes would refuse."""
    remedy = 'give minute, hour, day of the month, month and day of the week, e.g. "0 2 * * *", or one of ' + ", ".join(MACROS)
    if cron in MACROS:
        return
    fields = cron.split()
    if len(fields) != len(CRON_FIELDS):
        raise ValueError(f"cron: {cron!r} has {len(fields)} fields of {len(CRON_FIELDS)}; {remedy}")
    for field, (what, low, high, names) in zip(fields, CRON_FIELDS, strict=True):
        for part in field.split(","):
            span, slash, step = part.partition("/")
            ends = [] if span in ("*", "?") else span.split("-")
            values = [_value(end, low, names) for end in ends]
            ordered = len(values) <= 2 and all(low <= value <= high for value in values) and values == sorted(values)
            if not ordered or (slash and not (step.isascii() and step.isdigit() and int(step))):
                raise ValueError(f"cron: {part!r} is no {what}, {low} to {high}; {remedy}")


def _value(text: str, low: int, names: Sequence[str]) -> int:
    """The number that an end of a cron field's range stands for; -1: none."""
    if text.lower() in names:
        return low + names.index(text.lower())
    return int(text) if text.isascii() and text.isdigit() else -1
