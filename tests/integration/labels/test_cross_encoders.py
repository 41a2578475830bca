"""Rerankers: pairs, one logit, and the activation that sentence-transformers has saved."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import pipeline

from jobs.run.plan import plan
from pipeline_ops.schema.errors import UserError
from tests.models.folders import change_json
from tests.models.tiny import make_model
from tests.support.corpora import real_documents, write_jsonl
from tests.support.invariant import check_exactly_once
from tests.support.running import keys, make_job
from tests.support.serial_chain import run_serially

NUM_DOCUMENTS = 60


@pytest.mark.slow
def test_reranker_with_identity_gives_logits_and_an_earlier_output_keeps_its_sigmoid(tmp_path: Path) -> None:
    texts = [text[:300] for text in real_documents(3 * NUM_DOCUMENTS) if text][: 2 * NUM_DOCUMENTS]
    rows = [{"text": query, "passage": passage} for query, passage in zip(texts[::2], texts[1::2], strict=True)]
    source = write_jsonl(tmp_path / "in" / "pairs.jsonl", rows)
    model = make_model(tmp_path / "model", labels=["relevance"], texts=texts)

    def job(output: str, *overrides: str):
        pairs = ("input.text_pair_column=passage", "model.dtype=float32", *overrides)
        return make_job(tmp_path / "in", model, tmp_path / output, *pairs)

    run_serially(job("before"), quiet=True)  # as an earlier version: nothing is saved yet
    change_json(model / "config.json", sentence_transformers={"activation_fn": "torch.nn.modules.linear.Identity"})
    run_serially(job("now"), quiet=True)
    labeled, _ = check_exactly_once(tmp_path / "now", keys(source, NUM_DOCUMENTS))
    torch.set_num_threads(1)
    classify: Any = pipeline("text-classification", model=str(model), device="cpu", dtype=torch.float32)
    inputs = [{"text": row["text"], "text_pair": row["passage"]} for row in rows]
    expected = [classify(pair, truncation=True, function_to_apply="none")["score"] for pair in inputs]
    np.testing.assert_allclose(labeled.sort_by("source_row")["score"], expected, rtol=0, atol=1e-5)
    assert plan(job("now"))["settings"]["activation"]["value"] == "none"
    assert "sentence-transformers" in plan(job("now"))["settings"]["activation"]["from"]
    kept = r"model\.activation \(was 'sigmoid', is 'none'\); restore them \(model\.activation: sigmoid\)"
    with pytest.raises(UserError, match=kept):
        run_serially(job("before"), quiet=True)
    assert run_serially(job("before", "model.activation=sigmoid"), quiet=True).complete
