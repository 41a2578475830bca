"""Cron expressions as crontab(5), Kubernetes and Ray read them, and their ticks.

cronsim does the arithmetic: like Debian's cron it counts weekdays from Sunday and takes either of two given day fields, and it
is one file without dependencies (croniter is three times as long). It gets wall-clock times without a zone, because daylight
saving time is handled here: a tick in the hour that is skipped in spring comes at the same moment, by the clock an hour late;
a tick in the hour that is repeated in autumn comes twice, where Debian's cron runs it once.
"""

import difflib
import zoneinfo
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cronsim import CronSim, CronSimError

from pipeline_ops.schema.errors import UserError

# name -> attribute of CronSim with its values
FIELDS = {
    "second": "seconds",
    "minute": "minutes",
    "hour": "hours",
    "day of month": "days",
    "month": "months",
    "day of week": "weekdays",
}
SUNDAY = ("0", "sun")
LONGEST_SHIFT = timedelta(hours=3)  # clocks are put forward or back by two hours at the most


@dataclass(frozen=True)
class CronTrigger:
    """A checked cron expression, as cronsim reads it, and its time zone."""

    expression: str
    zone: zoneinfo.ZoneInfo


def cron_trigger(cron: str, timezone: str) -> CronTrigger:
    """Check a cron expression.

    Args:
        cron: minute, hour, day of month, month, day of week; of six fields the first is the second. A day that is given by both
            of its fields is either, as in crontab.
        timezone: an IANA name.

    Raises:
        UserError: the expression is invalid or never matches, or there is no such time zone.
    """
    zone = _zone(timezone)
    given = ["*" if field == "?" else field for field in cron.split()]
    remedy = "give minute, hour, day of month, month and day of week, such as '0 2 * * *'"
    if len(given) not in (5, 6):
        raise UserError(f"--cron {cron!r}: {len(given)} fields, not 5; {remedy}")
    fields = [*given[:-1], _weekdays(given[-1])]
    for name, written, field in zip(list(FIELDS)[-len(fields) :], given, fields, strict=True):
        try:
            too_long = any(_has_step_beyond_range(name, part) for part in field.split(","))
        except CronSimError as error:
            raise UserError(f"--cron {cron!r}: {written!r} is no {name}; {remedy}") from error
        if too_long:
            raise UserError(f"--cron {cron!r}: a step of the {name} {written!r} is longer than its range; {remedy}")
    expression = " ".join(fields)
    try:
        next(CronSim(expression, datetime.now(UTC).replace(tzinfo=None)))
    except (CronSimError, StopIteration) as error:
        raise UserError(f"--cron {cron!r}: there is no such day; give one that comes") from error
    return CronTrigger(expression, zone)


def next_tick(trigger: CronTrigger, after: datetime) -> datetime | None:
    """The first tick later than `after`, in UTC; None: there is none within 50 years."""
    return min((tick for tick in _ticks_near(trigger, after, reverse=False) if tick > after), default=None)


def newest_due(trigger: CronTrigger, after: datetime, now: datetime) -> datetime | None:
    """The last tick later than `after` and not later than `now`, in UTC; None: there is none."""
    found = max((tick for tick in _ticks_near(trigger, now, reverse=True) if tick <= now), default=None)
    while found and (later := next_tick(trigger, found)) and later <= now:  # a tick of a skipped hour comes after others
        found = later
    return found if found and found > after else None


def _ticks_near(trigger: CronTrigger, moment: datetime, *, reverse: bool) -> Iterator[datetime]:
    """Ticks among which are the first later than `moment`; in reverse, the last that is not later.

    Around a clock change the same moment is looked at by the clocks before and after it.
    """
    moments = [moment.astimezone(UTC) + shift for shift in (-LONGEST_SHIFT, timedelta(0), LONGEST_SHIFT)]
    for offset in {shifted.astimezone(trigger.zone).utcoffset() or timedelta(0) for shifted in moments}:
        clock = moment.astimezone(UTC).replace(tzinfo=None) + offset
        if reverse:
            clock = clock.replace(microsecond=0) + timedelta(seconds=1)  # cronsim's ticks in reverse are earlier than its start
        wall = next(CronSim(trigger.expression, clock, reverse=reverse), None)
        if wall is None:
            continue
        first, second = (wall.replace(tzinfo=trigger.zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        yield first
        if second > first:  # the hour is repeated; in one that is skipped the second is the earlier one, and no tick
            yield second


def _weekdays(field: str) -> str:
    """The field for cronsim, whose week also has a day 7: 1/2 would include it, and fri-sun would end before it begins."""
    parts = []
    for part in field.split(","):
        span, slash, step = part.partition("/")
        first, dash, last = span.partition("-")
        if slash and not dash and first != "*":
            dash, last = "-", "6"
        elif last.lower() in SUNDAY and first.lower() not in SUNDAY:
            last = "7"
        parts.append(first + dash + last + slash + step)
    return ",".join(parts)


def _has_step_beyond_range(name: str, part: str) -> bool:
    """True for the minute */90, say, which leaves one value: the first of every hour.

    Raises:
        CronSimError: it is no such field.
    """
    values = _values(name, part)
    span, slash, _ = part.partition("/")
    # cronsim reads 5-5/10 as 5/10
    return bool(slash) and (len(values) == 1 or ("-" in span and len(_values(name, span)) == 1))


def _values(name: str, field: str) -> set[int]:
    expression = " ".join(field if other == name else "*" for other in FIELDS)
    return getattr(CronSim(expression, datetime(2000, 1, 1)), FIELDS[name])


def _zone(name: str) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        near = difflib.get_close_matches(name, zoneinfo.available_timezones(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "give an IANA name such as Europe/Berlin, or UTC"
        raise UserError(f"--timezone {name!r}: there is no such time zone; {hint}") from error
