"""The commits of two outputs over the same input -> parts: which of them are read side by side to compare what they hold. Pure.

Commits whose pieces share rows belong together, however differently the two runs have cut their input, and whatever has been
merged since. What belongs together is read together, or in slices of the input's rows where it would be too much to hold.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from pipeline_ops.schema.errors import UserError
from pipeline_ops.writing.commit_record import Commit

BY_PATH = "path"
BELOW_THE_INPUT = "path below the input"
Place = tuple[str, int]  # name of an input file, row


@dataclass(frozen=True)
class Matching:
    """How input files are told to be the same. Their names are what follows the root in their paths."""

    by: str
    root_a: str
    root_b: str
    changed: frozenset[str]  # names of files that had another identity when the other output was made

    def names_of(self, side: int, commit: Commit) -> list[str]:
        """The name of each piece's file; `side` is 0 for A, 1 for B."""
        root = (self.root_a, self.root_b)[side]
        return [piece.path.removeprefix(root) for piece in commit.pieces]


@dataclass(frozen=True)
class Part:
    """What is read side by side: of these commits the documents from `low` to before `high`; None: there is no such limit."""

    a: tuple[Commit, ...]
    b: tuple[Commit, ...]
    low: Place | None = None
    high: Place | None = None


@dataclass(frozen=True)
class Pairing:
    """Parts, and the commits of A and of B that share no rows with the other output, which nobody has to read."""

    parts: tuple[Part, ...]
    alone: tuple[tuple[Commit, ...], tuple[Commit, ...]]


def match_inputs(a: Sequence[Commit], b: Sequence[Commit], input_a: str, input_b: str) -> Matching:
    """By their paths; where no path is in both, and the inputs are at different places, by their paths below these.

    Args:
        input_a: the job's input.path; a file, a folder or a glob.

    Raises:
        UserError: there is no input file in common.
    """
    found_a, found_b = _identities(a), _identities(b)
    if found_a.keys() & found_b.keys():
        changed = frozenset(name for name in found_a.keys() & found_b.keys() if found_a[name] != found_b[name])
        return Matching(BY_PATH, "", "", changed)
    root_a, root_b = _root(input_a, found_a), _root(input_b, found_b)
    below = {path.removeprefix(root_a) for path in found_a} & {path.removeprefix(root_b) for path in found_b}
    if root_a != root_b and below:  # identities of copies say nothing: modification times, etags of another upload
        return Matching(BELOW_THE_INPUT, root_a, root_b, frozenset())
    raise UserError(
        f"A and B have no input file in common: A has {min(found_a)!r}, B {min(found_b)!r}; give two outputs of the same input"
    )


def _identities(commits: Iterable[Commit]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for commit in commits:
        for piece in commit.pieces:
            found[piece.path].add(piece.identity)
    return found


def _root(path: str, files: Iterable[str]) -> str:
    """The folder that input.path names, with a slash behind it."""
    before_glob = min((path.index(character) for character in "*?[" if character in path), default=len(path))
    if before_glob < len(path) or path in files:
        return path[: path[:before_glob].rfind("/") + 1]
    return path.rstrip("/") + "/"


def pair(a: Sequence[Commit], b: Sequence[Commit], matching: Matching, documents: int) -> Pairing:
    """What is read side by side.

    Args:
        documents: of each output that a part may have, about; a single commit may have more if its rows go by slices.
    """
    parts: list[Part] = []
    alone: tuple[list[Commit], list[Commit]] = ([], [])
    small = Part((), ())
    for group in _groups(a, b, matching):
        if not (group.a and group.b):
            alone[0].extend(group.a)
            alone[1].extend(group.b)
            continue
        if _size(group) > documents:
            parts += _slices(group, matching, documents)
            continue
        together = Part((*small.a, *group.a), (*small.b, *group.b))
        if _size(together) > documents:
            parts.append(small)
            together = group
        small = together
    if small.a or small.b:
        parts.append(small)
    return Pairing(tuple(parts), (tuple(alone[0]), tuple(alone[1])))


def _size(part: Part) -> int:
    return max(sum(commit.labeled for commit in part.a), sum(commit.labeled for commit in part.b))


def _groups(a: Sequence[Commit], b: Sequence[Commit], matching: Matching) -> Iterator[Part]:
    """The commits that share rows, directly or by others; each alone that shares none. Changed files count for nothing.

    Union-find over the intervals of each file's rows, in their order.
    """
    commits = [(0, commit) for commit in a] + [(1, commit) for commit in b]
    intervals: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for number, (side, commit) in enumerate(commits):
        for name, piece in zip(matching.names_of(side, commit), commit.pieces, strict=True):
            if name not in matching.changed and piece.stop_row > piece.start_row:
                intervals[name].append((piece.start_row, piece.stop_row, number))
    above = list(range(len(commits)))

    def top(number: int) -> int:
        while above[number] != number:
            above[number] = above[above[number]]
            number = above[number]
        return number

    for rows in intervals.values():
        rows.sort()
        reach, last = -1, 0
        for start, stop, number in rows:
            if start < reach:
                above[top(number)] = top(last)
            if stop > reach:
                reach, last = stop, number
    members: dict[int, tuple[list[Commit], list[Commit]]] = defaultdict(lambda: ([], []))
    for number, (side, commit) in enumerate(commits):
        members[top(number)][side].append(commit)
    for of_a, of_b in members.values():
        yield Part(tuple(of_a), tuple(of_b))


def _slices(group: Part, matching: Matching, documents: int) -> Iterator[Part]:
    """A large group by ranges of rows, each with the commits that have rows in it."""
    side = 0 if sum(commit.labeled for commit in group.a) >= sum(commit.labeled for commit in group.b) else 1
    cuts = [None, *_cuts((group.a, group.b)[side], side, matching, documents), None]
    for low, high in pairwise(cuts):
        part = replace(group, low=low, high=high)
        yield replace(
            part,
            a=tuple(commit for commit in group.a if _reaches(commit, 0, matching, part)),
            b=tuple(commit for commit in group.b if _reaches(commit, 1, matching, part)),
        )


def _cuts(commits: Iterable[Commit], side: int, matching: Matching, documents: int) -> list[Place]:
    """Places that have about so many documents between them."""
    runs = sorted(
        (name, piece.start_row, min(piece.stop_row, piece.start_row + commit.documents))  # the end may not be known
        for commit in commits
        for name, piece in zip(matching.names_of(side, commit), commit.pieces, strict=True)
    )
    cuts, held = [], 0
    for name, start, stop in runs:
        while held + stop - start > documents:
            start += documents - held
            cuts.append((name, start))
            held = 0
        held += stop - start
    return cuts


def _reaches(commit: Commit, side: int, matching: Matching, part: Part) -> bool:
    return any(
        (part.high is None or (name, piece.start_row) < part.high) and (part.low is None or (name, piece.stop_row) > part.low)
        for name, piece in zip(matching.names_of(side, commit), commit.pieces, strict=True)
    )
