"""Templates to HTML: the Jinja environment of all pages, with autoescaping, and its filters."""

from collections.abc import Collection
from functools import partial
from typing import Any

from jobs.number_format import byte_size, counted, duration, number, percent, ratio
from pipeline_ops.analysis.redaction import excerpt
from pipeline_ops.schema.units import row_of


def render(template: str, secrets: Collection[str] = (), **context: Any) -> str:
    """Render a template of this package.

    Args:
        secrets: values that the `excerpt` filter masks wherever they occur.
        context: the template's variables.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("jobs.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "number": number,
        "counted": counted,
        "percent": percent,
        "ratio": ratio,
        "size": byte_size,
        "duration": duration,
        "excerpt": partial(excerpt, secrets=secrets),
    }
    environment.globals["row_of"] = row_of
    return environment.get_template(template).render(**context)
