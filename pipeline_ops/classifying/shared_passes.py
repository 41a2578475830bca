"""Models of a job whose lowest layers are the same, run together: the shared layers once per batch, what differs for each."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline_ops.classifying.forward_pass import ForwardPasses
from pipeline_ops.classifying.padding_check import answers_to, sample_rows
from pipeline_ops.loading.shared_trunk import SharedTrunk, common_part_of, release_duplicates
from pipeline_ops.models.config import ModelFacts
from pipeline_ops.models.shared_layers import CommonPart
from pipeline_ops.schema.errors import one_line

MANY_TOKENS = 10**6  # all sample rows in one batch


@dataclass(frozen=True)
class Shareable:
    """A loaded model that may share layers with others.

    Attributes:
        key: equal for models that get the same rows, and may share; None: runs alone.
    """

    name: str
    passes: ForwardPasses
    key: Hashable | None
    facts: ModelFacts


def share_trunk(model: Shareable, earlier: Sequence[Shareable]) -> None:
    """Makes a model a follower of an earlier one that it shares layers with, if there is one; equal weights are held once.

    Its answers, and those of the models that it joins, are compared with what they were before, on random rows. If they differ,
    or cannot be compared, it has a pass of its own, and `against_sharing` says so.
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
        model.passes.against_sharing = (
            f"{model.name} has a pass of its own, though it has layers in common with {source.name}: {why_not}"
        )


def _join(root: ForwardPasses, model: Shareable, source: Shareable, part: CommonPart) -> str | None:
    """Makes a model follow the passes of `root`; None, or why it does not: then it is as before."""
    padded = [] if root.against_padding is not None else [MANY_TOKENS]

    def answers(passes: ForwardPasses) -> list[np.ndarray]:
        """Of batches of one row each, then of a padded one."""
        rows = sample_rows(model.passes.model, model.facts)
        return [answers_to(passes, rows, model.facts, batch_tokens=tokens) for tokens in (1, *padded)]

    trunk = None
    try:  # the models' own code runs here; what it raises for real rows as well shows with the first unit
        alone = [np.hstack(both) for both in zip(answers(root), answers(model.passes), strict=True)]
        trunk = model.passes.trunk = SharedTrunk(model.passes.model, source.passes.model, part)
        root.followers.append(model.passes)
        tolerance = _tolerance(model.passes.model.base_model.dtype)
        same = [
            np.allclose(*both, rtol=tolerance, atol=tolerance, equal_nan=True)
            for both in zip(alone, answers(root), strict=True)
        ]
        why_not = None if all(same) else "its answers would be others"
    except Exception as error:
        why_not = f"the comparison failed ({one_line(error)[:200]})"
    if why_not is not None and trunk is not None:
        root.followers.remove(model.passes)
        model.passes.trunk = None
        trunk.undo()
    for passes in (root, *root.followers, model.passes):
        passes.discard_seconds()
    return why_not


def _tolerance(dtype: Any) -> float:
    """By how much answers may differ, absolutely and relatively; of the same arithmetic they are nearly always the same."""
    import torch

    return 1e-5 if dtype == torch.float32 else 4 * torch.finfo(dtype).eps
