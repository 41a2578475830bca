"""`show`: documents by label, score and source, compared with a plain read of the output."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from jobs.maintenance.compact import compact
from tests.models.tiny import make_model
from tests.support.corpora import real_documents, write_jsonl, write_parquet
from tests.support.invariant import check_exactly_once
from tests.support.running import COMMAND_TIMEOUT_S, command, keys, make_job
from tests.support.screens import on_terminal
from tests.support.serial_chain import run_serially

COUNT = 90
SECRET = "AKIA" + "X1" * 8
TEXTS = [f"{SECRET} was found in this document", *real_documents(COUNT - 1, seed=7)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("show") / "in"
    rows = [{"id": row, "text": text} for row, text in enumerate(TEXTS)]
    write_jsonl(folder / "a.jsonl.gz", [*rows[:30], {"id": -1, "text": None}])
    write_parquet(folder / "more" / "b.parquet", pa.Table.from_pylist(rows[30:60]), row_group_size=10)
    write_jsonl(folder / "more" / "c.jsonl", [*rows[60:], {"id": -2, "text": 7}])
    return folder


@pytest.fixture(scope="module")
def make_output(source: Path, model: Path) -> Callable[..., Path]:
    """Labels the corpus with these settings; the output's folder."""
    made: dict[tuple[object, ...], Path] = {}

    def make(*overrides: str, model_path: Path = model) -> Path:
        output = source.parent / f"out-{len(made)}"
        if (model_path, *overrides) not in made:
            run_serially(make_job(source, model_path, output, "compute.unit_bytes=6000", *overrides), quiet=True)
            made[(model_path, *overrides)] = output
        return made[(model_path, *overrides)]

    return make


def show(output: object, *options: object) -> list[dict[str, Any]]:
    finished = command("show", output, *options)
    assert finished.code == 0, finished.stderr
    return [json.loads(line) for line in finished.stdout.split("\n") if line]


def rows_of(source: Path, output: Path) -> list[dict[str, Any]]:
    """The labeled rows by a plain read, in the order of the input."""
    expected = [*keys(source / "a.jsonl.gz", 31), *keys(source / "more/b.parquet", 30), *keys(source / "more/c.jsonl", 31)]
    labeled, _ = check_exactly_once(output, expected)
    return sorted(labeled.to_pylist(), key=lambda row: (row["source_file"], row["source_row"]))


def ids(rows: list[dict[str, Any]]) -> list[int]:
    return [row["id"] for row in rows]


def mistake(*arguments: object) -> str:
    finished = command("show", *arguments)
    assert (finished.code, len(finished.error_lines)) == (2, 1), finished.stderr
    return finished.error_lines[0]


LAYOUTS: list[tuple[str, ...]] = [
    (),
    ("output.partition_by=[]", "output.label_name=class", "output.score_column=p", "output.source_file_column=file"),
]


@pytest.mark.parametrize("layout", [0, 1])
def test_show_gives_the_first_documents_in_the_order_of_the_input_with_all_columns(
    make_output: Callable[..., Path], source: Path, layout: int
):
    output = make_output(*LAYOUTS[layout])
    rows = show(output)
    assert ids(rows) == list(range(20))
    assert set(rows[1]) >= {"id", "text", *(("label", "score"), ("class", "p"))[layout], "num_tokens"}
    assert rows[1]["text"] == TEXTS[1]
    assert ids(show(output, "-n", 1000)) == list(range(COUNT))


@pytest.mark.parametrize("compacted", [False, True])
def test_show_by_label_score_and_source_gives_what_a_plain_read_filters(
    make_output: Callable[..., Path], source: Path, model: Path, compacted: bool
):
    overrides = ("model.max_length=64",) if compacted else ()  # an output of its own: compacting changes it
    output = make_output(*overrides)
    if compacted:
        compact(make_job(source, model, output, *overrides), target_bytes=10**9)
        assert len(list(output.glob("label=*/*.parquet"))) == 2
    rows = rows_of(source, output)
    positive = [row for row in rows if row["label"] == "POSITIVE"]
    assert 10 < len(positive) < COUNT - 10
    assert ids(show(output, "--label", "POSITIVE", "-n", 7)) == ids(positive)[:7]
    assert ids(show(output, "--label", "POSITIVE", "-n", 1000)) == ids(positive)
    by_score = sorted(rows, key=lambda row: row["score"])
    assert ids(show(output, "--sort", "lowest", "-n", 9)) == ids(by_score[:9])
    highest = show(output, "--sort", "highest", "-n", 300)
    assert [row["score"] for row in highest] == [row["score"] for row in by_score[::-1]]
    assert sorted(ids(highest)) == list(range(COUNT))
    low, high = by_score[20]["score"], by_score[60]["score"]
    between = [row for row in rows if low <= row["score"] <= high]
    assert ids(show(output, "--min-score", low, "--max-score", high, "-n", 99)) == ids(between)
    of_b = [row for row in positive if row["source_file"].endswith("b.parquet")]
    for name in ("b.parquet", "more/b.parquet", source / "more/b.parquet"):
        assert ids(show(output, "--label", "POSITIVE", "--source", name, "-n", 99)) == ids(of_b)
    assert show(output, "--columns", "score,id", "-n", 2, "--sort", "lowest") == [
        {"score": row["score"], "id": row["id"]} for row in by_score[:2]
    ]
    assert show(output, "--min-score", 1.5) == []


def test_show_of_a_multi_label_output_takes_every_label_of_a_document(
    make_output: Callable[..., Path], source: Path, tmp_path_factory: pytest.TempPathFactory
):
    model = make_model(
        tmp_path_factory.mktemp("multi") / "model", labels=("A", "B", "C"), problem_type="multi_label_classification"
    )
    output = make_output(model_path=model)
    rows = rows_of(source, output)
    expected = [row for row in rows if "B" in row["labels"] or row["label"] == "B"]
    assert {"B"} != {row["label"] for row in expected}, "some have another label with a higher score"
    assert ids(show(output, "--label", "B", "-n", 99)) == ids(expected)


def test_show_of_several_models_needs_the_name_where_labels_or_scores_matter(source: Path, model: Path, tmp_path: Path):
    job = make_job(source, model, tmp_path / "out", "output.partition_by=[one_label]")
    settings = job.model_dump(mode="json") | {"model": None}
    settings["models"] = [{"name": name, "path": str(model), "dtype": "float32", "max_length": size} for name, size in
                          (("one", 64), ("two", 8))]  # fmt: skip
    run_serially(settings, quiet=True)
    rows = rows_of(source, tmp_path / "out")
    assert ids(show(tmp_path / "out", "-n", 99)) == list(range(COUNT))
    for name in ("one", "two"):
        chosen = [row for row in rows if row[f"{name}_label"] == "NEGATIVE"]
        assert ids(show(tmp_path / "out", "--model", name, "--label", "NEGATIVE", "-n", 99)) == ids(chosen)
        by_score = sorted(rows, key=lambda row: row[f"{name}_score"])
        assert ids(show(tmp_path / "out", "--model", name, "--sort", "lowest", "-n", 5)) == ids(by_score[:5])
    assert "several models, 'one', 'two'; name one" in mistake(tmp_path / "out", "--label", "NEGATIVE")


def test_show_is_in_the_order_of_the_input_after_a_file_between_merged_ones_has_changed(model: Path, tmp_path: Path):
    source, output = tmp_path / "in", tmp_path / "out"
    for name, start in (("a", 0), ("b", 20), ("c", 40)):
        write_jsonl(source / f"{name}.jsonl", [*({"id": start + row, "text": TEXTS[start + row]} for row in range(20)), {}])
    job = make_job(source, model, output, "compute.unit_bytes=3000")
    run_serially(job, quiet=True)
    compact(job, target_bytes=10**9)
    write_jsonl(source / "b.jsonl", [*({"id": 20 + row, "text": TEXTS[60 + row]} for row in range(20)), {}, {"text": 7}])
    run_serially(job, quiet=True)
    for compacted_again in (False, True):  # then c is before b in the merged files
        if compacted_again:
            compact(job, target_bytes=10**9)
        assert [ids(show(output, "-n", count)) for count in (25, 1000)] == [list(range(25)), list(range(60))]
        positive = ids(show(output, "--label", "POSITIVE", "-n", 1000))
        assert positive == sorted(positive)
        assert ids(show(output, "--label", "POSITIVE", "-n", len(positive) - 1)) == positive[:-1]
        rejected = [f"{row['source_file'][-7:]} {row['source_row']}" for row in show(output, "--rejects")]
        assert rejected == ["a.jsonl 20", "b.jsonl 20", "b.jsonl 21", "c.jsonl 20"]
        assert [row["source_row"] for row in show(output, "--rejects", "-n", 3)] == [20, 20, 21]


def test_show_rejects_gives_each_with_its_reason(make_output: Callable[..., Path], source: Path):
    output = make_output()
    rejects = show(output, "--rejects")
    assert [(row["source_file"], row["source_row"], row["reason"]) for row in rejects] == [
        (str(source / "a.jsonl.gz"), 30, "null_text"),
        (str(source / "more/c.jsonl"), 30, "not_a_string"),
    ]
    assert show(output, "--rejects", "--source", "c.jsonl") == rejects[1:]
    assert "--rejects: rejected documents have no labels" in mistake(output, "--rejects", "--label", "POSITIVE")


def test_show_of_nothing_says_on_stderr_what_was_asked_for(make_output: Callable[..., Path]):
    output = make_output()
    for options, said in (
        (["--label", "POSITIVE", "--min-score", 1.5], "labeled document matches --label POSITIVE --min-score 1.5"),
        (
            ["--max-score", -1, "--source", "b.parquet", "--json", "-n", 3],
            "labeled document matches --max-score -1.0 --source b.parquet",
        ),
        (["--rejects", "--source", "b.parquet"], "rejected document matches --source b.parquet"),
    ):
        finished = command("show", output, *options)
        assert (finished.code, finished.stdout, finished.stderr) == (0, "", f"no {said} in {output}\n")


def test_show_masks_credentials(make_output: Callable[..., Path]):
    (row,) = show(make_output(), "-n", 1)
    assert row["text"] == TEXTS[0].replace(SECRET, "▇▇▇")


def test_show_with_a_name_that_is_not_there_says_which_are(make_output: Callable[..., Path], tmp_path: Path):
    output = make_output()
    assert "the model has no label 'POSITIV'; did you mean 'POSITIVE'?" in mistake(output, "--label", "POSITIV")
    assert "no labels are of a file 'd.jsonl'; did you mean 'c.jsonl'?" in mistake(output, "--source", "d.jsonl")
    assert "column 'txt' is not in the labels" in mistake(output, "--columns", "id,txt")
    assert "--model: invalid value 'x'" in mistake(output, "--model", "x")
    assert "holds no labels" in mistake(tmp_path)


@pytest.mark.slow
def test_show_on_a_terminal_is_a_table_of_its_width_and_a_long_one_goes_through_the_pager(
    make_output: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    output = make_output()
    monkeypatch.setenv("PAGER", "head -n 4")
    command_line = [sys.executable, "-m", "jobs.cli", "show", str(output), "--sort", "lowest"]
    lowest = show(output, "--sort", "lowest", "-n", 40)
    with on_terminal([*command_line, "-n", "5"], columns=90) as terminal:
        assert terminal.end(COMMAND_TIMEOUT_S) == 0
        lines = [line for line in terminal.lines if line]  # the emulator and rich differ in the width of some emoji
    assert lines[0].split() == ["source", "label", "score", "text"]
    assert lines[6] == "5 documents; there may be more: -n 50"
    for line, row in zip(lines[1:6], lowest[:5], strict=True):
        name = row["source_file"].rsplit("/", 1)[-1]
        where = f"row {row['source_row']} of {name}"
        assert line.split()[:6] == [*where.split(), row["label"], f"{row['score']:.4f}"]
    with on_terminal([*command_line, "-n", "40"], columns=90) as terminal:
        assert terminal.end(COMMAND_TIMEOUT_S) == 0
        assert [line.split()[:4] for line in terminal.lines[1:4]] == [line.split()[:4] for line in lines[1:4]]
        assert terminal.lines[4] == "40 documents; there may be more: -n 400"
    with on_terminal([*command_line, "-n", "1", "--json", "--columns", "id"], columns=90) as terminal:
        assert terminal.end(COMMAND_TIMEOUT_S) == 0
        assert json.loads(terminal.text) == {"id": lowest[0]["id"]}
    with on_terminal([*command_line, "--min-score", "1.5"], columns=200) as terminal:
        assert terminal.end(COMMAND_TIMEOUT_S) == 0
        assert terminal.text.strip() == f"no labeled document matches --min-score 1.5 in {output}"


def test_show_whose_reader_ends_early_ends_without_a_word(make_output: Callable[..., Path]):
    import subprocess

    line = f"{sys.executable} -m jobs.cli show {make_output()} -n 90 | head -n 1"
    process = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert json.loads(process.stdout)["id"] == 0
