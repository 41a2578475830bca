"""A loaded model for a GPU: pairs of its modules run as one kernel, with the same weights under the same names.

On an H200 in bfloat16 a BERT-base spends a fifth of its time in GELUs, residual additions and layer norms: they move memory.
"""

import inspect
import sys
from collections.abc import Callable
from functools import cache, partial
from typing import Any

from pipeline_ops.loading.device_errors import raise_if_lost
from pipeline_ops.loading.same_answers import is_near, random_rows
from pipeline_ops.schema.errors import one_line

# a linear layer, the activation that follows it, and the method that calls both: BERT and its kin, DistilBERT, ALBERT
LINEAR_AND_ACTIVATION = (
    ("dense", "intermediate_act_fn", "forward"),
    ("lin1", "activation", "ff_chunk"),
    ("ffn", "activation", "ff_chunk"),
)
ADDED_AND_NORMED = {"dense", "LayerNorm", "dropout"}  # the modules of a layer's end in BERT and its kin
TRIED_ROWS = 64


def fuse_layers(model: Any, *, compiled: bool = True) -> None:
    """Replaces modules of a model in eval mode on a GPU; its answers stay the same but for rounding.

    In bfloat16, GELU runs within the matrix product before it, as cuBLASLt's epilogue, by its approximation with tanh: up to
    5e-4 from erf's, an eighth of bfloat16's own rounding of values near 1. The residual addition and the layer norm behind it
    become one kernel, for any number of rows. Modules of a class whose answers to random rows would differ by more than
    rounding stay as they are.

    Args:
        compiled: with the kernel that torch.compile makes, the latter, in some seconds.
    """
    import torch

    known: dict[type, bool] = {}
    with torch.inference_mode():
        for module in list(model.modules()):
            fuse = _fusion_of(module, compiled)
            if fuse is not None and known.get(type(module), True):
                known[type(module)] = fuse()


def _fusion_of(module: Any, compiled: bool) -> Callable[[], bool] | None:
    """A function that fuses the module and returns True, or False if it is as before; None where there is nothing to fuse."""
    import torch
    from torch import nn
    from transformers.activations import FastGELUActivation, GELUActivation, GELUTanh, NewGELUActivation

    gelus = (nn.GELU, GELUActivation, GELUTanh, NewGELUActivation, FastGELUActivation)
    children = dict(module.named_children())
    for linear, activation, method in LINEAR_AND_ACTIVATION:
        dense: Any = children.get(linear)
        if (
            _is_linear(dense)
            and dense.weight.dtype == torch.bfloat16
            and isinstance(children.get(activation), gelus)
            and hasattr(module, method)
        ):
            return partial(_fuse_gelu, module, linear, activation, method)
    # MobileBERT's, of as many modules, adds two residuals
    if not compiled or set(children) != ADDED_AND_NORMED or len(inspect.signature(module.forward).parameters) != 2:
        return None
    fits = _is_linear(children["dense"]) and type(children["LayerNorm"]) is nn.LayerNorm
    return partial(_fuse_norm, module) if fits else None


def _is_linear(module: Any) -> bool:
    from torch import nn

    return type(module) is nn.Linear and module.bias is not None


def _fuse_gelu(module: Any, linear: str, activation: str, method: str) -> bool:
    import torch

    dense, gelu = getattr(module, linear), getattr(module, activation)
    rows = random_rows(dense.weight, 1, TRIED_ROWS)
    expected = getattr(module, method)(rows)
    dense.forward = partial(_linear_and_gelu, dense)
    setattr(module, activation, torch.nn.Identity())
    try:
        if is_near(getattr(module, method)(rows), expected):
            return True
    except Exception as error:  # of cuBLASLt, which has no such epilogue for the GPU
        raise_if_lost(rows.device)
        print(f"GELU is not fused with the product before it: {one_line(error)[:200]}", file=sys.stderr)
    del dense.forward
    setattr(module, activation, gelu)
    return False


def _linear_and_gelu(linear: Any, states: Any) -> Any:
    import torch

    flat, weight = states.reshape(-1, states.shape[-1]), linear.weight.t()
    answers = torch._addmm_activation(linear.bias, flat, weight, use_gelu=True)  # pyright: ignore[reportPrivateImportUsage]
    return answers.view(*states.shape[:-1], -1)


def _fuse_norm(module: Any) -> bool:
    rows, residual = (random_rows(one.weight, 1, TRIED_ROWS) for one in (module.dense, module.LayerNorm))
    expected = module.forward(rows, residual)
    module.forward = partial(_dense_added_and_normed, module)
    try:
        if is_near(module.forward(rows, residual), expected):
            return True
    except Exception as error:  # of the compiler's
        raise_if_lost(rows.device)
        print(f"layer norms are not fused, torch.compile does not work here: {one_line(error)[:200]}", file=sys.stderr)
    del module.forward
    return False


def _dense_added_and_normed(module: Any, hidden_states: Any, input_tensor: Any) -> Any:
    norm = module.LayerNorm
    return _compiled_add_and_norm()(module.dense(hidden_states), input_tensor, norm.weight, norm.bias, norm.eps)


def _add_and_norm(states: Any, residual: Any, weight: Any, bias: Any, eps: float) -> Any:
    import torch

    return torch.nn.functional.layer_norm(states + residual, weight.shape, weight, bias, eps)


@cache
def _compiled_add_and_norm() -> Callable[..., Any]:
    import torch

    return torch.compile(_add_and_norm, dynamic=True)
