"""Input files of which most documents are rejected: such a file is not what the settings say it is."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.output.commit_log import current_commits
from pipeline_ops.writing.commit_record import Commit, FileCounts

MIN_DOCUMENTS = 10  # of a file, or of all: a share of fewer says nothing
UNKNOWN = "unknown"  # the reasons of commits of versions that did not record them
ASKED_FOR = ("too_short", UNKNOWN)  # reasons that are, or may be, a wish of the job's, however many documents they meet
WHOLE = "the input as a whole"  # in place of a path
REMEDIES = {
    "broken_json": "is this JSON Lines, an object per line? else set input.format",
    "broken_csv": "do input.delimiter, input.quote and input.escape fit?",
    "null_text": "does input.text_column name the texts?",
    "not_a_string": "does input.text_column name the texts?",
    "too_short": "is input.min_characters too large?",
    "undecodable": "does input.encoding fit?",
    "column_type": "set input.column_types",
    "tokenizer_error": "can the model's tokenizer read this text? `inspect` shows its steps",
    "model_error": "can the model read this text? `inspect` shows its steps",
    "non_finite_logits": "is model.dtype wide enough for the model? try model.dtype=float32",
}


@dataclass(frozen=True)
class MostlyRejected:
    """A file of whose documents too many are rejected, and the most frequent reason."""

    path: str  # WHOLE where the rejects of files are not known
    reason: str
    rejected: int  # for that reason, or for all `reasons`
    documents: int
    reasons: int = 1  # more than one where no single one reaches the share

    @property
    def why(self) -> str:
        """For people, behind `rejected`."""
        return f"as {self.reason}" if self.reasons == 1 else f"for {self.reasons} reasons, most often {self.reason}"

    def __str__(self) -> str:
        return f"{self.path}: {self.rejected:,} of {self.documents:,} documents rejected {self.why}"


def mostly_rejected(files: Iterable[InputFile], commits: dict[str, Commit], share: float) -> list[MostlyRejected]:
    """The files with more than this share of their documents rejected, for one reason or all together, most rejects first.

    Counted are files of MIN_DOCUMENTS documents, and smaller ones if it is more than the share of all documents together, or
    if no document at all is labeled. Reasons that are ASKED_FOR count in the last case only. Rejects of commits that do not
    say of which files they are count for the WHOLE.

    Args:
        files: of the input. What is committed of others, or of earlier versions of these, does not count.
        commits: by unit id.
        share: from 0 to 1, which accepts any number of rejects.
    """
    current = current_commits(commits).values()
    if share >= 1 or not any(commit.rejected for commit in current):
        return []
    listed = {file.path: file.stored.identity for file in files}
    with_rejects = {one.path for commit in current if commit.rejected for one in commit.by_file() if one.reasons}
    documents = 0.0
    parts: list[FileCounts] = []
    for commit in current:
        valid = 0.0
        for one in _of_listed(commit, listed):
            valid += one.documents
            if one.path in with_rejects:  # the others may be millions
                parts.append(one)
        documents += valid
        if commit.rejected and not any(one.reasons for one in commit.by_file()):
            part = valid / commit.documents
            reasons = commit.reasons or {UNKNOWN: commit.rejected}
            parts.append(FileCounts(WHOLE, 0.0, {reason: round(count * part) for reason, count in reasons.items()}))
    counts = FileCounts.sum_of(parts)
    reasons = Counter[str]()
    for one in counts.values():
        reasons.update(one.reasons)
    labels_nothing = round(documents) <= reasons.total() > 0
    left_out = () if labels_nothing else ASKED_FOR
    rejected = sum(_without(reasons, left_out).values())
    anywhere = labels_nothing or (documents >= MIN_DOCUMENTS and rejected > share * documents)
    if counts.pop(WHOLE, None) is not None and anywhere:
        counts[WHOLE] = FileCounts(WHOLE, documents, reasons)
    found = []
    for one in counts.values():
        why = _without(one.reasons, left_out)
        too_many = sum(why.values()) > share * one.documents and (anywhere or one.documents >= MIN_DOCUMENTS)
        if too_many or (labels_nothing and why):
            found.append(_found(one, why, share))
    return sorted(found, key=lambda one: (-one.rejected, one.path))


def _found(one: FileCounts, why: Mapping[str, int], share: float) -> MostlyRejected:
    reason, most = max(why.items(), key=lambda item: item[1])
    alone = len(why) == 1 or most > share * one.documents
    rejected, reasons = (most, 1) if alone else (sum(why.values()), len(why))
    return MostlyRejected(one.path, reason, rejected, round(one.documents), reasons)


def _of_listed(commit: Commit, listed: Mapping[str, str]) -> Iterable[FileCounts]:
    valid = {piece.path for piece in commit.pieces if listed.get(piece.path) == piece.identity}
    return (one for one in commit.by_file() if one.path in valid)


def _without(reasons: Mapping[str, int], left_out: Sequence[str]) -> dict[str, int]:
    return {reason: count for reason, count in reasons.items() if reason not in left_out and count}


def remedy_of(reason: str) -> str:
    """What to look at when most documents are rejected for this reason, for people."""
    return REMEDIES.get(reason, "look at the rejected documents")


def by_reason(found: Sequence[MostlyRejected]) -> dict[str, list[MostlyRejected]]:
    """{why: the files}, in the order of `found`."""
    grouped: dict[str, list[MostlyRejected]] = {}
    for one in found:
        grouped.setdefault(one.why, []).append(one)
    return grouped
