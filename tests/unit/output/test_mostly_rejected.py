"""Which input files are mostly rejected, by the commits: files on their own, small ones together, and what does not count."""

import json
from collections.abc import Sequence

import pytest

from pipeline_ops.inputs.input_files import InputFile
from pipeline_ops.output.compaction import Compaction, compacted
from pipeline_ops.output.mostly_rejected import WHOLE, MostlyRejected, mostly_rejected
from pipeline_ops.schema.units import Piece
from pipeline_ops.storage.store import Store, StoredFile
from pipeline_ops.writing.commit_record import Commit, FileCounts

# {path: (documents, rejects by reason)}
Counts = dict[str, tuple[int, dict[str, int]]]


def commit_of(unit: str, counts: Counts) -> Commit:
    """A commit of the first rows of some files."""
    pieces = tuple(Piece(path, "v1", 0, documents, True) for path, (documents, _) in counts.items())
    file_rejects = tuple(FileCounts(path, documents, dict(why)) for path, (documents, why) in counts.items() if why)
    reasons: dict[str, int] = {}
    for _, why in counts.values():
        for reason, count in why.items():
            reasons[reason] = reasons.get(reason, 0) + count
    rejected = sum(reasons.values())
    labeled = sum(documents for documents, _ in counts.values()) - rejected
    return Commit(
        *(unit, "attempt", pieces, (), None, labeled, rejected, 0, 0, 0, {}),
        reasons=reasons,
        file_rejects=file_rejects if len(counts) > 1 else (),
    )


def find(commits: Sequence[Commit], share: float = 0.5, identity: str = "v1") -> list[MostlyRejected]:
    paths = sorted({piece.path for commit in commits for piece in commit.pieces})
    files = [InputFile(StoredFile(path, 1, identity), "jsonl", None) for path in paths]
    return mostly_rejected(files, {commit.unit: commit for commit in commits}, share)


def test_a_file_of_ten_documents_with_more_than_the_share_rejected_is_found_among_good_ones() -> None:
    commit = commit_of("u", {"bad": (12, {"broken_json": 7}), "half": (12, {"broken_json": 6}), "good": (5000, {})})
    assert find([commit]) == [MostlyRejected("bad", "broken_json", 7, 12)]
    assert find([commit], share=0.4) == [
        MostlyRejected("bad", "broken_json", 7, 12),
        MostlyRejected("half", "broken_json", 6, 12),
    ]
    assert find([commit], share=1.0) == []


def test_reasons_are_added_up_but_short_texts_do_not_count() -> None:
    commit = commit_of(
        "u",
        {
            "mixed": (10, {"null_text": 5, "broken_json": 4}),
            "one": (10, {"null_text": 6, "broken_json": 4}),
            "short": (100, {"too_short": 95, "null_text": 5}),
            "good": (100, {}),
        },
    )
    assert find([commit]) == [MostlyRejected("mixed", "null_text", 9, 10, 2), MostlyRejected("one", "null_text", 6, 10)]
    assert str(find([commit])[0]) == "mixed: 9 of 10 documents rejected for 2 reasons, most often null_text"


def test_reasons_are_added_up_over_small_files() -> None:
    small = {f"{number:02}": (2, {"null_text": 1, "not_a_string": 1}) for number in range(6)}
    assert len(find([commit_of("u", small | {"good": (5, {})})])) == 6
    assert find([commit_of("u", small | {"good": (50, {})})]) == []


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_an_input_of_which_nothing_is_labeled_is_found_however_small_and_for_whatever_reasons(share: float) -> None:
    found = find([commit_of("u", {"a": (2, {"null_text": 1, "broken_json": 1}), "b": (1, {"broken_json": 1})})], share)
    assert {one.path for one in found} == {"a", "b"}
    assert find([commit_of("u", {"a": (12, {"too_short": 12})})], share) == [MostlyRejected("a", "too_short", 12, 12)]
    assert find([commit_of("u", {"a": (12, {"too_short": 11})})], share) == []


def test_a_share_of_1_accepts_that_nothing_is_labeled() -> None:
    assert find([commit_of("u", {"a": (12, {"null_text": 12})})], share=1.0) == []


def test_many_small_files_count_together() -> None:
    bad = {f"bad-{number:03}": (3, {"not_a_string": 3}) for number in range(100)}
    good = {f"good-{number:03}": (3, {}) for number in range(40)}
    found = find([commit_of("u", bad | good)])
    assert [one.path for one in found] == list(bad)
    assert find([commit_of("u", dict(list(bad.items())[:30]) | good)]) == []


def test_a_file_in_several_commits_counts_as_one() -> None:
    first = commit_of("u", {"large": (100, {"broken_csv": 60})})
    rest = commit_of("v", {"large": (90, {}), "other": (10, {})})
    assert find([first]) == [MostlyRejected("large", "broken_csv", 60, 100)]
    assert find([first, rest]) == []


def test_what_is_committed_of_removed_or_changed_files_does_not_count() -> None:
    bad = commit_of("u", {"bad": (12, {"broken_json": 12}), "good": (100, {})})
    files = [InputFile(StoredFile("good", 1, "v1"), "jsonl", None)]
    assert mostly_rejected(files, {"u": bad}, 0.5) == []
    assert find([bad], identity="v2") == []


def test_counts_survive_the_record_and_compaction() -> None:
    commits = [
        commit_of("u", {"bad": (12, {"broken_json": 12}), "good": (100, {})}),
        commit_of("v", {"worse": (15, {"null_text": 15})}),
    ]
    assert [Commit.from_json(commit.to_json()) for commit in commits] == commits
    merged = compacted(Store("/nowhere"), Compaction("w", "attempt", tuple(commits), (), ()), [])
    assert find([merged]) == find(commits) != []


def test_a_record_of_an_earlier_version_is_read() -> None:
    fields = json.loads(commit_of("u", {"bad": (12, {"broken_json": 12})}).to_json())
    del fields["file_rejects"]
    assert find([Commit.from_json(json.dumps(fields))]) == [MostlyRejected("bad", "broken_json", 12, 12)]


def earlier(commit: Commit, *keys: str) -> Commit:
    """The commit as recorded by a version that did not have these keys."""
    fields = json.loads(commit.to_json())
    return Commit.from_json(json.dumps({key: value for key, value in fields.items() if key not in keys}))


def test_rejects_that_are_not_known_by_file_count_for_the_whole() -> None:
    mostly = commit_of("u", {"a": (50, {"null_text": 50}), "b": (50, {"null_text": 40}), "good": (20, {})})
    (whole,) = find([earlier(mostly, "file_rejects")])
    assert str(whole) == "the input as a whole: 90 of 120 documents rejected as null_text"
    good = commit_of("v", {"c": (100, {})})
    assert find([earlier(mostly, "file_rejects"), good]) == []
    newer = commit_of("v", {"c": (100, {"null_text": 100}), "d": (10, {})})
    found = find([earlier(mostly, "file_rejects"), newer])
    assert found == [MostlyRejected(WHOLE, "null_text", 190, 230), MostlyRejected("c", "null_text", 100, 100)]
    files = [InputFile(StoredFile(path, 1, "v1"), "jsonl", None) for path in ("a", "b")]  # the good one is gone
    assert mostly_rejected(files, {"u": earlier(mostly, "file_rejects")}, 0.5)[0].documents == 100


def test_rejects_of_unknown_reasons_count_where_nothing_is_labeled() -> None:
    keys = ("file_rejects", "reasons")
    nothing = earlier(commit_of("u", {"a": (50, {"null_text": 50}), "b": (50, {"too_short": 50})}), *keys)
    assert find([nothing]) == [MostlyRejected(WHOLE, "unknown", 100, 100)]
    assert find([nothing, commit_of("v", {"c": (1, {})})]) == []
