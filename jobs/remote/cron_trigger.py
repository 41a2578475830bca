"""Cron expressions as crontab(5), Kubernetes and Ray read them, on APScheduler's triggers, and the ticks that they give.

In a time zone with summer time, a tick in the hour that is left out comes at the same moment, so by the clock an hour late;
a tick in the hour that comes twice comes twice.
"""

import difflib
import zoneinfo
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline_ops.schema.errors import UserError

WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")  # cron counts from Sunday, APScheduler 3 from Monday
LONGEST_LOOK_BACK = timedelta(days=9 * 366)  # 29 February is eight years apart around 2100


def cron_trigger(cron: str, timezone: str) -> Any:
    """The APScheduler trigger of a cron expression.

    Args:
        cron: minute, hour, day of month, month, day of week; with six fields the first is the second. A day that is given
            by both of its fields is either, as in crontab.
        timezone: an IANA name.

    Raises:
        UserError: it is none, or never comes.
    """
    from apscheduler.triggers.combining import OrTrigger
    from apscheduler.triggers.cron import CronTrigger

    zone = _zone(timezone)
    fields = cron.split()
    try:
        if len(fields) not in (5, 6):
            raise ValueError(f"{len(fields)} fields, not 5")
        *seconds, minute, hour, day, month, weekday = ("*" if field == "?" else field for field in fields)
        common = {"second": seconds[0] if seconds else "0", "minute": minute, "hour": hour, "month": month, "timezone": zone}
        if day.startswith("*") or weekday.startswith("*"):
            trigger: Any = CronTrigger(**common, day=day, day_of_week=_weekdays(weekday))
        else:
            trigger = OrTrigger([CronTrigger(**common, day=day), CronTrigger(**common, day_of_week=_weekdays(weekday))])
    except ValueError as error:
        raise UserError(
            f"--cron {cron!r}: {error}; give minute, hour, day of month, month and day of week, such as '0 2 * * *'"
        ) from error
    if next_tick(trigger, datetime.now(UTC)) is None:
        raise UserError(f"--cron {cron!r}: there is no such day; give one that comes")
    return trigger


def next_tick(trigger: Any, after: datetime) -> datetime | None:
    """The first tick later than `after`, in UTC."""
    # not by its first argument: in the hour that comes twice, Python takes the same moment in two zones for unequal
    found = trigger.get_next_fire_time(None, after.astimezone(UTC) + timedelta(microseconds=1))
    return found.astimezone(UTC) if found else None


def newest_due(trigger: Any, after: datetime, now: datetime) -> datetime | None:
    """The last tick later than `after` and not later than `now`, in UTC; None: there is none.

    Looks back in ever longer steps: after a year's silence a cron of every minute has half a million ticks to pass over.
    """
    found, back = None, timedelta(minutes=1)
    while found is None:
        start = max(after, now - back)
        tick = next_tick(trigger, start)
        while tick is not None and tick <= now:
            found, tick = tick, next_tick(trigger, tick)
        if start == after or back > LONGEST_LOOK_BACK:
            break
        back *= 2
    return found


def _zone(name: str) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        near = difflib.get_close_matches(name, zoneinfo.available_timezones(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "give an IANA name such as Europe/Berlin, or UTC"
        raise UserError(f"--timezone {name!r}: there is no such time zone; {hint}") from error


def _weekdays(field: str) -> str:
    """The field in names: numbers mean other days to APScheduler 3 than to cron (its issue 286)."""
    if field == "*":
        return "*"
    days = set[int]()
    for part in field.lower().split(","):
        span, slash, step = part.partition("/")
        first, dash, last = ("0", "-", "6") if span == "*" else span.partition("-")
        low = _weekday(first)
        high = _weekday(last) if dash else 6 if slash else low
        if dash and high == 0 and low > 0:  # fri-sun
            high = 7
        if high < low:
            raise ValueError(f"day of week {part!r}: ends before it begins")
        if slash and (not step.isdecimal() or int(step) == 0):
            raise ValueError(f"day of week {part!r}: no step")
        days.update(day % 7 for day in range(low, high + 1, int(step) if slash else 1))
    return ",".join(WEEKDAYS[day] for day in sorted(days))


def _weekday(name: str) -> int:
    """0 to 7; both of these are Sunday."""
    if name in WEEKDAYS:
        return WEEKDAYS.index(name)
    if name.isdecimal() and int(name) <= 7:
        return int(name)
    raise ValueError(f"day of week {name!r} is none of 0 to 7, sun to sat")
