"""Batches hold every token once, sorted by length, under the token budget."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from transformers import AutoTokenizer

from pipeline_ops.tokenizing.batching import (
    PASS_COST,
    TokenBatches,
    attention_mask,
    batches_from_columns,
    batches_to_columns,
    make_batches,
    without_padding,
)
from pipeline_ops.tokenizing.encoding import Encodings, encode, truncating_backend
from tests.models.tiny import Architecture
from tests.support.corpora import real_documents


def backend(tokenizer: Any) -> Any:
    return truncating_backend(tokenizer, 128)


def random_encodings(seed: int, count: int, longest: int = 100, with_types: bool = True) -> Encodings:
    """Documents of token ids that differ everywhere, so that a token in a wrong place shows."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, longest + 1, count).astype(np.int32)
    total = int(lengths.sum())
    types = rng.integers(0, 2, total).astype(np.int8) if with_types else None
    return Encodings(np.arange(1000, 1000 + total, dtype=np.int32), types, lengths, np.zeros(count, bool))


def unpadded(batches: TokenBatches, flat: np.ndarray, pad_left: bool) -> tuple[list[list[int]], list[int]]:
    """(each document's values, in the unit's row order; all values that stand on padding)."""
    found: list[list[int]] = [[] for _ in batches.order]
    padding: list[int] = []
    position = row = 0
    for count, width in zip(batches.rows.tolist(), batches.widths.tolist(), strict=True):
        block = flat[position : position + count * width].reshape(count, width)
        mask = attention_mask(batches.lengths[row : row + count], width, pad_left)
        for index in range(count):
            found[int(batches.order[row + index])] = block[index][mask[index] == 1].tolist()
            padding += block[index][mask[index] == 0].tolist()
        position, row = position + count * width, row + count
    assert position == len(flat)
    return found, padding


@pytest.mark.parametrize("pad_left", [False, True])
@pytest.mark.parametrize("pad_id", [0, 1, 7])
@pytest.mark.parametrize("seed", range(3))
def test_batches_hold_every_token_once_and_the_pad_id_elsewhere(seed: int, pad_id: int, pad_left: bool) -> None:
    encodings = random_encodings(seed, count=150)
    assert encodings.type_ids is not None
    batches = make_batches(encodings, batch_tokens=500, pad_id=pad_id, pad_type_id=3, pad_left=pad_left)
    found, padding = unpadded(batches, batches.ids, pad_left)
    ends = np.cumsum(encodings.lengths)[:-1]
    assert found == [part.tolist() for part in np.split(encodings.ids, ends)]
    assert set(padding) == {pad_id}
    found_types, type_padding = unpadded(batches, batches.type_ids, pad_left)
    assert found_types == [part.tolist() for part in np.split(encodings.type_ids, ends)]
    assert set(type_padding) == {3}


@pytest.mark.parametrize("batch_tokens", [1, 64, 500, 2048, 10**6])
@pytest.mark.parametrize("max_width", [None, 100])
def test_batches_keep_the_token_budget_and_their_widths(batch_tokens: int, max_width: int | None) -> None:
    encodings = random_encodings(4, count=300)
    batches = make_batches(encodings, batch_tokens=batch_tokens, pad_id=0, max_width=max_width)
    assert int(batches.rows.sum()) == 300
    assert sorted(batches.order.tolist()) == list(range(300))
    np.testing.assert_array_equal(batches.lengths, encodings.lengths[batches.order])
    assert (np.diff(batches.lengths) >= 0).all()
    row = 0
    for count, width in zip(batches.rows.tolist(), batches.widths.tolist(), strict=True):
        longest = int(batches.lengths[row : row + count].max())
        assert count == 1 or count * width <= batch_tokens
        assert width == min(-(-longest // 8) * 8, max_width or 10**9)
        row += count


def test_batches_are_as_large_as_the_budget_allows() -> None:
    lengths = np.full(100, 16, np.int32)
    encodings = Encodings(np.zeros(1600, np.int32), None, lengths, np.zeros(100, bool))
    assert make_batches(encodings, batch_tokens=640, pad_id=0).rows.tolist() == [40, 40, 20]


def test_batches_with_equal_lengths_keep_the_row_order() -> None:
    lengths = np.array([5, 3, 5, 3, 3], np.int32)
    encodings = Encodings(np.arange(19, dtype=np.int32), None, lengths, np.zeros(5, bool))
    assert make_batches(encodings, batch_tokens=1000, pad_id=0).order.tolist() == [1, 3, 4, 0, 2]


def test_batches_of_sorted_real_documents_hold_little_padding(model: Path) -> None:
    texts = [document[:20_000] for document in real_documents(150)]
    encodings = encode(texts, backend(AutoTokenizer.from_pretrained(model)), with_type_ids=False)
    batches = make_batches(encodings, batch_tokens=1024, pad_id=0, max_width=128)
    assert 1 - encodings.lengths.sum() / len(batches.ids) < 0.1  # of 150 documents; it shrinks with their number


def least_cost(widths: list[int], batch_tokens: int) -> float:
    """Padded tokens and the passes' cost, of the best of all divisions of the sorted documents."""
    least = [0.0]
    for end in range(1, len(widths) + 1):
        costs = []
        for start in range(end - 1, -1, -1):
            padded = (end - start) * widths[end - 1]
            if start == end - 1 or padded <= batch_tokens:
                costs.append(least[start] + padded + batch_tokens * PASS_COST)
        least.append(min(costs))
    return least[-1]


@pytest.mark.parametrize("pad_multiple", [1, 8])
@pytest.mark.parametrize("batch_tokens", [320, 4000])
@pytest.mark.parametrize("seed", range(10))
def test_batches_cost_as_little_as_any(seed: int, batch_tokens: int, pad_multiple: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.lognormal(rng.uniform(2, 4), 1, rng.integers(1, 120)).astype(np.int32).clip(1, 400)
    encodings = Encodings(np.ones(lengths.sum(), np.int32), None, lengths, np.zeros(len(lengths), bool))
    batches = make_batches(encodings, batch_tokens=batch_tokens, pad_id=0, pad_multiple=pad_multiple)
    cost = len(batches.ids) + len(batches.rows) * batch_tokens * PASS_COST
    widths = [-(-length // pad_multiple) * pad_multiple for length in sorted(lengths.tolist())]
    assert cost == pytest.approx(least_cost(widths, batch_tokens))


def test_batches_of_a_model_without_type_ids_hold_none() -> None:
    batches = make_batches(random_encodings(5, 20, with_types=False), batch_tokens=100, pad_id=0)
    assert (len(batches.type_ids), batches.type_ids.dtype) == (0, np.int8)


@pytest.mark.parametrize(("pad_left", "expected"), [(False, [[1, 0, 0], [1, 1, 1]]), (True, [[0, 0, 1], [1, 1, 1]])])
def test_mask_is_0_on_the_padded_side(pad_left: bool, expected: list[list[int]]) -> None:
    mask = attention_mask(np.array([1, 3], np.int32), 3, pad_left)
    assert mask.tolist() == expected
    assert mask.dtype == np.int64


@pytest.mark.parametrize("count", [0, 1, 50])
def test_batches_as_arrow_columns_come_back_the_same(count: int) -> None:
    batches = make_batches(random_encodings(6, count), batch_tokens=300, pad_id=0)
    row = pa.table(batches_to_columns(batches))
    assert row.num_rows == 1
    back = batches_from_columns(row)
    for name, array in vars(batches).items():
        assert getattr(back, name).dtype == array.dtype
        np.testing.assert_array_equal(getattr(back, name), array)


def test_batches_of_texts_with_the_padding_token_keep_it_a_token(model_of: Callable[[Architecture], Path]) -> None:
    """RoBERTa's pad id is 1; a text may hold it, and the mask is 1 there."""
    tokenizer = AutoTokenizer.from_pretrained(model_of("roberta"))
    encodings = encode(
        ["<pad> a <pad>", "a long text that makes the other one be padded"], backend(tokenizer), with_type_ids=False
    )
    batches = make_batches(encodings, batch_tokens=1000, pad_id=tokenizer.pad_token_id)
    found, padding = unpadded(batches, batches.ids, pad_left=False)
    assert tokenizer.pad_token_id == 1
    assert found[0].count(1) == 2
    assert set(padding) == {1}


@pytest.mark.parametrize("pad_left", [False, True])
@pytest.mark.parametrize("with_types", [False, True])
def test_batches_without_padding_hold_each_document_alone_with_those_of_its_length(pad_left: bool, with_types: bool) -> None:
    encodings = random_encodings(7, 60, with_types=with_types)
    padded = make_batches(encodings, batch_tokens=300, pad_id=0, pad_left=pad_left)
    batches = without_padding(padded, pad_left)
    assert batches.widths.max() > batches.widths.min()
    assert len(padded.rows) < len(batches.rows) < 60
    assert batches.order.tolist() == padded.order.tolist()
    np.testing.assert_array_equal(np.repeat(batches.widths, batches.rows), encodings.lengths[batches.order])
    ends = np.cumsum(encodings.lengths).tolist()
    cells = np.concatenate([np.arange(ends[row] - int(encodings.lengths[row]), ends[row]) for row in batches.order.tolist()])
    np.testing.assert_array_equal(batches.ids, encodings.ids[cells])
    if encodings.type_ids is not None:
        np.testing.assert_array_equal(batches.type_ids, encodings.type_ids[cells])


def test_batches_without_padding_of_no_documents_are_none() -> None:
    empty = make_batches(random_encodings(8, 0), batch_tokens=300, pad_id=0)
    assert [len(array) for array in vars(without_padding(empty, False)).values()] == [0] * 6
