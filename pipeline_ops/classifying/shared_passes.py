"""Models of a job whose lowest layers are the same, run together: the shared layers once per batch, what differs for each."""

import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline_ops.classifying.forward_pass import ForwardPasses
from pipeline_ops.loading.shared_trunk import SharedTrunk, common_part_of, release_duplicates
from pipeline_ops.models.shared_layers import CommonPart
from pipeline_ops.schema.errors import one_line

CHECKED_LENGTHS = ((24, 11, 5), (7, 16, 2))  # tokens of the rows of two batches


@dataclass(frozen=True)
class Shareable:
    """A loaded model that may share layers with others.

    Attributes:
        key: equal for models that get the same rows, and may share; None: runs alone.
        max_length: tokens of a document.
    """

    name: str
    passes: ForwardPasses
    key: Hashable | None
    max_length: int


def share_trunk(model: Shareable, earlier: Sequence[Shareable]) -> None:
    """Makes a model a follower of an earlier one that it shares layers with, if there is one; equal weights are held once.

    Its answers, and those of the models that it joins, are compared with what they were before, on random rows. If they differ,
    or cannot be compared, it has a pass of its own, and a line says so.
    """
    alike = [other for other in earlier if model.key is not None and other.key == model.key]
    parts = [(other, part) for other in alike if (part := common_part_of(model.passes.model, other.passes.model)) is not None]
    if not parts:
        return
    source, part = max(parts, key=lambda found: found[1].share)  # of equal ones the first
    release_duplicates(model.passes.model, source.passes.model)
    root = next(other.passes for other in alike if other is source or source.passes in other.passes.followers)
    why_not = _join(root, model, source, part)
    if why_not is not None:
        print(
            f"{model.name} has a pass of its own, though it has layers in common with {source.name}: {why_not}",
            file=sys.stderr,
        )


def _join(root: ForwardPasses, model: Shareable, source: Shareable, part: CommonPart) -> str | None:
    """Makes a model follow the passes of `root`; None, or why it does not: then it is as before."""
    import torch

    rows = [_random_rows(model, lengths) for lengths in CHECKED_LENGTHS]
    trunk = None
    try:  # the models' own code runs here; what it raises for real rows as well shows with the first unit
        with torch.inference_mode():
            alone = [torch.cat([root(*batch), model.passes(*batch)], dim=1) for batch in rows]
            trunk = model.passes.trunk = SharedTrunk(model.passes.model, source.passes.model, part)
            root.followers.append(model.passes)
            together = [root(*batch) for batch in rows]
        same = all(_equal(*pair, model.passes.model.dtype) for pair in zip(alone, together, strict=True))
        why_not = None if same else "its answers would be others"
    except Exception as error:
        why_not = f"the comparison failed ({one_line(error)[:200]})"
    if why_not is not None and trunk is not None:
        root.followers.remove(model.passes)
        model.passes.trunk = None
        trunk.undo()
    for passes in (root, *root.followers, model.passes):
        passes.take_seconds()
    return why_not


def _equal(first: Any, second: Any, dtype: Any) -> bool:
    """Whether values are the same, but for what the dtype of the arithmetic that they are from leaves open."""
    import torch

    tolerance = max(1e-5, 4 * torch.finfo(dtype).eps) if dtype != torch.float32 else 1e-5
    return torch.allclose(first, second, rtol=tolerance, atol=tolerance, equal_nan=True)


def _random_rows(model: Shareable, lengths: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, int]:
    """Padded rows of seeded token ids, as ForwardPasses takes them; each ends with the token for that, if there is one."""
    passes, config = model.passes, model.passes.model.config.get_text_config()
    special = {config.pad_token_id, config.eos_token_id, config.bos_token_id, getattr(config, "decoder_start_token_id", None)}
    known = getattr(passes.model.get_input_embeddings(), "num_embeddings", None) or config.vocab_size
    ordinary = np.array([token for token in range(min(known, 30_000)) if token not in special], np.int32)
    counts = np.minimum(np.array(lengths, np.int32), model.max_length)
    width = int(counts.max())
    pad = config.pad_token_id if config.pad_token_id is not None and config.pad_token_id >= 0 else 0
    ids = np.full((len(counts), width), pad, np.int32)
    random = np.random.default_rng(0)
    for row, count in zip(ids, counts, strict=True):
        tokens = random.choice(ordinary, count)
        if isinstance(config.eos_token_id, int) and config.eos_token_id < known:
            tokens[-1] = config.eos_token_id  # encoder-decoders read their answer there
        row[slice(width - count, width) if passes.pad_left else slice(count)] = tokens
    types = np.zeros(ids.size, np.int8) if passes.takes_types else None
    return ids.reshape(-1), types, counts, width
