"""Elements of live views: bars, numbers in columns, recent rates."""

from collections import deque
from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.text import Text

EIGHTHS = ("", *"▏▎▍▌▋▊▉")
RECENT_SECONDS = 60
RECENT_EVENTS = 8  # a rate over fewer is too noisy, however long they took


class RecentRates:
    """Rates over the last RECENT_SECONDS, or over the last RECENT_EVENTS events if these took longer."""

    def __init__(self, started: float, kinds: int):
        """
        Args:
            started: seconds of time.monotonic().
            kinds: number of amounts per event.
        """
        self._started = started
        self._events: deque[tuple[float, tuple[float, ...]]] = deque([(started, (0.0,) * kinds)])

    def add(self, now: float, *amounts: float) -> None:
        self._events.append((now, amounts))
        while len(self._events) > RECENT_EVENTS + 1 and self._events[1][0] < now - RECENT_SECONDS:
            self._events.popleft()

    def rates(self, now: float) -> tuple[float, ...]:
        """Amounts per second, one rate per kind, since the oldest event kept."""
        (since, first), *later = self._events.copy()  # a copy, as another thread may add to it
        seconds = max(now - since, 1e-9)
        return tuple(sum(amounts[kind] for _, amounts in later) / seconds for kind in range(len(first)))


def fitted(text: str, width: int) -> str:
    """`text` in one line of exactly `width` cells: truncated with an ellipsis, or padded."""
    text = "".join(character if character.isprintable() else " " for character in text)
    return set_cell_size(text, width) if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"


def bar(share: float, width: int, style: str) -> Text:
    """A progress bar of `width` cells; `share` is from 0 to 1."""
    filled = round(min(max(share, 0), 1) * width)
    return Text.assemble(("━" * filled, style), ("─" * (width - filled), "bright_black"))


def block(share: float, width: int) -> str:
    """A bar in eighths of cells, padded to `width`; a share above 0 is at least one eighth, so that it is visible."""
    eighths = max(round(share * width * 8), 1 if share > 0 else 0)
    return fitted("█" * (eighths // 8) + EIGHTHS[eighths % 8], width)


def columns(rows: Sequence[Sequence[tuple[str, str]]], width: int) -> list[Text]:
    """Lay out names and values as a table that fits into `width` cells, with fewer columns where necessary.

    Args:
        rows: each of (name, value) pairs, all of the same length.
    """
    for count in range(len(rows[0]), 1, -1):
        lines = _columns(rows, count)
        if all(line.cell_len <= width for line in lines):
            break
        lines = _columns(rows, 1)
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines


def _columns(rows: Sequence[Sequence[tuple[str, str]]], count: int) -> list[Text]:
    parts = [part for row in rows for part in (row[start : start + count] for start in range(0, len(row), count))]
    names = [max((cell_len(part[at][0]) for part in parts if at < len(part)), default=0) for at in range(count)]
    values = [max((cell_len(part[at][1]) for part in parts if at < len(part)), default=0) for at in range(count)]
    lines = []
    for part in parts:
        line = Text(" ")
        for at, (name, value) in enumerate(part):
            line.append(set_cell_size(name, names[at]), "dim")
            line.append("  " + set_cell_size(value, max(values[at], 10)) + "   ")
        line.rstrip()
        lines.append(line)
    return lines
