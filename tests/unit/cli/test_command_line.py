"""What --help and the shell's completion show, and that the examples in it are commands that exist."""

import re
import shlex

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from jobs.cli.app import PANELS, app
from tests.support.running import command

COMMANDS = [str(info.name) for _, commands in PANELS for info in commands.registered_commands]
WIDTH = 80


def shown(*arguments: str) -> str:
    """What the command prints on a terminal of 80 columns."""
    result = CliRunner(env={"COLUMNS": str(WIDTH), "TERMINAL_WIDTH": str(WIDTH)}).invoke(app, [*arguments])
    assert result.exit_code == 0, result.output
    return result.output


def examples_in(text: str) -> list[str]:
    """The lines below the word, up to the next blank one."""
    below = text.split("Examples:")[1].strip("\n ")
    return [line.strip() for line in re.split(r"\n\s*\n", below)[0].splitlines()]


def test_help_shows_every_command_in_its_panel() -> None:
    text = shown("--help")
    for title, commands in PANELS:
        panel = text.split(f" {title} ")[1].split("╰")[0]
        for info in commands.registered_commands:
            assert re.search(rf"│ {info.name} ", panel), (title, info.name)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_ends_with_examples_that_it_takes(name: str) -> None:
    text = shown(name, "--help")
    assert max(map(len, text.splitlines())) <= WIDTH
    lines = examples_in(text)
    assert len(lines) >= 2
    for line in lines:
        program, called, *arguments = shlex.split(line.split(" > ")[0], comments=True)
        assert (program, called) == ("label-corpus", name)
        parser = get_command(app).commands[name]  # pyright: ignore[reportAttributeAccessIssue]
        parser.make_context(name, arguments)  # raises for what it does not take


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("ru", ["run"]),
        ("run job.yaml --retr", ["--retry-failed"]),
        ("run job.yaml --log-format ", ["text", "json"]),
        ("run jo", []),  # bash then completes file names
    ],
)
def test_completion_offers_commands_and_options(typed: str, offered: list[str]) -> None:
    words = f"label-corpus {typed}"
    environment = {
        "_LABEL_CORPUS_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    finished = command(environment=environment)
    assert (finished.code, finished.stdout.split(), finished.stderr) == (0, offered, "")


def test_completion_script_is_bashs() -> None:
    """As --show-completion prints it, which looks for a shell among its parents: there is none above a service."""
    finished = command(environment={"_LABEL_CORPUS_COMPLETE": "source_bash"})
    assert finished.code == 0
    assert "complete -o default" in finished.stdout
