"""`label-corpus init`: the job file that it writes for a corpus, and that the other commands take it."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from jobs.config import load_job
from jobs.run.plan import plan
from jobs.start.init import init
from pipeline_ops.reading import corpus_profile
from pipeline_ops.schema.errors import UserError
from tests.conftest import Bucket
from tests.support.corpora import one_line, real_documents, write_bytes, write_jsonl, write_parquet
from tests.support.running import command, make_job

DOCUMENTS = 60
TEXTS = [f"{one_line(text).strip()} is document number {row}" for row, text in enumerate(real_documents(DOCUMENTS))]
ROWS = [
    {
        "id": f"r{row:05}",
        "url": f"https://example.com/{row}",
        "posted": f"2024-01-{row % 28 + 1:02}",
        "title": f"Title {row}",
        "body": text,
        "year": row,
    }
    for row, text in enumerate(TEXTS)
]


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def write(tmp_path: Path, model: Path) -> Callable[..., dict[str, Any]]:
    """Writes a job file for an input, and has `plan` look at it."""

    def call(source: object, *overrides: str, **options: Any) -> dict[str, Any]:
        found = init(str(source), "job.yaml", str(model), overrides=overrides, **options)
        planned = plan(load_job("job.yaml"))
        assert (planned["files"], planned["bytes"]) == (found["files"], found["bytes"])
        assert not Path(found["output"]).exists()
        json.dumps(found)
        return found

    return call


def separated(rows: list[dict[str, Any]], delimiter: str) -> bytes:
    lines = [list(rows[0]), *(list(map(str, row.values())) for row in rows)]
    return "".join(delimiter.join('"' + v.replace('"', '""') + '"' for v in line) + "\n" for line in lines).encode()


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.jsonl.zst", "a.csv", "a.tsv", "a.csv.xz", "a.csv.zip"])
def test_column_of_texts_is_found_in_every_format(name: str, tmp_path: Path, write: Callable[..., dict[str, Any]]) -> None:
    source = tmp_path / "in" / name
    if "parquet" in name:
        write_parquet(source, ROWS)
    elif "jsonl" in name:
        write_jsonl(source, ROWS)
    else:
        write_bytes(source, separated(ROWS, "\t" if "tsv" in name else ","))
    found = write(tmp_path / "in")
    assert found["text_column"] == "body"
    assert found["candidates"] == ["body", "title"]
    assert found["id_columns"] == ["id"]
    assert (found["documents_estimate"], found["documents_counted"]) == (DOCUMENTS, True)
    assert found["output"] == "in-labeled"
    assert load_job("job.yaml").input.text_column == "body"
    assert "'title'" in Path("job.yaml").read_text()


def test_plain_text_is_a_column_by_itself(tmp_path: Path, write: Callable[..., dict[str, Any]]) -> None:
    for name in ("a.txt", "b.txt"):
        write_bytes(tmp_path / "in" / name, "\n".join(TEXTS).encode())
    found = write(tmp_path / "in")
    assert (found["formats"], found["text_column"], found["documents_estimate"]) == ({"text": 2}, "text", 2 * DOCUMENTS)
    assert write(tmp_path / "in", "input.text_unit=file", force=True)["documents_estimate"] == 2


def test_mixed_folder_takes_the_column_that_all_formats_have(tmp_path: Path, write: Callable[..., dict[str, Any]]) -> None:
    write_parquet(tmp_path / "in" / "a.parquet", [{"essay": 2 * text, "note": text} for text in TEXTS])
    write_jsonl(tmp_path / "in" / "b.jsonl", [{"note": text} for text in TEXTS])
    write_bytes(tmp_path / "in" / "c.txt", "\n".join(TEXTS).encode())
    write_bytes(tmp_path / "in" / "README.md", b"no corpus")
    found = write(tmp_path / "in")
    assert found["text_column"] == "note"
    assert found["formats"] == {"parquet": 1, "jsonl": 1, "text": 1}
    assert found["files_passed_over"] == 1
    assert found["documents_estimate"] == 3 * DOCUMENTS


def test_files_that_look_like_no_documents_are_named_with_a_glob_for_the_others(tmp_path: Path, model: Path) -> None:
    for name in ("a", "b"):
        write_jsonl(tmp_path / "here" / "in" / f"{name}.jsonl", [{"message": text} for text in TEXTS])
    write_bytes(tmp_path / "here" / "in" / "notes.txt", b"These messages are from support.\n")
    for name in ("m.pdf", "n.pdf", "o.pdf", "p.pdf", "q.pdf"):
        write_bytes(tmp_path / "here" / "in" / name, b"%PDF")
    for arguments in (("init", "in", "--model", model), ("plan", "job.yaml")):
        shown = command(*arguments).stderr
        assert "skipped: in/m.pdf, in/n.pdf, in/o.pdf and 2 more (unknown suffix)" in shown
        assert "perhaps no documents: in/notes.txt: 1 txt file of 33 bytes beside 2 jsonl files of" in shown
        assert "to read only the others: input.path='in/*.jsonl'" in shown
    assert "input.path='in/*.jsonl'" in Path("job.yaml").read_text()
    narrowed = command("plan", "job.yaml", "input.path=in/*.jsonl")
    assert (narrowed.result["files"], narrowed.result["remarks"], "documents:" in narrowed.stderr) == (2, [], False)


PARTS: dict[str, Callable[[Path], object]] = {
    "csv": lambda folder: write_bytes(
        folder / "a.csv", separated([{"id": n, "comment": text} for n, text in enumerate(TEXTS)], ",")
    ),
    "jsonl": lambda folder: write_jsonl(folder / "b.jsonl", [{"id": n, "text": text} for n, text in enumerate(TEXTS)]),
    "parquet": lambda folder: write_parquet(
        folder / "c.parquet", [{"text": n, "comment": text} for n, text in enumerate(TEXTS)]
    ),
    "text": lambda folder: write_bytes(folder / "d.txt", "\n".join(TEXTS).encode()),
    "pdf": lambda folder: write_bytes(folder / "e.pdf", b"%PDF"),
}


@pytest.mark.parametrize("column", [None, "text", "comment"])
@pytest.mark.parametrize(
    "kinds", ["csv", "jsonl text", "csv jsonl", "jsonl parquet pdf", "csv jsonl text pdf", "csv jsonl parquet", "pdf"]
)
def test_plan_accepts_whatever_is_written_and_refuses_what_is_not(
    kinds: str, column: str | None, tmp_path: Path, model: Path
) -> None:
    for kind in kinds.split():
        PARTS[kind](tmp_path / "in")
    settings = [] if column is None else [f"input.text_column={column}"]
    source = tmp_path / "in"
    try:
        init(str(source), "job.yaml", str(model), overrides=settings)
    except UserError as error:
        assert not Path("job.yaml").exists()
        with pytest.raises(UserError):
            plan(make_job(source, model, "out", *settings))
        remedy = re.search(r"; to read only .*: input\.path=(\S+)$", str(error))
        assert (remedy is not None) == (" " in kinds and not (kinds == "jsonl text" and column == "comment"))
        if remedy is None:
            return
        (source,) = map(Path, shlex.split(remedy[1]))
        init(str(source), "job.yaml", str(model), overrides=settings)
    assert plan(load_job("job.yaml"))["files_to_run"] >= 1


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("my-classifier", "no such folder 'my-classifier', and the hub cannot be reached to look for it ("),
        ("my-classifier", "; run `label-corpus train` first, or give a hub id (user/name)"),
        ("./nowhere", "no such folder './nowhere'; run `label-corpus train` first, or give a hub id"),
        ("models/mine", "no such folder 'models/mine'"),  # models/ is one
        ("models/of/mine", "no such folder 'models/of/mine'"),
        ("models", "config.json"),
    ],
)
def test_model_that_can_only_be_a_folder_has_to_be_there(model: str, said: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in.jsonl", ROWS)
    Path("models").mkdir()
    for run in (
        lambda: init(str(tmp_path / "in.jsonl"), "job.yaml", model),
        lambda: plan(make_job(tmp_path / "in.jsonl", model, "out", "input.text_column=body")),
    ):
        with pytest.raises(UserError) as caught:
            run()
        assert str(caught.value).startswith("model.path: ")
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not Path("job.yaml").exists()


def test_hub_id_is_accepted_with_a_remark_where_the_hub_cannot_be_reached(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", ROWS)
    finished = command("init", source, "--model", "some/model")
    assert finished.code == 0
    assert "not checked: model.path: 'some/model'" in finished.stderr
    assert "not checked: model.path: 'some/model'" in Path("job.yaml").read_text()
    assert finished.result["labels"] == []
    assert load_job("job.yaml").named_models()[""].path == "some/model"


def test_encoder_without_a_head_is_refused(tmp_path: Path, model_without_head: Path) -> None:
    write_jsonl(tmp_path / "in.jsonl", ROWS)
    with pytest.raises(UserError, match="has no trained classification head"):
        init(str(tmp_path / "in.jsonl"), "job.yaml", str(model_without_head))
    assert not Path("job.yaml").exists()


def test_corpus_on_s3_is_looked_at_where_it_is(s3: Bucket, model: Path, tmp_path: Path) -> None:
    s3.filesystem.pipe(f"{s3.name}/in/a.jsonl.zst", write_jsonl(tmp_path / "a.jsonl.zst", ROWS).read_bytes())
    settings = [f"storage.endpoint_url={s3.endpoint_url}"]
    found = init(f"{s3.url}/in", "job.yaml", str(model), f"{s3.url}/out", settings)
    assert (found["text_column"], found["documents_estimate"]) == ("body", DOCUMENTS)
    job = load_job("job.yaml")
    assert (job.storage.endpoint_url, job.output.path) == (s3.endpoint_url, f"{s3.url}/out")
    assert plan(job)["files_to_run"] == 1
    with pytest.raises(UserError, match=r"input\.path: .*does not exist"):
        init(f"{s3.url}/no", "other.yaml", str(model), None, settings)
    with pytest.raises(UserError, match=r"input\.path: .*cannot be read"):
        init("s3://there-is-no-such-bucket/in", "other.yaml", str(model), None, settings)


def test_nested_and_null_columns_are_no_texts(tmp_path: Path, write: Callable[..., dict[str, Any]]) -> None:
    table = pa.table(
        {
            "nothing": pa.nulls(DOCUMENTS),
            "empty": pa.nulls(DOCUMENTS, pa.string()),
            "tags": [["a text", "in a list"]] * DOCUMENTS,
            "meta": [{"text": "in an object"}] * DOCUMENTS,
            "kind": ["one kind"] * DOCUMENTS,
            "Review_Text": pa.array(TEXTS).dictionary_encode(),
        }
    )
    write_parquet(tmp_path / "in.parquet", table)
    found = write(tmp_path / "in.parquet")
    assert found["candidates"] == ["Review_Text"]


@pytest.mark.parametrize(
    ("rows", "column"),
    [
        ([{"text": row, "words": text} for row, text in enumerate(TEXTS)], "words"),  # called so, but numbers
        ([{"text": f"{row:032x}", "words": text} for row, text in enumerate(TEXTS)], "words"),  # or hashes
        ([{"other": 3 * text, "content": text} for text in TEXTS], "content"),  # the name decides between texts
        ([{"short": text[-12:], "long": text} for text in TEXTS], "long"),  # and without one the length
        ([{"tweet": text} for text in ("yes", "no", "so") * 20], "tweet"),
        ([{"premise": text, "hypothesis": text} for text in TEXTS], "premise"),
    ],
)
def test_guess_goes_by_values_and_names(
    rows: list[dict[str, Any]], column: str, tmp_path: Path, write: Callable[..., dict[str, Any]]
) -> None:
    write_jsonl(tmp_path / "in.jsonl", rows)
    found = write(tmp_path / "in.jsonl")
    assert found["text_column"] == column
    assert found["pair"] == (["premise", "hypothesis"] if column == "premise" else None)


def test_columns_that_labeling_would_add_get_other_names(tmp_path: Path, write: Callable[..., dict[str, Any]]) -> None:
    names = ("label", "score", "labels", "source_file", "predicted_label")
    write_jsonl(tmp_path / "in.jsonl", [{"text": text, **dict.fromkeys(names, "x")} for text in TEXTS])
    found = write(tmp_path / "in.jsonl")
    assert found["renamed"] == {
        "label_name": "predicted_label_2",
        "score_column": "predicted_score",
        "labels_column": "predicted_labels",
        "source_file_column": "job_source_file",
    }
    assert "label-corpus evaluate job.yaml --truth label" in Path("job.yaml").read_text()
    assert write(tmp_path / "in.jsonl", "output.columns=none", force=True)["renamed"] == {}
    assert write(tmp_path / "in.jsonl", "output.label_name=mine", force=True)["renamed"].get("label_name") is None


def test_other_delimiter_is_found(tmp_path: Path, write: Callable[..., dict[str, Any]]) -> None:
    write_bytes(tmp_path / "in.csv", separated(ROWS, ";"))
    assert write(tmp_path / "in.csv")["text_column"] == "body"
    assert load_job("job.yaml").input.delimiter == ";"


def test_without_texts_the_columns_are_named(tmp_path: Path, model: Path) -> None:
    write_jsonl(tmp_path / "in.jsonl", [{"id": row["id"], "url": row["url"], "year": row["year"]} for row in ROWS])
    with pytest.raises(UserError) as caught:
        init(str(tmp_path / "in.jsonl"), "job.yaml", str(model))
    for said in ("'id'", "'url' (URLs)", "'year' (int64)", "input.text_column=NAME"):
        assert said in str(caught.value)
    assert not Path("job.yaml").exists()
    assert init(str(tmp_path / "in.jsonl"), "job.yaml", str(model), overrides=["input.text_column=url"])["text_column"] == "url"


def test_settings_that_are_commented_out_are_the_defaults(tmp_path: Path, write: Callable[..., dict[str, Any]]) -> None:
    write_jsonl(tmp_path / "in.jsonl", ROWS)
    write(tmp_path / "in.jsonl")
    text = Path("job.yaml").read_text()
    every = re.sub(r"^( *)# (\w+:)", r"\1\2", text, flags=re.MULTILINE)
    assert len(yaml.safe_load(every)["compute"]) >= 4
    Path("every.yaml").write_text(every)
    assert load_job("every.yaml") == load_job("job.yaml")


def test_output_is_never_inside_the_input(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jsonl(tmp_path / "reviews" / "deep" / "in.jsonl", ROWS)
    for here in ("reviews", "reviews/deep"):
        monkeypatch.chdir(tmp_path / here)
        for source in (str(tmp_path / "reviews"), f"{tmp_path}/reviews/*/*.jsonl"):
            init(source, "job.yaml", str(model), force=True)
            assert plan(load_job("job.yaml"))["output"] == str(tmp_path / "reviews-labeled")
            Path("job.yaml").unlink()


def test_sample_of_many_and_large_files_is_bounded(tmp_path: Path, model: Path) -> None:
    line = json.dumps({"text": "a line of a text that is repeated"}).encode() + b"\n"
    for name in range(40):
        write_bytes(tmp_path / "in" / f"{name}.jsonl", line * 100_000)
    found = init(str(tmp_path / "in"), "job.yaml", str(model))
    assert found["documents_counted"] is False
    assert found["documents_estimate"] == pytest.approx(4_000_000, rel=0.01)


def test_file_whose_first_record_has_no_end_is_named(tmp_path: Path, model: Path) -> None:
    source = write_bytes(tmp_path / "in" / "a.jsonl", b'["' + b"a" * (corpus_profile.MAX_FIRST_RECORD_BYTES + 2**20) + b'"]')
    finished = command("init", source.parent, "--model", model)
    assert (finished.code, len(finished.error_lines)) == (2, 1), finished.stderr
    assert "a.jsonl" in finished.error_lines[0]
    assert "has no end within" in finished.error_lines[0]


def test_small_file_of_very_short_lines_is_counted(tmp_path: Path, model: Path) -> None:
    lines = write_bytes(tmp_path / "in" / "a.txt", b"a\n" * 400_000)
    found = init(str(lines), "job.yaml", str(model))
    assert (found["documents_counted"], found["documents_estimate"]) == (True, 400_000)


def test_command_writes_once_and_says_what_is_next(tmp_path: Path, model: Path) -> None:
    source = write_jsonl(tmp_path / "a b.jsonl", ROWS)
    finished = command("init", source, "--model", model, "--job", "my job.yaml", "compute.classifiers=1")
    assert finished.code == 0, finished.stderr
    assert finished.result["job"] == "my job.yaml"
    assert finished.result["labels"] == ["NEGATIVE", "POSITIVE"]
    assert "label-corpus run 'my job.yaml'" in finished.stderr
    assert load_job("my job.yaml").compute.classifiers == 1
    before = Path("my job.yaml").read_text()
    again = command("init", source, "--job", "my job.yaml")
    assert (again.code, len(again.error_lines), again.stdout) == (2, 1, "")
    assert Path("my job.yaml").read_text() == before
    assert command("init", source, "--job", "my job.yaml", "--force").code == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "."}, "config.json"),
        ({"job_file": "no/such/folder/job.yaml"}, "--job: 'no/such/folder/job.yaml'"),
        ({"overrides": ["input.text_colum=a"]}, "did you mean input.text_column?"),
        ({"path": "nowhere"}, "input.path"),
    ],
)
def test_mistakes_are_one_line(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in.jsonl", ROWS)
    with pytest.raises(UserError) as caught:
        init(**{"path": str(tmp_path / "in.jsonl"), "job_file": "job.yaml", "model": "some/model", **options})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
