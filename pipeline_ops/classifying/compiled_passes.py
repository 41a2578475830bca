"""`model.compile` for a loaded model: whether its passes become compiled ones, tried on random rows beside what they were."""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from pipeline_ops.classifying.compiled import CompiledLayers, check_compiler, eager_line, wants_compiling
from pipeline_ops.classifying.forward_pass import ForwardPasses
from pipeline_ops.classifying.padding_check import answers_to, are_equal, sample_rows
from pipeline_ops.loading.device_errors import fault_of, raise_if_lost
from pipeline_ops.models.config import ModelFacts
from pipeline_ops.schema.errors import UserError, one_line
from pipeline_ops.tokenizing.encoding import Encodings

# rows and tokens of a batch without padding: sizes that no other dimension of a model is likely to have, which the compiler
# would take for the same
UNPADDED = (3, 48)
MANY_TOKENS = 10**6


def compile_if_wanted(
    passes: ForwardPasses, setting: bool | Literal["auto"], facts: ModelFacts, *, backend: Any = "inductor"
) -> None:
    """Compiles a model as `model.compile` says; its answers stay the same but for rounding, or it stays as it is.

    Before any document: an error of the compiler is none's fault. With `auto`, models that share layers are left alone, since
    sharing gains more; and where the compiler does not work the model stays as it is, and `against_compiling` says so.

    Args:
        backend: of torch.compile.

    Raises:
        UserError: the setting is true, and the compiler does not work, or not for this model.
        Exception: the memory is too small, or the GPU is lost.
    """
    shares = passes.trunk is not None or passes.followers
    if not wants_compiling(setting, passes.model) or (setting == "auto" and shares):
        return
    try:
        if backend == "inductor":
            check_compiler(passes.model.device.type)
        _compile(passes, facts, backend)
    except Exception as error:  # of any kind: the compiler and the model's own code run here
        if fault_of(error) == "memory":
            raise
        raise_if_lost(passes.model.device)
        if setting != "auto":
            raise error if isinstance(error, UserError) else UserError(_fault(facts, one_line(error)[:200])) from error
        passes.against_compiling = eager_line(facts.model_type, error)
    else:
        if passes.compiled is not None:
            passes.compiled.by_auto = setting == "auto"
    finally:
        passes.discard_seconds()


def _compile(passes: ForwardPasses, facts: ModelFacts, backend: Any) -> None:
    trials = list(_trials(passes, facts))
    before = [answers_to(passes, rows, facts, batch_tokens=MANY_TOKENS) for rows in trials]
    passes.compiled = CompiledLayers(
        passes.model,
        static_widths=passes.against_padding is None,
        max_width=facts.max_length,
        pad_id=facts.pad_id,
        backend=backend,
    )
    try:
        after = [answers_to(passes, rows, facts, batch_tokens=MANY_TOKENS) for rows in trials]
        if not all(are_equal(*both, passes.model) for both in zip(before, after, strict=True)):
            raise UserError(_fault(facts, "its answers would be others"))
    except Exception:
        passes.compiled.undo()
        passes.compiled = None
        raise


def _trials(passes: ForwardPasses, facts: ModelFacts) -> Iterator[Encodings]:
    """A batch without padding and, if the model may have it, one with it: each has graphs of its own."""
    rows = sample_rows(passes.model, facts)
    longest = rows.ids[-rows.lengths[-1] :]
    count, width = UNPADDED[0], min(UNPADDED[1], facts.max_length)
    row = np.append(np.resize(longest[:-1], width - 1), longest[-1:])
    ids = np.concatenate([np.append(np.roll(row[:-1], number), row[-1:]) for number in range(count)])
    types = None if rows.type_ids is None else np.zeros(len(ids), np.int8)
    yield Encodings(ids, types, np.full(count, width, np.int32), np.zeros(count, bool))
    if passes.against_padding is None:
        yield rows


def _fault(facts: ModelFacts, reason: str) -> str:
    return f"model.compile: models of type {facts.model_type} cannot be compiled ({reason}); set it to false"
