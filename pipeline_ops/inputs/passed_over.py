"""Files below the input that are not read, and why."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline_ops.storage.paths import MOST_NAMES, some_shown

Why = Literal["unknown suffix", "metadata of the data set", "names that begin with _ or .", "links to folders"]


@dataclass(frozen=True)
class PassedOver:
    """A file that is not read."""

    path: str
    why: Why


def summary_of(files: Iterable[PassedOver]) -> dict[str, dict[str, Any]]:
    """{why: {"files": how many, "first": the first paths}}, as in JSON lines."""
    paths: dict[str, list[str]] = defaultdict(list)
    for file in files:
        paths[file.why].append(file.path)
    return {why: {"files": len(alike), "first": alike[:MOST_NAMES]} for why, alike in paths.items()}


def skipped_line(summary: Mapping[str, Mapping[str, Any]]) -> str:
    """The files that are not read, for people.

    Args:
        summary: of summary_of, not empty.
    """
    kinds = (f"{some_shown(kind['first'], kind['files'])} ({why})" for why, kind in summary.items())
    return f"skipped: {'; '.join(kinds)}"


def paths_of(files: Sequence[PassedOver]) -> list[str]:
    return [file.path for file in files]
