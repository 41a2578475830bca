"""matplotlib's figures as SVG that stands in the page and takes its colors, light or dark, from it.

Figures are drawn in the colors below; each is replaced by a variable of the page's style sheet. Text stays text.
"""

import io
import re
import warnings
from typing import Any

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


def figure(width: float, height: float) -> Any:
    """An empty figure of that many inches in the page's style; to be drawn in the colors of this module."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        return Figure(figsize=(width, height), layout="constrained")


def axes_of(drawn: Any, **options: Any) -> Any:
    """The only axes of a figure, in the page's style."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        return drawn.subplots(**options)


def to_svg(drawn: Any, what: str) -> str:
    """An <svg> element for a page.

    Args:
        what: what it shows, for those who cannot see it; tells it from the page's other pictures.
    """
    import matplotlib

    sink = io.StringIO()
    style: dict[Any, Any] = {**_STYLE, "svg.hashsalt": what}  # ids of parts differ from picture to picture
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # names in other scripts: their letters are the browser's business, whose fonts have them
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        drawn.savefig(sink, format="svg", transparent=True, metadata={"Date": None})
    text = sink.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # nothing refers to groups, and other pictures have the same
    for color, variable in _VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    label = what.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
