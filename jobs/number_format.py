"""Numbers as people read them, on terminals and in reports."""


def number(value: float | None) -> str:
    """1,234; 12.3; – for None."""
    if value is None:
        return "–"
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:,.2f}" if abs(value) < 10 else f"{value:,.1f}"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A number and what it counts: 1 file; 2,345 files; 0 files.

    Args:
        noun: in the singular.
        plural: where it is not the noun with an s.
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def of_about(done: int, total: float | None) -> str:
    """A number of an estimated one, which has two significant digits: 1,500 of about 4,000; 1,500 where it is not known."""
    return f"{done:,}" if total is None else f"{done:,} of about {max(done, int(float(f'{total:.1e}'))):,}"


def percent(share: float | None) -> str:
    """12.3%; – for None."""
    if share is None:
        return "–"
    return f"{share:.1%}" if share == 0 or share >= 0.001 else f"{share:.3%}"


def ratio(value: float | None) -> str:
    """A metric between -1 and 1: 0.931; – for None."""
    return "–" if value is None else f"{value:.3f}"


def byte_size(count: float) -> str:
    """A number of bytes with a binary unit: 3.2 MiB."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"


def duration(seconds: float | None) -> str:
    """12.3 s; 4:05 min; 3:20 h; – for None."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02} h" if hours else f"{minutes}:{rest:02} min"


def clock(seconds: float) -> str:
    """A duration as it runs: 0:42; 1:02:03."""
    minutes, seconds = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def about(seconds: float) -> str:
    """An estimated duration, in numbers that do not pretend to be exact: about 40 s; about 4 min; about 3.5 h; about 2 days."""
    if seconds < 90:
        return f"about {max(round(seconds / 5) * 5, 5)} s"
    if seconds < 90 * 60:
        return f"about {round(seconds / 60)} min"
    if seconds < 48 * 3600:
        return f"about {seconds / 3600:.2g} h"
    return f"about {seconds / 86400:,.0f} days"
