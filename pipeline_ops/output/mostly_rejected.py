"""Input files of which most documents are rejected for one reason: such a file is not what the settings say it is."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.output.commit_log import current_commits
from pipeline_ops.writing.commit_record import Commit, FileCounts

MIN_DOCUMENTS = 10  # of a file, or of all: a share of fewer says nothing
ASKED_FOR = ("too_short",)  # reasons that are a wish of the job's, however many documents they meet
REMEDIES = {
    "broken_json": "is this JSON Lines, an object per line? else set input.format",
    "broken_csv": "do input.delimiter, input.quote and input.escape fit?",
    "null_text": "does input.text_column name the texts?",
    "not_a_string": "does input.text_column name the texts?",
    "undecodable": "does input.encoding fit?",
    "column_type": "set input.column_types",
    "tokenizer_error": "can the model's tokenizer read this text? `inspect` shows its steps",
    "model_error": "can the model read this text? `inspect` shows its steps",
    "non_finite_logits": "is model.dtype wide enough for the model? try model.dtype=float32",
}


@dataclass(frozen=True)
class MostlyRejected:
    """A file of whose documents too many are rejected, and the most frequent reason."""

    path: str
    reason: str
    rejected: int  # for that reason
    documents: int

    def __str__(self) -> str:
        return f"{self.path}: {self.rejected:,} of {self.documents:,} documents rejected as {self.reason}"


def mostly_rejected(files: Iterable[InputFile], commits: dict[str, Commit], share: float) -> list[MostlyRejected]:
    """The files with more than this share of their documents rejected for one reason, most rejects first.

    Counted are files of MIN_DOCUMENTS documents, and smaller ones if it is more than the share of all documents together, or
    if no document at all is labeled. Reasons that are ASKED_FOR do not count.

    Args:
        files: of the input. What is committed of others, or of earlier versions of these, does not count.
        commits: by unit id.
    """
    current = current_commits(commits).values()
    if not any(commit.rejected for commit in current):
        return []
    listed = {file.path: file.stored.identity for file in files}
    with_rejects = {one.path for commit in current if commit.rejected for one in commit.by_file() if one.reasons}
    documents = 0.0
    parts: list[FileCounts] = []
    for commit in current:
        for one in _of_listed(commit, listed):
            documents += one.documents
            if one.path in with_rejects:  # the others may be millions
                parts.append(one)
    counts = FileCounts.sum_of(parts)
    reasons: Counter[str] = Counter()
    for one in counts.values():
        reasons.update(_that_count(one.reasons))
    rejected = sum(one.rejected for one in counts.values())
    nothing_labeled = rejected >= documents and reasons.total() > share * documents
    anywhere = nothing_labeled or (documents >= MIN_DOCUMENTS and max(reasons.values(), default=0) > share * documents)
    found = []
    for one in counts.values():
        reason, most = max(_that_count(one.reasons).items(), key=lambda item: item[1], default=("", 0))
        too_many = most > share * one.documents and (anywhere or one.documents >= MIN_DOCUMENTS)
        if too_many or (nothing_labeled and most):
            found.append(MostlyRejected(one.path, reason, most, round(one.documents)))
    return sorted(found, key=lambda one: (-one.rejected, one.path))


def _of_listed(commit: Commit, listed: Mapping[str, str]) -> Iterable[FileCounts]:
    valid = {piece.path for piece in commit.pieces if listed.get(piece.path) == piece.identity}
    return (one for one in commit.by_file() if one.path in valid)


def _that_count(reasons: Mapping[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in reasons.items() if reason not in ASKED_FOR}


def remedy_of(reason: str) -> str:
    """What to look at when most documents are rejected for this reason, for people."""
    return REMEDIES.get(reason, "look at the rejected documents")


def by_reason(found: Sequence[MostlyRejected]) -> dict[str, list[MostlyRejected]]:
    """{reason: the files}, in the order of `found`."""
    grouped: dict[str, list[MostlyRejected]] = {}
    for one in found:
        grouped.setdefault(one.reason, []).append(one)
    return grouped
