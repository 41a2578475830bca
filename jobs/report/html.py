"""Templates to HTML: the Jinja environment of all pages, with autoescaping, and its filters."""

from collections.abc import Collection
from functools import partial
from typing import Any

from jobs.number_format import byte_size, counted, duration, number, percent, ratio
from pipeline_ops.analysis.redaction import excerpt
from pipeline_ops.schema.units import row_of

PACKAGE = "jobs.report"


def render(template: str, secrets: Collection[str] = (), *, package: str = PACKAGE, **context: Any) -> str:
    """Render a template, which may extend or include those of this package.

    Args:
        secrets: values that the `excerpt` filter masks wherever they occur.
        package: whose template it is.
        context: the template's variables.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    loader = ChoiceLoader([PackageLoader(name) for name in dict.fromkeys((package, PACKAGE))])
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
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
