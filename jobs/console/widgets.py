"""What the pictures of commands at work (live.py) are made of: bars, numbers in columns, durations, rates."""

from collections import deque
from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.text import Text

EIGHTHS = ("", *"▏▎▍▌▋▊▉")
RECENT_SECONDS = 60
RECENT_LEAST = 8  # things that are done: fewer say little about a rate, however long they took


class Recent:
    """How much has been done lately: in the last RECENT_SECONDS, or by the last RECENT_LEAST things where these took longer."""

    def __init__(self, started: float, kinds: int):
        """
        Args:
            started: as time.monotonic has it.
            kinds: how many amounts there are of each thing that is done.
        """
        self._started = started
        self._done: deque[tuple[float, tuple[float, ...]]] = deque([(started, (0.0,) * kinds)])

    def add(self, now: float, *amounts: float) -> None:
        self._done.append((now, amounts))
        while len(self._done) > RECENT_LEAST + 1 and self._done[1][0] < now - RECENT_SECONDS:
            self._done.popleft()

    def rates(self, now: float) -> tuple[float, ...]:
        """Per second, of each amount: behind the oldest thing that is remembered."""
        (since, first), *later = self._done.copy()  # another thread may add to it meanwhile
        seconds = max(now - since, 1e-9)
        return tuple(sum(amounts[kind] for _, amounts in later) / seconds for kind in range(len(first)))


def duration(seconds: float) -> str:
    """0:42, 1:02:03."""
    minutes, seconds = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def fitted(text: str, width: int) -> str:
    """In exactly so many cells, in one line: cut with an ellipsis, or filled up."""
    text = "".join(character if character.isprintable() else " " for character in text)
    return set_cell_size(text, width) if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"


def bar(share: float, width: int, style: str) -> Text:
    """A line that fills up, of so many cells."""
    filled = round(min(max(share, 0), 1) * width)
    return Text.assemble(("━" * filled, style), ("─" * (width - filled), "bright_black"))


def block(share: float, width: int) -> str:
    """A bar in eighths of cells, filled up with blanks; of anything above nothing there is something to see."""
    eighths = max(round(share * width * 8), 1 if share > 0 else 0)
    return fitted("█" * (eighths // 8) + EIGHTHS[eighths % 8], width)


def columns(rows: Sequence[Sequence[tuple[str, str]]], width: int) -> list[Text]:
    """Names and values below each other; where they do not fit beside each other, in fewer columns.

    Args:
        rows: of (name, value), all equally long.
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
