"""Text in any script and of any characters: labeled as transformers does it, or rejected with a reason; never a crash."""

import json
import random
import unicodedata
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoTokenizer, pipeline

from pipeline_ops.tokenizing.encoding import truncating_backend
from pipeline_ops.tokenizing.sequences import TextEncoder
from pipeline_ops.tokenizing.windows import Windows
from tests.models.architectures import make_classifier
from tests.support.corpora import EDGE_CASES, write_bytes, write_csv, write_parquet
from tests.support.invariant import check_exactly_once
from tests.support.running import keys, make_job
from tests.support.serial_chain import run_serially

TOLERANCE = 1e-5
MAX_LENGTH = 64
TOKENIZERS = ("BERT", "RoBERTa", "XLM-RoBERTa", "DeBERTa-v3", "ModernBERT", "Llama, padded right")  # one of each kind
SCRIPTS = (
    *(
        "LATIN",
        "GREEK",
        "CYRILLIC",
        "ARMENIAN",
        "HEBREW",
        "ARABIC",
        "SYRIAC",
        "THAANA",
        "NKO",
        "DEVANAGARI",
        "BENGALI",
        "GURMUKHI",
    ),
    *(
        "GUJARATI",
        "ORIYA",
        "TAMIL",
        "TELUGU",
        "KANNADA",
        "MALAYALAM",
        "SINHALA",
        "THAI",
        "LAO",
        "TIBETAN",
        "MYANMAR",
        "GEORGIAN",
    ),
    *("HANGUL", "ETHIOPIC", "CHEROKEE", "CANADIAN SYLLABICS", "OGHAM", "RUNIC", "KHMER", "MONGOLIAN", "HIRAGANA", "KATAKANA"),
    *("BOPOMOFO", "YI", "TIFINAGH", "COPTIC", "GOTHIC", "CUNEIFORM", "EGYPTIAN HIEROGLYPH", "ADLAM", "OSAGE", "MATHEMATICAL"),
)


@cache
def letters() -> dict[str, list[str]]:
    """The letters of each script, and its marks and digits."""
    found: dict[str, list[str]] = {script: [] for script in SCRIPTS}
    for character in map(chr, range(0x20000)):
        if unicodedata.category(character)[0] in "LMN":
            name = unicodedata.name(character, "")
            for script in SCRIPTS:
                if name.startswith(f"{script} "):
                    found[script].append(character)
    return found


def words_of(script: str, rng: random.Random) -> str:
    return " ".join("".join(rng.choices(letters()[script], k=rng.randrange(1, 12))) for _ in range(rng.randrange(3, 60)))


def texts() -> list[str]:
    rng = random.Random(4)
    ideographs = "".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(300))
    strange = [
        "\u202bמימין לשמאל\u202c and \u2067العربية\u2069 back",
        "zero\u200bwidth\u200cnon\u200djoiner\u2060word\ufeffmark\u00adsoft",
        "👩\u200d👩\u200d👧\u200d👦 👍🏽 🏳️\u200d🌈 🇺🇦 1️⃣ ☺︎ ☺️ \U0001faf1🏻\u200d\U0001faf2🏿",
        "n\u0303\u0303\u0303" + "o\u0338\u0337\u0336" * 40 + " zalgo",
        "nul\x00byte \x00\x00 and \x01\x02\x1b[31m\x7f\x80\x9f controls",
        "\ufffd\ufffe\uffff\U0001ffff\U0010ffff not characters",
        "\ue000\uf8ff\U000f0000 private",
        "ﷺ ﷽ ﬃ Ǆ ㎏ ½ Ⅷ ㍿ 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ＦＵＬＬ ﾊﾝｶｸ",
        "İIıi ßẞ ŉ ǰ ΐ ΰ ς σ Σ ﬆ",
        "[CLS] [SEP] [PAD] <s> </s> <pad> <mask> [MASK] <|endoftext|> ##ing ▁▁ Ġ",
        ideographs,
        "한국어 띄어쓰기 \u1112\u1161\u11ab\u1100\u1173\u11af",
        "\r\n\t\v\f\x85\u2028\u2029\u00a0\u3000",
    ]
    return [*(words_of(script, rng) for script in SCRIPTS), *strange, *EDGE_CASES]


def long_lines() -> list[str]:
    """Documents of a megabyte on a single line."""
    rng = random.Random(5)
    return [
        "word " * 200_000,
        "x" * 1_000_000,
        "".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(350_000)),
        "🤗" * 250_000,
        "\u200b" * 300_000 + "end",
        "[SEP]" * 200_000,
    ]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_classifier(tmp_path_factory.mktemp("languages") / "model", "XLM-RoBERTa", ("A", "B"), MAX_LENGTH)


@pytest.fixture(scope="module")
def given() -> list[str]:
    return [*texts(), *long_lines()]


@pytest.fixture(scope="module")
def expected(classifier: Path, given: list[str]) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    classify = pipeline("text-classification", model=str(classifier), device="cpu", dtype=torch.float32)
    return classify(given, truncation=True, batch_size=1)


def write_as_jsonl(path: Path, documents: list[str]) -> Path:
    return write_bytes(path, "".join(json.dumps({"text": text}) + "\n" for text in documents).encode())


WRITERS: dict[str, Callable[[Path, list[str]], Path]] = {
    "jsonl": write_as_jsonl,
    "csv": lambda path, documents: write_csv(path, [{"text": text} for text in documents]),
    "parquet": lambda path, documents: write_parquet(path, pa.table({"text": documents})),
}


@pytest.mark.slow
@pytest.mark.parametrize("file_format", WRITERS)
def test_documents_in_any_script_are_labeled_as_the_pipeline_does(
    file_format: str, classifier: Path, given: list[str], expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    source = WRITERS[file_format](tmp_path / f"in.{file_format}", given)
    run_serially(make_job(source, classifier, tmp_path / "out"), quiet=True)
    table, rejects = check_exactly_once(tmp_path / "out", keys(source, len(given)))
    assert rejects == []
    table = table.sort_by("source_row")
    assert table["text"].to_pylist() == given
    assert table["label"].to_pylist() == [answer["label"] for answer in expected]
    np.testing.assert_allclose(table["score"], [answer["score"] for answer in expected], rtol=0, atol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", TOKENIZERS)
def test_ids_of_any_text_are_those_of_transformers(architecture: str, tmp_path: Path) -> None:
    given = [*texts(), *(text[:50_000] for text in long_lines())]
    folder = make_classifier(tmp_path / "model", architecture, ("A", "B"), MAX_LENGTH)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with_type_ids = "token_type_ids" in tokenizer.model_input_names
    shuffled = random.Random(6).sample(given, len(given))
    cut = tokenizer(given, truncation=True)["input_ids"]
    # an empty second text is none for transformers, if it is given alone
    short, short_others = ([text[:3000] or "a" for text in column] for column in (given, shuffled))
    pairs = tokenizer(short, short_others, truncation=True)["input_ids"]
    windows = [
        tokenizer(text, truncation=True, stride=5, return_overflowing_tokens=True, padding=False)["input_ids"] for text in short
    ]
    definition = truncating_backend(tokenizer, MAX_LENGTH).to_str()
    single = TextEncoder(definition, with_type_ids=with_type_ids)
    assert rows_of(single.encode([given])) == cut
    paired = TextEncoder(definition, with_type_ids=with_type_ids, pairs=True)
    assert rows_of(paired.encode([short, short_others])) == pairs
    windowed = TextEncoder(definition, with_type_ids=with_type_ids, windows=Windows(5, None, "mean", "logits"))
    assert rows_of(windowed.encode([short])) == [ids for rows in windows for ids in rows]


def rows_of(encodings: Any) -> list[list[int]]:
    ends = np.cumsum(encodings.lengths)
    return [encodings.ids[stop - count : stop].tolist() for stop, count in zip(ends, encodings.lengths, strict=True)]


@pytest.mark.slow
def test_long_lines_are_labeled_in_windows_and_in_pairs(classifier: Path, tmp_path: Path) -> None:
    long = long_lines()
    rows = [{"text": text, "other": other} for text, other in zip(long, long[::-1], strict=True)]
    source = write_bytes(tmp_path / "in.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    windows = ("model.long_documents=windows", "model.stride=8", "model.max_windows=50")
    for name, settings in {"windows": windows, "pairs": ("input.text_pair_column=other",)}.items():
        run_serially(make_job(source, classifier, tmp_path / name, *settings), quiet=True)
        table, rejects = check_exactly_once(tmp_path / name, keys(source, len(long)))
        assert (table.num_rows, rejects) == (len(long), [])


def test_texts_that_are_no_unicode_are_rejected_with_a_reason(classifier: Path, tmp_path: Path) -> None:
    lines = [
        (rb'{"text": "half a pair: \ud800"}', "undecodable"),
        (rb'{"text": "fine: \ud83e\udd17"}', None),
        (rb'{"text": "the other half: \udc00 and more"}', "undecodable"),
        (b'{"text": "bytes: \xff\xfe"}', "undecodable"),
        (b'{"text": "a surrogate as bytes: \xed\xa0\x80"}', "undecodable"),
        (b'{"text": "cut off: \xe2\x82"}', "undecodable"),
        (rb'{"text": "an escaped \u0000 is text"}', None),
        (b'{"text": "a bare \x00 is no JSON"}', "broken_json"),
    ]
    source = write_bytes(tmp_path / "in" / "a.jsonl", b"\n".join(line for line, _ in lines))
    run_serially(make_job(source, classifier, tmp_path / "out"), quiet=True)
    table, rejects = check_exactly_once(tmp_path / "out", keys(source, len(lines)))
    assert sorted(table["source_row"].to_pylist()) == [row for row, (_, reason) in enumerate(lines) if reason is None]
    found = {reject["source_row"]: reject["reason"] for reject in rejects}
    assert found == {row: reason for row, (_, reason) in enumerate(lines) if reason is not None}
