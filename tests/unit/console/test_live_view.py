"""What commands show while they work: on a terminal, elsewhere, and when others write there too."""

import os
import re
import signal
import subprocess
import sys

import pytest

from jobs.console import live_view
from jobs.console.step_progress import Steps
from tests.support.running import COMMAND_TIMEOUT_S, wait_for
from tests.support.screens import Terminal, on_terminal

AT_WORK = """
import os, signal, subprocess, sys, time
from jobs.console import signals as stopping
from jobs.console.step_progress import Steps
stopping.install()
with Steps("copying", quiet=False) as steps:
    steps.begin("the books", 10, item="book")
    steps.add(4, "pages are turned")
    {doing}
print("behind it", file=sys.stderr)
"""
WAITING = "time.sleep(60)"
# as C++ does it, past Python: two lines, the second one in two pieces
FOREIGN = """os.write(2, b"[2026-11-28 E 12] core_worker.cc:2465: one whole line\\nthe beginning"); time.sleep(1.2)
    os.write(2, b" and the end\\n"); time.sleep(60)"""
HARMLESS = (
    """os.write(2, b"one\\n[E] core_worker.cc: See https://github.com/ray-project/ray/issues/53727 for more.\\ntwo\\n")"""
)
MANY = """os.write(2, b"".join(b"line %d\\n" % number for number in range(500)))"""


def at_work(doing: str) -> list[str]:
    return [sys.executable, "-c", AT_WORK.format(doing=doing)]


def test_steps_on_a_terminal_say_how_far_they_are() -> None:
    with on_terminal(at_work(WAITING)) as terminal:
        terminal.see(lambda seen: "4 of 10 books, pages are turned" in seen.text, "the count", COMMAND_TIMEOUT_S)
        assert "copying  the books" in terminal.text
        assert "40%" in terminal.text
        assert "left" in terminal.text
        assert terminal.cursor_is_hidden


def test_steps_are_seen_where_stdout_goes_elsewhere() -> None:
    with open(os.devnull, "wb") as nothing, on_terminal(at_work(WAITING), columns=120, stdout=nothing.fileno()) as terminal:
        terminal.see(lambda seen: "4 of 10 books" in seen.text, "the count", COMMAND_TIMEOUT_S)


def test_line_written_to_descriptor_2_stands_whole_above_the_picture() -> None:
    with on_terminal(at_work(FOREIGN)) as terminal:
        terminal.see(lambda seen: "the beginning and the end" in seen.lines, "the second line", COMMAND_TIMEOUT_S)
        lines = terminal.lines
        first = lines.index("[2026-11-28 E 12] core_worker.cc:2465: one whole line")
        assert lines[first + 1] == "the beginning and the end"
        assert lines[first + 2].startswith(" copying  the books")

        drawn = elapsed(terminal)
        terminal.see(lambda seen: elapsed(seen) not in (drawn, None), "the picture goes on", COMMAND_TIMEOUT_S)
        assert sum("copying" in line for line in terminal.lines) == 1, "it is drawn in its place"


def elapsed(terminal: Terminal) -> str | None:
    """The time that the picture shows."""
    found = re.search(r"40% +(\d+:\d\d)", terminal.text)
    return found and found[1]


def test_the_one_line_of_ray_that_says_nothing_is_spared_and_its_neighbors_are_not() -> None:
    with on_terminal(at_work(HARMLESS)) as terminal:
        assert terminal.end(COMMAND_TIMEOUT_S) == 0
        lines = terminal.scrolled.split("\n")
        assert lines[lines.index("one") + 1] == "two"
        assert "core_worker" not in terminal.scrolled


@pytest.mark.parametrize("first", ["", "from jobs.console.json_logging import to_json; to_json()"], ids=["text", "json"])
def test_that_line_is_spared_in_a_log_file_as_well_and_a_killed_process_loses_no_line(first: str) -> None:
    program = f"""
import os, signal
from jobs.console.stderr_capture import unhelpful_lines_left_out
{first}
with unhelpful_lines_left_out():
    {HARMLESS}
os.write(2, b"behind it\\n")
with unhelpful_lines_left_out():
    os.write(2, b"the last words\\nof it")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, timeout=COMMAND_TIMEOUT_S)
    assert killed.returncode == -signal.SIGKILL
    assert killed.stderr.split("\n")[:4] == ["one", "two", "behind it", "the last words"]  # a part of a line may be lost


def test_all_lines_are_there_at_the_end_and_the_picture_is_gone() -> None:
    with on_terminal(at_work(MANY)) as terminal:
        assert terminal.end(COMMAND_TIMEOUT_S) == 0
        lines = terminal.scrolled.split("\n")
        assert [line for line in lines if line.startswith("line ")] == [f"line {number}" for number in range(500)]
        assert lines[-1] == "behind it", "the descriptor is the terminal again"
        assert "copying" not in terminal.scrolled
        assert not terminal.cursor_is_hidden


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, 143)])
def test_signal_takes_the_picture_away_and_gives_the_terminal_back(number: signal.Signals, code: int) -> None:
    with on_terminal(at_work(WAITING)) as terminal:
        terminal.see(lambda seen: "4 of 10 books" in seen.text, "the picture", COMMAND_TIMEOUT_S)
        terminal.process.send_signal(number)
        assert terminal.end(COMMAND_TIMEOUT_S) in (code, -number)
        assert "books" not in terminal.text
        assert not terminal.cursor_is_hidden
        assert ("KeyboardInterrupt" in terminal.text) == (number == signal.SIGINT), "Python's own words, by the same descriptor"


def test_what_is_written_behind_the_death_of_the_command_is_seen_and_the_cursor_too() -> None:
    dying = """subprocess.Popen(["sh", "-c", "sleep 0.5; echo last words >&2"]); os.kill(os.getpid(), signal.SIGKILL)"""
    with on_terminal(at_work(dying)) as terminal:
        terminal.see(lambda seen: "last words" in seen.lines, "the last words", COMMAND_TIMEOUT_S)
        assert not terminal.cursor_is_hidden


def test_elsewhere_there_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(live_view, "LINE_SECONDS", 0.02)
    shown, counted = "", r"copying: the books: 1\.0 of 4\.0 MB, \d:\d\d, about \d:\d\d left\n"

    def more() -> bool:
        nonlocal shown
        shown += capsys.readouterr().err
        return len(re.findall(counted, shown)) >= 2

    with Steps("copying", quiet=False) as steps:
        steps.begin("the books", 4_000_000, is_bytes=True)
        steps.add(1_000_000)
        wait_for(more, "two lines of what has been counted", COMMAND_TIMEOUT_S)
    assert "\x1b" not in shown


def test_quiet_steps_are_silent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(live_view, "LINE_SECONDS", 0.001)
    with Steps("copying", quiet=True) as steps:
        steps.begin("the books", 4)
        steps.say("something")
        steps.add(1)
    assert capsys.readouterr().err == ""
