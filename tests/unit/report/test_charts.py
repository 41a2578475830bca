"""Pictures of a report: text stays text in any script, names cannot be markup or formulas, colors are the page's."""

import re
import warnings
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from jobs.report import charts
from pipeline_ops.output.run_records import Point

NAMES = {
    "积极": 5,
    "<b>bold</b>": 4,
    "$x^2$ & more": 3,
    "a name that is far too long for a picture of labels": 2,
    "नकारात्मक": 1,
}


def texts_of(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")]


def test_names_in_any_script_stay_text_and_nobody_is_warned() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = charts.bars(NAMES, 'documents by "label" & <more>')
    texts = texts_of(svg)
    for name in ("积极", "<b>bold</b>", "$x^2$ & more", "नकारात्मक"):
        assert name in texts
    assert any(text.startswith("a name that is far") and text.endswith("…") for text in texts)
    assert "5 · 33.3%" in texts


def test_more_labels_than_bars_are_counted_as_one() -> None:
    texts = texts_of(charts.bars({f"label {number}": 100 - number for number in range(60)}, "many"))
    assert "36 others" in texts
    assert sum(text.startswith("label ") for text in texts) == charts.BARS


@pytest.mark.parametrize("count", [1, 12])
def test_every_color_of_a_picture_is_a_variable_of_the_page(count: int) -> None:
    draw = np.random.default_rng(0)
    scores, weights = draw.random(200), np.ones(200)
    drawn = [
        charts.score_histograms({f"{n}": (scores, weights) for n in range(count)}, (0, 1), "scores"),
        charts.certainty_curve(scores[:count], weights[:count], "certainty"),
        charts.token_lengths(np.full(count, 7), weights[:count], 8, "lengths"),
        charts.throughput([Point(float(n), 10 * n, 0, n) for n in range(count + 2)], "throughput"),
        charts.stacked({"classifiers": {"waiting": 1.0, "computing": 3.0}}, "time"),
    ]
    for svg in drawn:
        assert ElementTree.fromstring(svg).get("aria-label")
        assert set(re.findall(r"#[0-9a-fA-F]{6}\b", svg)) == set()
        assert "var(--accent)" in svg


def test_ids_of_two_pictures_on_a_page_differ() -> None:
    first, second = (charts.bars({"a": 1, "b": 2}, what) for what in ("one", "other"))
    ids = [set(re.findall(r'id="([^"]+)"', svg)) for svg in (first, second)]
    assert not ids[0] & ids[1]
