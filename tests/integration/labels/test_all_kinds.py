"""Each kind of sequence classifier in transformers that reads text: labels and scores are the pipeline's, or it is refused.

Kinds come from transformers' own table, so a newer version brings its new ones. One that is neither equal nor, with its reason,
in a table of the product fails here: then it belongs into one, or the product has to be mended.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import CONFIG_MAPPING

from pipeline_ops.models.padding_side import DEPENDS_ON_PADDING
from pipeline_ops.models.resolve import REFUSED_KINDS
from pipeline_ops.models.tokenizer import positions_of
from pipeline_ops.schema.errors import UserError
from tests.models.all_kinds import KINDS, LABELS, TEXTS, make_kind, table_of_kinds
from tests.models.folders import facts_of
from tests.support import REPOSITORY
from tests.support.corpora import write_jsonl
from tests.support.invariant import check_exactly_once
from tests.support.reference_answers import Answers, check_answers, pipeline_of, said_window_by_window
from tests.support.running import keys, make_job
from tests.support.serial_chain import run_serially

pytestmark = pytest.mark.slow

MAX_LENGTH = 64  # of kinds without a table of positions
STRIDE = 8
PAIRS = TEXTS[7:] + TEXTS[:7]
SHARE_ANSWERED = 0.7  # of the documents; transformers itself raises for the shortest texts of models that join tokens


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in REFUSED_KINDS])
def test_answers_of_a_kind_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    """Texts and pairs; windows where the end of each is what the head reads."""
    model = tmp_path / "model"
    config = make_kind(model, kind)
    rows = [{"text": text, "other": other} for text, other in zip(TEXTS, PAIRS, strict=True)]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    settings = ["output.scores=true", *([] if positions_of(config) else [f"model.max_length={MAX_LENGTH}"])]

    def check(expected: list[Answers | None], *more: str) -> None:
        """What transformers itself raises on is rejected."""
        output = tmp_path / f"out {len(more)}"
        result = run_serially(make_job(source, model, output, *settings, *more), quiet=True)
        labeled, rejects = check_exactly_once(output, keys(source, len(TEXTS)))
        assert [reject["source_row"] for reject in rejects] == [row for row, said in enumerate(expected) if said is None]
        check_answers(labeled.sort_by("source_row"), [said for said in expected if said is not None], LABELS)
        assert labeled.num_rows > SHARE_ANSWERED * len(TEXTS)
        assert len({*labeled["label"].to_pylist()}) > 1
        if not rejects:  # their tokens count as padding
            assert (result.padding_share == 0) == (kind in DEPENDS_ON_PADDING)

    max_length = positions_of(config) or MAX_LENGTH
    classify = pipeline_of(model, max_length=max_length)
    check([_said(classify, text) for text in TEXTS])
    pairs = [{"text": text, "text_pair": other} for text, other in zip(TEXTS, PAIRS, strict=True)]
    check([_said(classify, pair) for pair in pairs], "input.text_pair_column=other")
    if config.is_encoder_decoder:
        said = said_window_by_window(model, [(text,) for text in TEXTS], "logits", max_length=max_length, stride=STRIDE)
        check([*said], "model.long_documents=windows", f"model.stride={STRIDE}")


def _said(classify: Callable[[list[Any]], list[Answers]], document: Any) -> Answers | None:
    try:
        return classify([document])[0]
    except RuntimeError:  # a shape that its layers cannot have
        return None


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind in REFUSED_KINDS])
def test_kind_that_cannot_label_texts_is_refused(kind: str, model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    CONFIG_MAPPING[kind]().save_pretrained(folder)
    with pytest.raises(UserError, match=f"is a {kind} model, which"):
        facts_of(folder)


def test_table_in_readme_is_the_one_of_this_version_of_transformers() -> None:
    assert table_of_kinds() in (REPOSITORY / "pipeline_ops" / "README.md").read_text(encoding="utf-8")
