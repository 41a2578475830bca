"""Cron expressions and time zones: what Kubernetes would take, and what it would refuse."""

import pytest

from cluster.cron_syntax import check_cron, check_timezone


@pytest.mark.parametrize(
    "cron",
    [
        "* * * * *",
        "*/5 0-6,22 1,15 jan-mar MON-FRI",
        "0 2 * * 0",
        "59 23 31 12 6",
        "0 9-17/2 ? * sun",
        "@hourly",
        "7/10 * * * *",
    ],
)
def test_cron_of_kubernetes_is_accepted(cron: str) -> None:
    check_cron(cron)


@pytest.mark.parametrize(
    ("cron", "message"),
    [
        ("60 * * * *", "'60' is no minute"),
        ("* 24 * * *", "'24' is no hour"),
        ("* * 0 * *", "'0' is no day of the month"),
        ("* * * 13 *", "'13' is no month"),
        ("* * * * 7", "'7' is no day of the week, 0 to 6"),
        ("* * * * mon-sun", "'mon-sun'"),
        ("5-1 * * * *", "'5-1'"),
        ("*/0 * * * *", r"'\*/0'"),
        ("*/x * * * *", r"'\*/x'"),
        ("1, * * * *", "'' is no minute"),
        ("1-2-3 * * * *", "'1-2-3'"),
        ("TZ=UTC 0 2 * * *", "6 fields"),
        ("", "0 fields"),
        ("@reboot", "1 fields"),
    ],
)
def test_cron_that_kubernetes_does_not_know_is_refused(cron: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^cron: .*{message}"):
        check_cron(cron)


@pytest.mark.parametrize("timezone", ["", "Local", "UTC+2", "../etc/passwd", "Europe"])
def test_timezone_that_there_is_not_is_refused(timezone: str) -> None:
    with pytest.raises(ValueError, match=r"^timezone: there is no"):
        check_timezone(timezone)
