"""Whether a model's answers depend on padding: looked up for known kinds, else tried when a classifier loads.

The answers to three rows of different lengths, each alone and all together, padded, are compared. Where they differ, rows of
equal length share a batch (batching.without_padding). Such a model still has to be repeatable.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from pipeline_ops.classifying.forward_pass import ForwardPasses, num_embeddings
from pipeline_ops.loading.device_errors import fault_of
from pipeline_ops.models.config import ModelFacts
from pipeline_ops.models.padding_side import DEPENDS, known_reason
from pipeline_ops.schema.errors import UserError, one_line
from pipeline_ops.tokenizing.batching import make_batches
from pipeline_ops.tokenizing.encoding import Encodings

# no multiples of 4 or 8, to which some models pad by themselves; at least 5, as CANINE needs; 107 tokens go through the model
LENGTHS = (5, 11, 23)
FALLBACK_IDS = range(97, 123)  # for models without a table of embeddings, whose ids are characters: a to z
FLOAT32_BYTES = 2**30  # at most so many bytes of weights are converted for the check
# Of 110 architectures, two layers each, in float32: where padding is harmless, answers alone and together differed by up to
# 4e-5 of their spread over different rows, 35 machine epsilons of the largest one; where it is not, by the spread or more.
LARGEST_SHARE = 1e-3  # of the spread
LARGEST_ROUNDING = 16  # machine epsilons; in lower precision, whose sums are in float32 or wider, up to 10 were found


def reason_against_padding(model: Any, facts: ModelFacts) -> str | None:
    """Why batches of this model have to be without padding; None: padding is harmless.

    Tried in float32, where a dependence cannot be taken for rounding. Models of more than FLOAT32_BYTES are tried in their own
    dtype: in bfloat16, whose machine epsilon is 2**-7, a dependence shows that changes answers by an eighth of the largest one.

    Args:
        model: a transformers sequence classification model in eval mode on its device.

    Raises:
        UserError: the answers are not even repeatable, or depend on the other rows of a batch.
        Exception: of the device (device_errors.fault_of).
    """
    if (known := known_reason(facts.model_type)) is not None:
        return known
    passes, rows = ForwardPasses(model, pad_left=facts.pad_left), sample_rows(model, facts)
    alone = None
    with _in_float32(model):
        try:
            alone = answers_to(passes, rows, facts, batch_tokens=1)
            together = answers_to(passes, rows, facts, batch_tokens=10**6)
        except Exception as error:
            if fault_of(error) is not None:
                raise
            what = "padding cannot be tried" if alone is None else "padded batches fail"
            return f"{what} ({type(error).__name__}: {one_line(error)[:120]})"  # without padding labels are right in any case
        if are_equal(alone, together, model):
            return None
        first, second = (_answers_beside_others(passes, rows, facts, seed) for seed in (1, 2))
        if not are_equal(first, second, model):
            raise UserError(
                f"model.path: {facts.path!r} cannot label: its answer to a text changes from one pass to the next, or with the"
                f" other texts of a batch; give another model"
            )
    return DEPENDS


@contextmanager
def _in_float32(model: Any) -> Iterator[None]:
    """The model with its weights in float32 for the duration of the block, unless that takes more than FLOAT32_BYTES.

    Afterwards the tensors are the same as before: those that are mapped from a file still are.
    """
    import torch

    tensors = [one for one in (*model.parameters(), *model.buffers()) if one.dtype in (torch.bfloat16, torch.float16)]
    if 4 * sum(one.numel() for one in tensors) > FLOAT32_BYTES:
        tensors = []
    originals = [one.data for one in tensors]
    for one in tensors:
        one.data = one.data.float()
    try:
        yield
    finally:
        for one, original in zip(tensors, originals, strict=True):
            one.data = original


def sample_rows(model: Any, facts: ModelFacts) -> Encodings:
    """Three rows of seeded ids: none special but an encoder-decoder's end of text, none of those that were added last."""
    lengths = np.minimum(LENGTHS, facts.max_length).astype(np.int32)
    config = model.config.get_text_config()
    special = {facts.pad_id}
    for name in (name for name in vars(config) if name.endswith("_token_id")):
        special.update(np.atleast_1d(getattr(config, name) or 0).tolist())
    known = num_embeddings(model)
    candidates = [one for one in (FALLBACK_IDS if known is None else range(known * 9 // 10)) if one not in special]
    ids = np.random.default_rng(0).choice(candidates, lengths.sum()).astype(np.int32)
    if model.config.is_encoder_decoder and isinstance(config.eos_token_id, int):
        ids[np.cumsum(lengths) - 1] = config.eos_token_id  # where most of their heads read
    return _rows_of(ids, lengths, facts)


def _rows_of(ids: np.ndarray, lengths: np.ndarray, facts: ModelFacts) -> Encodings:
    types = np.zeros(len(ids), np.int8) if facts.has_type_ids else None
    return Encodings(ids, types, lengths, np.zeros(len(lengths), bool))


def _answers_beside_others(passes: ForwardPasses, rows: Encodings, facts: ModelFacts, seed: int) -> np.ndarray:
    """As answers_to, each row in a batch without padding beside a row of other ids; these depend on the seed."""
    answers = []
    for ids in np.split(rows.ids, np.cumsum(rows.lengths)[:-1]):
        other = np.append(np.random.default_rng(seed).permutation(ids[:-1]), ids[-1:])
        pair = _rows_of(np.concatenate([ids, other]), np.full(2, len(ids), np.int32), facts)
        answers.append(answers_to(passes, pair, facts, batch_tokens=10**6)[:1])
    return np.concatenate(answers)


def answers_to(passes: ForwardPasses, rows: Encodings, facts: ModelFacts, *, batch_tokens: int) -> np.ndarray:
    """Logits, float64 (rows, labels)."""
    import torch

    padding = {"pad_id": facts.pad_id, "pad_type_id": facts.pad_type_id, "pad_left": facts.pad_left}
    batches = make_batches(rows, batch_tokens=batch_tokens, pad_multiple=1, **padding)
    found, cell, row = [], 0, 0
    with torch.inference_mode():
        for count, width in zip(batches.rows.tolist(), batches.widths.tolist(), strict=True):
            block = slice(cell, cell + count * width)
            types = batches.type_ids[block] if len(batches.type_ids) else None
            found.append(passes(batches.ids[block], types, batches.lengths[row : row + count], width))
            cell, row = block.stop, row + count
        values = torch.cat(found).cpu().numpy().astype(np.float64)
    answers = np.empty_like(values)
    answers[batches.order] = values
    return answers


def are_equal(answers: np.ndarray, others: np.ndarray, model: Any) -> bool:
    """True if answers (rows, labels) differ by no more than rounding in the model's dtype; NaN equals NaN."""
    import torch

    if not np.array_equal(np.isnan(answers), np.isnan(others)):
        return False
    answers, others = np.nan_to_num(answers), np.nan_to_num(others)
    spread = np.sqrt(answers.var(axis=0).mean())
    rounding = LARGEST_ROUNDING * torch.finfo(model.base_model.dtype).eps * np.abs(answers).max()
    return bool(np.abs(answers - others).max() <= max(LARGEST_SHARE * spread, rounding))
