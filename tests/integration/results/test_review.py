"""The page of a review in a browser: labeled by keys, kept by the browser, exported, and it fits the screen."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from jobs.reviewing.review import review
from jobs.reviewing.sampling import Request
from pipeline_ops.models.heads import Head
from pipeline_ops.reviewing.corrections import read_corrections
from pipeline_ops.schema.review_format import JSON_KEYS
from pipeline_ops.storage.config import StorageConfig
from tests.support.compared_outputs import MadeOutput, spread_logits
from tests.support.corpora import real_documents, write_jsonl
from tests.support.labeled_units import whole
from tests.support.running import command, make_job
from tests.support.serial_chain import run_serially

pytestmark = pytest.mark.slow
DOCUMENTS = 30
FEW = ("</script><b>no</b>", "yes", "maybe")
MANY = tuple(f"topic_{number:02}" for number in range(77))


@dataclass(frozen=True)
class Page:
    """An open page that complains of nothing."""

    view: Any
    complaints: list[str]
    path: Path

    def press(self, *keys: str) -> None:
        for key in keys:
            self.view.keyboard.press(key)

    def text(self, id: str) -> str:
        return self.view.locator(f"#{id}").inner_text()

    def export(self) -> list[dict[str, Any]]:
        with self.view.expect_download() as download:
            self.view.locator("#export").click()
        assert download.value.suggested_filename == "r.jsonl"
        return [json.loads(line) for line in Path(download.value.path()).read_text().splitlines()]


def opened(browser: Any, path: Path, **context: Any) -> Page:
    view = browser.new_context(**context).new_page()
    complaints: list[str] = []
    view.on("console", lambda message: complaints.append(message.text))
    view.on("pageerror", lambda error: complaints.append(str(error)))
    view.on(
        "request",
        lambda request: complaints.extend([] if request.url.startswith(("file:", "data:", "blob:")) else [request.url]),
    )
    view.goto(path.as_uri())
    return Page(view, complaints, path)


def reviewed(folder: Path, head: Head, **output: Any) -> tuple[Path, list[dict[str, Any]]]:
    """(The page, its documents) of all documents of an output."""
    made = MadeOutput(folder / "out", head, spread_logits(len(head.labels), 0), **output)
    made.add(whole("/in/a", DOCUMENTS))
    review(made.opened(), Request(uncertain=10, random=DOCUMENTS), str(folder / "r.html"), quiet=True)
    facts = re.findall(r'id="facts">(.*?)</script>', (folder / "r.html").read_text(), re.DOTALL)[0]
    return folder / "r.html", json.loads(facts)["reviewed"]


def test_ten_documents_are_labeled_by_keys_and_exported(browser: Any, tmp_path: Path) -> None:
    path, documents = reviewed(tmp_path, Head(FEW, "softmax"), scores=True)
    page = opened(browser, path)
    page.press("Enter", "2", "Space", "s", "3", "u", "1", "Enter", "2", "3", "Enter", "Enter", "1")
    answers = [None, "yes", None, "skip", FEW[0], None, "yes", "maybe", None, None, FEW[0]]
    expected = {
        one["row"]: one["predicted"] if answer is None else answer
        for one, answer in zip(documents, answers, strict=False)
        if answer != "skip"
    }
    assert page.text("count") == f"10 of {DOCUMENTS} reviewed"
    assert page.text("place") == f"Document 12 of {DOCUMENTS}"
    lines = page.export()
    assert {line["source_row"]: line["label"] for line in lines} == expected
    predicted = {one["row"]: (one["predicted"], one["score"], one["texts"][0]) for one in documents}
    for line in lines:
        assert tuple(line) == tuple(key for key in JSON_KEYS if key != "text_pair")
        assert (line["predicted"], line["score"], line["text"]) == predicted[line["source_row"]]
        stratum = {"uncertain": (10, 10), "random": (DOCUMENTS - 10, DOCUMENTS - 10)}[line["stratum"]]
        assert (line["stratum_documents"], line["stratum_sampled"], line["documents"]) == (*stratum, DOCUMENTS)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", line["reviewed_at"])
    saved = tmp_path / "saved.jsonl"
    saved.write_text("".join(json.dumps(line) + "\n" for line in lines))
    read = read_corrections([str(saved)], StorageConfig(), "input.corrections")
    assert {one.source: one.label for one in read} == {("/in/a", row): label for row, label in expected.items()}
    page.view.reload()
    assert (page.text("count"), page.text("place")) == (f"10 of {DOCUMENTS} reviewed", f"Document 12 of {DOCUMENTS}")
    assert page.export() == lines
    page.press("ArrowLeft", "ArrowLeft", "2")  # another answer for a document that has one
    assert page.text("count") == f"10 of {DOCUMENTS} reviewed"
    assert [line["label"] for line in page.export() if line["source_row"] == documents[9]["row"]] == ["yes"]
    assert page.view.title() != "taken over"
    assert page.complaints == []


def test_export_of_one_browser_is_taken_by_another(browser: Any, tmp_path: Path) -> None:
    path, _ = reviewed(tmp_path, Head(FEW, "softmax"))
    page = opened(browser, path)
    page.press("1", "2", "3")
    lines = page.export()
    saved = tmp_path / "earlier.jsonl"
    other = {**lines[0], "sample": "review-of-others"}
    saved.write_text("".join(json.dumps(line) + "\n" for line in [*lines, other]) + "no JSON\n")
    again = opened(browser, path)
    again.press("ArrowRight")
    again.view.locator("#file").set_input_files(saved)
    again.view.get_by_text(re.compile("3 imported; 2 lines are of another review")).first.wait_for()
    assert again.export() == lines
    assert page.complaints + again.complaints == []


def test_label_of_many_is_found_by_its_name_without_the_keys_of_the_page(browser: Any, tmp_path: Path) -> None:
    path, documents = reviewed(tmp_path, Head(MANY, "softmax"), scores=True)
    page = opened(browser, path)
    page.press("/")
    page.view.keyboard.type("us topic 76")  # neither undo nor skip, and no digit chooses
    assert page.view.locator("#found li").count() == 0
    page.view.locator("#filter").fill("")
    page.view.keyboard.type("topic 7")
    page.press("ArrowDown", "ArrowDown", "Enter")
    page.press("2", "Enter", "/")
    assert page.view.locator("#filter").get_attribute("aria-expanded") == "true"
    page.view.get_by_role("option", name="topic_05").click()
    best = [one["top"] for one in documents]
    expected = ["topic_72", best[1][1][0], documents[2]["predicted"], "topic_05"]
    by_row = {line["source_row"]: line["label"] for line in page.export()}
    assert [by_row[one["row"]] for one in documents[:4]] == expected
    assert len(by_row) == 4
    assert not page.view.locator("#found").is_visible()
    assert page.complaints == []


def test_labels_of_a_multi_label_head_are_marked_and_confirmed(browser: Any, tmp_path: Path) -> None:
    path, documents = reviewed(tmp_path, Head(FEW, "sigmoid", "multi_label", (0.5, 0.5, 0.5)))
    page = opened(browser, path)
    page.press("2", "Enter", "Enter", "1", "1", "Enter")
    toggled = {*documents[0]["predicted"]} ^ {"yes"}
    labels = {line["source_row"]: line["label"] for line in page.export()}
    assert {row: {*given} for row, given in labels.items()} == {
        documents[0]["row"]: toggled,
        documents[1]["row"]: {*documents[1]["predicted"]},
        documents[2]["row"]: {*documents[2]["predicted"]},
    }
    assert page.complaints == []


def test_pairs_on_which_two_models_of_an_output_disagree_are_shown_with_both_texts(
    browser: Any, model: Path, tmp_path: Path
) -> None:
    texts = real_documents(80)
    source = write_jsonl(tmp_path / "in.jsonl", [{"first": one, "second": f"{row} words"} for row, one in enumerate(texts)])
    columns = ("input.text_column=first", "input.text_pair_column=second", "output.partition_by=[]")
    job = make_job(source, model, tmp_path / "out", *columns)
    models = [
        {"name": name, "path": str(model), "dtype": "float32", "max_length": size} for name, size in (("one", 64), ("two", 8))
    ]
    run_serially({**job.model_dump(mode="json"), "model": None, "models": models}, quiet=True)
    options = ["--disagreements", tmp_path / "out", "--model", "one", "--model-b", "two", "--output", tmp_path / "r.html"]
    finished = command("review", tmp_path / "out", *options)
    assert finished.code == 0, finished.stderr
    rows = duckdb.execute(f"SELECT * FROM '{tmp_path}/out/*.parquet' WHERE one_label != two_label").fetchdf().to_dict("records")
    assert finished.result["strata"] == {"disagreements": {"documents": len(rows), "sampled": len(rows)}}
    page = opened(browser, tmp_path / "r.html")
    assert page.view.locator("#texts h3").all_inner_texts() == ["first", "second"]
    page.press(*["Enter"] * len(rows))
    keys = ("source_row", "text", "text_pair", "label", "model")
    assert sorted(tuple(line[key] for key in keys) for line in page.export()) == sorted(
        (row["source_row"], row["first"], row["second"], row["one_label"], "one") for row in rows
    )
    assert page.complaints == []


def test_button_in_focus_is_pressed_by_enter_once_and_then_the_keys_are_the_page_s(browser: Any, tmp_path: Path) -> None:
    path, documents = reviewed(tmp_path, Head(FEW, "softmax"))
    page = opened(browser, path)
    page.view.locator("#choices button").nth(1).focus()
    page.press("Enter", "Enter")
    by_row = {line["source_row"]: line["label"] for line in page.export()}
    assert by_row == {documents[0]["row"]: "yes", documents[1]["row"]: documents[1]["predicted"]}
    page.view.locator("summary").click()
    page.view.locator("#shortcuts").uncheck()
    page.press("1", "s", "Escape")
    assert page.text("count") == f"2 of {DOCUMENTS} reviewed"
    assert "aria-live" in page.view.locator("#live").evaluate("node => node.outerHTML")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("labels", [FEW, MANY])
def test_page_fits_the_screen_in_both_schemes_and_text_stands_out(
    browser: Any, tmp_path: Path, scheme: str, width: int, labels: tuple[str, ...]
) -> None:
    path, _ = reviewed(tmp_path, Head(labels, "softmax"), scores=True)
    page = opened(browser, path, color_scheme=scheme, viewport={"width": width, "height": 850})
    page.press("Enter", "ArrowLeft")
    assert page.view.evaluate("document.documentElement.scrollWidth") <= width
    for selector in ("#texts p", "#choices .label", "#skip"):
        box = page.view.locator(selector).first.bounding_box()
        assert box["y"] + box["height"] <= 850, selector
    for selector in ("#texts p", "#source", "#choices .chosen", "#choices .number", "#count", "#left", "#skip"):
        assert page.view.locator(selector).first.evaluate(CONTRAST) >= 4.5, selector
    assert page.complaints == []


# WCAG 2.2, 1.4.3: the contrast of an element's text with the first background behind it that is opaque
CONTRAST = """element => {
  const numbers = color => color.match(/[\\d.]+/g).map(Number);
  const luminance = color => numbers(color).slice(0, 3).map(value => value / 255)
    .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, place) => sum + value * [0.2126, 0.7152, 0.0722][place], 0);
  let behind = element;
  while (numbers(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
  const colors = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor];
  const [low, high] = colors.map(luminance).sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}"""


def test_page_of_two_thousand_documents_answers_at_once(browser: Any, tmp_path: Path) -> None:
    made = MadeOutput(tmp_path / "out", Head(MANY, "softmax"), spread_logits(len(MANY), 0), scores=True)
    made.add(whole("/in/a", 2000))
    review(made.opened(), Request(random=2000), str(tmp_path / "r.html"), quiet=True)
    page = opened(browser, tmp_path / "r.html")
    milliseconds = page.view.evaluate("""() => {
      const press = () => document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true }));
      const started = performance.now();
      for (let count = 0; count < 200; count += 1) press();
      return performance.now() - started;
    }""")
    assert page.text("count") == "200 of 2,000 reviewed"
    assert milliseconds / 200 < 100  # what a person takes for immediate; a few where nothing else runs


def test_end_of_a_review_says_how_often_the_prediction_was_right(browser: Any, tmp_path: Path) -> None:
    path, documents = reviewed(tmp_path, Head(FEW, "softmax"))
    page = opened(browser, path)
    page.press("s", *(["Enter"] * (DOCUMENTS - 2)), "2")
    right = DOCUMENTS - 2 + (documents[-1]["predicted"] == "yes")
    assert page.text("done").startswith(
        f"All documents are reviewed or skipped. The prediction was right in {right} of {DOCUMENTS - 1}."
    )
    page.view.locator("#skipped").click()
    assert (page.text("place"), page.text("status")) == (f"Document 1 of {DOCUMENTS}", "skipped")
    assert len(page.export()) == DOCUMENTS - 1
