"""Data -> HTML: Jinja2 with everything escaped; what looks like a credential is masked in text that a corpus has brought."""

from collections.abc import Collection
from functools import partial
from typing import Any

from pipeline_ops.analysis.redaction import shown


def render(template: str, secrets: Collection[str] = (), **facts: Any) -> str:
    """A page, or a part of one, from a template of this package.

    Args:
        secrets: values that must not stand in any text.
        facts: by the names that the template has for them.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("jobs.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "number": number,
        "percent": percent,
        "size": size,
        "duration": duration,
        "shown": partial(shown, secrets=secrets),
        "picture": Markup,  # made here, of numbers and escaped names: see svg.py
    }
    return environment.get_template(template).render(**facts)


def number(value: float | None) -> str:
    """1,234; 12.3; – for what is not known."""
    if value is None:
        return "–"
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:,.2f}" if abs(value) < 10 else f"{value:,.1f}"


def percent(share: float | None) -> str:
    if share is None:
        return "–"
    return f"{share:.1%}" if share == 0 or share >= 0.001 else f"{share:.3%}"


def size(count: float) -> str:
    """Bytes, in the unit that fits."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"


def duration(seconds: float | None) -> str:
    """12.3 s; 4:05 min; 3:20 h."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02} h" if hours else f"{minutes}:{rest:02} min"
