"""Each kind of classifier in bfloat16, the default of GPUs and of newer CPUs: labels are nearly always those of float32."""

from pathlib import Path

import pytest

from pipeline_ops.models.resolve import FLOAT32_KINDS, REFUSED_KINDS
from pipeline_ops.models.tokenizer import positions_of
from tests.models.all_kinds import KINDS, TEXTS, make_kind
from tests.support.corpora import write_jsonl
from tests.support.invariant import check_exactly_once
from tests.support.running import keys, make_job
from tests.support.serial_chain import run_serially

pytestmark = pytest.mark.campaign

MAX_LENGTH = 64  # of kinds without a table of positions
SHARE_OF_LABELS = 0.9  # of 73 texts; tiny models with random weights have close scores


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in REFUSED_KINDS and kind not in FLOAT32_KINDS])
def test_labels_in_bfloat16_are_those_of_float32(kind: str, tmp_path: Path) -> None:
    config = make_kind(tmp_path / "model", kind)
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in TEXTS])
    length = [] if positions_of(config) else [f"model.max_length={MAX_LENGTH}"]
    labels: list[dict[int, str]] = []
    for dtype in ("float32", "bfloat16"):
        job = make_job(source, tmp_path / "model", tmp_path / dtype, *length, f"model.dtype={dtype}")
        run_serially(job, quiet=True)
        labeled, _ = check_exactly_once(tmp_path / dtype, keys(source, len(TEXTS)))
        labels.append(dict(zip(labeled["source_row"].to_pylist(), labeled["label"].to_pylist(), strict=True)))
    exact, rounded = labels
    assert exact.keys() == rounded.keys()
    assert sum(exact[row] == rounded[row] for row in exact) >= SHARE_OF_LABELS * len(exact)
