"""matplotlib figures as inline SVG in the colors of the page, light or dark.

Figures are drawn in the placeholder colors below; to_svg() replaces each by a CSS variable. Text stays text.
"""

import io
import re
import warnings
from typing import Any

from pipeline_ops.analysis.redaction import excerpt

MAX_LABEL_CHARACTERS = 28
INK, MUTED, GRID, PAPER = "#010101", "#020202", "#030303", "#040404"
SERIES = tuple(f"#0500{number:02x}" for number in range(1, 9))  # by number: --series-1 …
ACCENT, GOOD, BAD = "#070101", "#060101", "#060202"
_VARIABLES = {
    **{INK: "--ink", MUTED: "--muted", GRID: "--grid", PAPER: "--paper", ACCENT: "--accent", GOOD: "--good", BAD: "--bad"},
    **{color: f"--series-{number}" for number, color in enumerate(SERIES, 1)},
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}


def label_text(name: str) -> str:
    """A label as a single line of at most MAX_LABEL_CHARACTERS that matplotlib draws as it is."""
    # matplotlib would parse text between dollar signs as a formula
    return excerpt(" ".join(name.split()), MAX_LABEL_CHARACTERS).replace("$", r"\$")


def figure(width: float, height: float) -> Any:
    """An empty figure in the page's style, width and height in inches; draw in the colors of this module only."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        return Figure(figsize=(width, height), layout="constrained")


def axes_of(drawn: Any, **options: Any) -> Any:
    """Create the axes of a figure in the page's style; options as of Figure.subplots."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        return drawn.subplots(**options)


def to_svg(drawn: Any, title: str) -> str:
    """The figure as an <svg> element.

    Args:
        title: the element's aria-label; unique on a page, as ids are derived from it.
    """
    import matplotlib

    sink = io.StringIO()
    style: dict[Any, Any] = {**_STYLE, "svg.hashsalt": title}  # ids must be unique on the page
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # text stays text, so the browser's fonts matter, not matplotlib's
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        drawn.savefig(sink, format="svg", transparent=True, metadata={"Date": None})
    text = sink.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # unused, and not unique on the page
    for color, variable in _VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    label = title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
