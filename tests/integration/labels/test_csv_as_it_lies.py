"""CSV files as they are found: `init` sees how they are written, and `run` on its job file labels the texts that they hold."""

import csv
import io
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from jobs.config import load_job
from jobs.label_corpus import run
from jobs.maintenance.verify import verify
from jobs.run.plan import plan
from jobs.start.init import init
from pipeline_ops.schema.errors import UserError
from tests.support.corpora import one_line, real_documents, write_bytes
from tests.support.invariant import check_exactly_once
from tests.support.running import keys, make_job
from tests.support.serial_chain import run_serially

ROWS = 40
PROSE = [f"{one_line(text).strip()} number {row}" for row, text in enumerate(real_documents(ROWS, seed=3))]
LINES = [f"{text}, so\n\nit is, said {row},\nor not" for row, text in enumerate(PROSE)]
SPOKEN = [f'"{text}" said she' if row % 3 else text for row, text in enumerate(PROSE)]

Rows = Sequence[Sequence[object]]


def written(rows: Rows, **dialect: Any) -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file, **{"lineterminator": "\n", **dialect}).writerows(rows)
    return file.getvalue().encode()


def tweets() -> Rows:
    """As Sentiment140: sorted by its label, and with a column of one value."""
    rng = random.Random(1)
    return [
        ("0", rng.randrange(10**9), f"Mon Apr 06 22:{row:02}:45 PDT 2009", "NO_QUERY", f"_User{row}_", text)
        for row, text in enumerate(PROSE)
    ]


def plain_tabs(texts: Sequence[str]) -> bytes:
    return "".join(
        f"{a}\t{b}\t{c}\n" for a, b, c in [("id", "text", "kind"), *((i, t, "ab"[i % 2]) for i, t in enumerate(texts))]
    ).encode()


STRAY = [text.replace("\t", " ").replace('"', "'") for text in PROSE]
STRAY = [f'"{text}' if row % 10 == 4 else f'{text}"' if row % 10 == 6 else text for row, text in enumerate(STRAY)]

# {name: (content, what `init` writes beside the path and the text column, the texts)}
KINDS: dict[str, tuple[bytes, dict[str, Any], list[str]]] = {
    "usual.csv": (written([("id", "text"), *enumerate(LINES)]), {}, LINES),
    "blank.csv": (b"\r\n\n" + written([("id", "text"), *enumerate(LINES)]), {}, LINES),
    "quoted.csv": (written([("id", "text"), *enumerate(SPOKEN)], quoting=csv.QUOTE_ALL), {}, SPOKEN),
    "tweets.csv": (written(tweets(), quoting=csv.QUOTE_ALL), {"text_column": "column_5", "header": False}, PROSE),
    "rated.csv": (
        written([(text, ("good", "bad")[row % 2]) for row, text in enumerate(PROSE)]),
        {"text_column": "column_0", "header": False},
        PROSE,
    ),
    "marked.csv": (
        b"\xef\xbb\xbf" + written([(text, row) for row, text in enumerate(LINES)]),
        {"text_column": "column_0", "header": False},
        LINES,
    ),
    "escaped.csv": (
        written([("id", "text"), *enumerate(SPOKEN)], quoting=csv.QUOTE_ALL, doublequote=False, escapechar="\\"),
        {"escape": "\\"},
        SPOKEN,
    ),
    "stray.tsv": (plain_tabs(STRAY), {"quote": None}, STRAY),
    "excel.csv": (
        b"\xef\xbb\xbfsep=;\r\n" + written([("id", "text"), *enumerate(LINES)], delimiter=";", lineterminator="\r\n"),
        {"delimiter": ";"},
        LINES,
    ),
    "survey.csv": (
        written(
            [("What did you like about our service, and what did you not?", "Which is your age?"), *((t, 30) for t in PROSE)]
        ),
        {"text_column": "What did you like about our service, and what did you not?"},
        PROSE,
    ),
}


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def texts_of(output: Path, path: Path, rows: int = ROWS, column: str = "text") -> tuple[list[str | None], list[dict]]:
    """The labeled texts by row, None for a reject; the rejects."""
    labeled, rejects = check_exactly_once(output, keys(path, rows))
    found = dict(zip(labeled["source_row"].to_pylist(), labeled[column].to_pylist(), strict=True))
    return [found.get(row) for row in range(rows)], rejects


@pytest.mark.parametrize("name", KINDS)
def test_job_file_of_init_labels_the_texts_that_a_file_holds(name: str, model: Path, tmp_path: Path) -> None:
    content, settings, texts = KINDS[name]
    path, output = write_bytes(tmp_path / "in" / name, content), tmp_path / "out"
    found = init(str(path), "job.yaml", str(model), str(output))
    column = settings.get("text_column", "text")

    job = load_job("job.yaml")
    assert job.input.model_dump(exclude_unset=True) == {"path": str(path), "text_column": column, **settings}
    guessed = settings.keys() - {"text_column"}
    assert found["csv"].keys() == guessed
    commented = Path("job.yaml").read_text()
    assert all(f"#   input.{key}=" in commented and found["csv"][key]["reason"] in commented for key in guessed)
    planned = plan(job)
    assert planned["work"]["documents"] == found["documents_estimate"]
    assert ["first record may be a document" in remark for remark in planned["remarks"]] == [True] * (name == "survey.csv")

    run_serially(job, quiet=True)
    assert texts_of(output, path, column=column) == (texts, [])
    assert verify(job)["ok"]


@pytest.mark.parametrize(("name", "key"), [("tweets.csv", "header"), ("escaped.csv", "escape"), ("stray.tsv", "quote")])
def test_plan_names_the_setting_that_a_file_looks_to_need(name: str, key: str, model: Path, tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "in" / name, KINDS[name][0])
    column = PROSE[0] if name == "tweets.csv" else "text"
    (remark,) = plan(make_job(path, model, tmp_path / "out", f"input.text_column={column!r}"))["remarks"]
    assert f"set input.{key}=" in remark
    assert str(path) in remark


def label_badly(folder: Path, model: Path, output: Path, run_job: Callable[..., Any]) -> None:
    """Labels files whose quotes are not what the settings say: what has another text than written is a reject."""
    escaped = write_bytes(folder / "escaped.csv", KINDS["escaped.csv"][0])
    stray = write_bytes(folder / "stray.tsv", KINDS["stray.tsv"][0])
    run_job(make_job(folder, model, output), quiet=True)
    # rows between two stray quotes are one record
    swallowed = [row for row in range(ROWS) if row % 10 in (5, 6)]
    kept = [None if row % 10 == 4 else text for row, text in enumerate(STRAY) if row not in swallowed]
    expected = {escaped: [None if '"' in text else text for text in SPOKEN], stray: kept}
    labeled, rejects = check_exactly_once(output, [key for path, texts in expected.items() for key in keys(path, len(texts))])
    places = zip(labeled["source_file"].to_pylist(), labeled["source_row"].to_pylist(), strict=True)
    found = dict(zip(places, labeled["text"].to_pylist(), strict=True))
    for path, texts in expected.items():
        assert [found.get((str(path), row)) for row in range(len(texts))] == texts
    details = {str(path): {r["detail"] for r in rejects if r["source_file"] == str(path)} for path in expected}
    assert {reject["reason"] for reject in rejects} == {"broken_csv"}
    assert all("input.escape='\\'" in detail for detail in details[str(escaped)])
    assert all("3 lines with 3 fields" in detail and "input.quote=null" in detail for detail in details[str(stray)])


def test_texts_that_quotes_would_change_are_rejects(model: Path, tmp_path: Path) -> None:
    label_badly(tmp_path / "in", model, tmp_path / "out", run_serially)


@pytest.mark.slow
def test_texts_that_quotes_would_change_are_rejects_on_ray(ray_address: str, model: Path, tmp_path: Path) -> None:
    label_badly(tmp_path / "in", model, tmp_path / "out", run)


def test_files_without_a_header_in_one_run(model: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    marked = write_bytes(source / "a.csv", b"\xef\xbb\xbf" + written([("a\nb", 1), ("c", 2)]))
    blank = write_bytes(source / "b.csv", b"\n" + written([("d", 3)]) + b"\n" + written([("e", 4)]) + b"f\n")
    wider = write_bytes(source / "c.csv", written([("g", 5, 6), ("h", 7, 8)]))
    write_bytes(source / "d.csv", b"")
    job = make_job(source, model, output, "input.header=[said, stars]", "input.text_column=said")
    result = run_serially(job, quiet=True)

    labeled, rejects = check_exactly_once(output, [*keys(marked, 2), *keys(blank, [1, 3, 4])])
    found = {(row["source_file"], row["source_row"]): (row["said"], row["stars"]) for row in labeled.to_pylist()}
    assert found == {
        (str(marked), 0): ("a\nb", "1"),
        (str(marked), 1): ("c", "2"),
        (str(blank), 1): ("d", "3"),
        (str(blank), 3): ("e", "4"),
    }
    assert [(reject["source_row"], reject["reason"]) for reject in rejects] == [(4, "broken_csv")]
    (failure,) = [json.loads(file.read_text()) for file in (output / "_failed").glob("*.json")]
    assert str(wider) in failure["message"]
    assert "input.header: names in it: 2, fields in the records of" in failure["message"]
    assert not result.complete

    trial = run_serially(job, limit=3, quiet=True)
    assert (trial.documents, trial.labeled) == (3, 3)
    with pytest.raises(UserError, match=r"input.header: names in it: 1, fields .*a.csv: 2"):
        plan(make_job(source, model, tmp_path / "other", "input.header=[text]"))


def test_file_without_the_text_column_is_quarantined_and_the_others_are_labeled(model: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    good = write_bytes(source / "a.csv", written([("id", "text"), (1, "a")]))
    other = write_bytes(source / "b.csv", written([("id", "body"), (1, "b")]))
    result = run_serially(make_job(source, model, output), quiet=True)
    check_exactly_once(output, keys(good, 1))
    (failure,) = [json.loads(file.read_text()) for file in (output / "_failed").glob("*.json")]
    assert [piece["path"] for piece in failure["pieces"]] == [str(other)]
    assert "has no column 'text'; it has 'id', 'body'" in failure["message"]
    assert not result.complete


def test_file_that_names_another_delimiter_is_refused_with_the_remedy(model: Path, tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "excel.csv", KINDS["excel.csv"][0])
    with pytest.raises(UserError, match=r"excel.csv begins with sep=;, but the delimiter is ','; set input.delimiter=';'"):
        plan(make_job(path, model, tmp_path / "out"))
