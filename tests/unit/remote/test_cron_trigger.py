"""Cron expressions as crontab reads them, and the ticks that are due."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from jobs.remote.cron_trigger import cron_trigger, newest_due, next_tick
from pipeline_ops.schema.errors import UserError

SUNDAY = datetime(2026, 11, 22, tzinfo=UTC)


def ticks_of(cron: str, after: datetime, count: int, timezone: str = "UTC") -> list[datetime]:
    trigger, found = cron_trigger(cron, timezone), list[datetime]()
    for _ in range(count):
        tick = next_tick(trigger, found[-1] if found else after)
        assert tick is not None
        found.append(tick)
    return found


@pytest.mark.parametrize(
    ("weekdays", "expected"),
    [
        ("0", {"Sun"}),
        ("7", {"Sun"}),
        ("1", {"Mon"}),
        ("1-5", {"Mon", "Tue", "Wed", "Thu", "Fri"}),
        ("MON-FRI", {"Mon", "Tue", "Wed", "Thu", "Fri"}),
        ("5-7", {"Fri", "Sat", "Sun"}),
        ("fri-sun", {"Fri", "Sat", "Sun"}),
        ("sun,3", {"Sun", "Wed"}),
        ("*/2", {"Sun", "Tue", "Thu", "Sat"}),
        ("1-5/2", {"Mon", "Wed", "Fri"}),
        ("1/2", {"Mon", "Wed", "Fri"}),
        ("TUE/3", {"Tue", "Fri"}),
        ("5-0", {"Fri", "Sat", "Sun"}),
        ("fri-0,2", {"Fri", "Sat", "Sun", "Tue"}),
        ("sun-sun", {"Sun"}),
        ("0-sun", {"Sun"}),
        ("sun-mon", {"Sun", "Mon"}),
        ("?", {"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"}),
    ],
)
def test_weekdays_are_counted_from_sunday(weekdays: str, expected: set[str]) -> None:
    assert {tick.strftime("%a") for tick in ticks_of(f"0 2 * * {weekdays}", SUNDAY, 14)} == expected


def test_day_of_month_and_weekday_are_either() -> None:
    found = ticks_of("0 2 13 * fri", datetime(2026, 11, 1, tzinfo=UTC), 6)
    assert [tick.day for tick in found] == [6, 13, 20, 27, 4, 11]
    assert [tick.day for tick in ticks_of("0 2 13 * mon", SUNDAY, 4)] == [23, 30, 7, 13]


def test_sixth_field_in_front_is_the_second() -> None:
    found = ticks_of("*/20 30 2 * * *", SUNDAY, 4)
    assert [tick.strftime("%d %H:%M:%S") for tick in found] == ["22 02:30:00", "22 02:30:20", "22 02:30:40", "23 02:30:00"]


def test_ticks_follow_the_clock_of_their_time_zone() -> None:
    winter, summer = (ticks_of("0 2 * * *", datetime(2026, month, 10, tzinfo=UTC), 1, "Europe/Berlin")[0] for month in (1, 7))
    assert (winter.hour, summer.hour) == (1, 0)
    assert winter.tzinfo == summer.tzinfo == UTC


def test_tick_in_the_hour_that_is_left_out_comes_once_and_in_the_one_that_is_doubled_twice() -> None:
    spring = ticks_of("30 2 * * *", datetime(2027, 3, 27, 12, tzinfo=UTC), 2, "Europe/Berlin")
    assert [tick.strftime("%d %H:%M") for tick in spring] == ["28 01:30", "29 00:30"]
    assert spring[0].astimezone(ZoneInfo("Europe/Berlin")).hour == 3
    autumn = ticks_of("30 2 * * *", datetime(2026, 10, 24, 12, tzinfo=UTC), 3, "Europe/Berlin")
    assert [tick.strftime("%d %H:%M") for tick in autumn] == ["25 00:30", "25 01:30", "26 01:30"]


@pytest.mark.parametrize(
    ("cron", "message"),
    [
        ("", "0 fields"),
        ("0 2 * *", "4 fields"),
        ("0 0 0 2 * * *", "7 fields"),
        ("60 2 * * *", "60"),
        ("0 2 * * 8", "'8'"),
        ("0 2 * * fri-mon", "'fri-mon'"),
        ("0 2 * * 1/0", "'1/0'"),
        ("0 2 * * monday", "'monday'"),
        ("a 2 * * *", "minute"),
        ("*/90 * * * *", "step of the minute '*/90'"),
        ("0,5-5/10 * * * *", "step of the minute '0,5-5/10'"),
        ("0 0-22/23 * * *", "step of the hour '0-22/23'"),
        ("0 2 31 2 *", "no such day"),
        ("@daily", "1 fields"),
    ],
)
def test_cron_that_is_none_is_refused_in_a_line(cron: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        cron_trigger(cron, "UTC")
    assert message in str(error.value)
    assert "--cron" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("timezone", "message"),
    [("Europe/Berln", "'Europe/Berlin'"), ("", "IANA"), ("../UTC", "--timezone"), ("Europe", "--timezone")],
)
def test_unknown_time_zone_is_refused_in_a_line(timezone: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        cron_trigger("0 2 * * *", timezone)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("cron", "after", "now", "expected"),
    [
        ("0 2 * * *", "2026-11-20T02:00", "2026-11-22T01:59", "2026-11-21T02:00"),
        ("0 2 * * *", "2026-11-20T02:00", "2026-11-22T02:00", "2026-11-22T02:00"),
        ("0 2 * * *", "2026-11-22T02:00", "2026-11-22T02:00", None),
        ("0 2 * * *", "2026-11-22T02:00", "2026-11-23T01:59", None),
        ("0 2 * * *", "2026-11-22T03:00", "2026-11-22T02:00", None),
        ("* * * * *", "2020-01-01T00:00", "2026-11-22T02:00", "2026-11-22T02:00"),
        ("0 2 29 2 *", "2020-03-01T00:00", "2026-11-22T02:00", "2024-02-29T02:00"),
        ("0 2 29 2 *", "2025-03-01T00:00", "2026-11-22T02:00", None),
    ],
)
def test_newest_due_tick_is_the_last_that_is_not_decided(cron: str, after: str, now: str, expected: str | None) -> None:
    found = newest_due(cron_trigger(cron, "UTC"), *(datetime.fromisoformat(f"{time}Z") for time in (after, now)))
    assert found == (datetime.fromisoformat(f"{expected}Z") if expected else None)


def test_newest_due_tick_in_the_hour_that_is_left_out_is_found_at_its_moment() -> None:
    trigger, tick = cron_trigger("30 2 * * *", "Europe/Berlin"), datetime(2027, 3, 28, 1, 30, tzinfo=UTC)
    assert newest_due(trigger, tick - timedelta(days=1), tick) == tick
    assert newest_due(trigger, tick, tick + timedelta(minutes=5)) is None
