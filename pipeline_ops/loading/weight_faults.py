"""What is wrong with weights, seen once they are loaded: what transformers reports of them, and numbers that are none."""

import re
from collections.abc import Mapping
from typing import Any

from pipeline_ops.model_files.tensor_names import HEAD_MODULES, LAST_LAYER, head_fault

SHOWN = 4  # names in a message
UNTRAINED = "fine-tune it first (label-corpus train), or set model.allow_new_weights"
TWO_MODELS = "its config.json and its weights are not of one model; copy the config.json that was saved with the weights"


def report_fault(model: Any, report: Mapping[str, Any], *, allow_new_weights: bool) -> str | None:
    """The message about weights that do not fit the model, behind its path; None if they do.

    Args:
        report: what from_pretrained returns by output_loading_info, with sizes that do not match among it.
    """
    for name, found, wanted in sorted(report["mismatched_keys"]):
        if LAST_LAYER.fullmatch(name) and found[1:] == wanted[1:]:
            return head_fault(found[0], wanted[0], name)
    for name, found, wanted in sorted(report["mismatched_keys"]):
        return f"has {name} in the shape {_shape(found)}, and its config.json asks for {_shape(wanted)}: {TWO_MODELS}"
    further = _further_layers(model, report["unexpected_keys"])
    if further:
        return f"has weights of more layers than its config.json ({further[0]}): {TWO_MODELS}"
    missing = sorted(report["missing_keys"])
    if not missing or allow_new_weights:
        return None
    names = ", ".join(missing[:SHOWN]) + (f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else "")
    body = [name for name in missing if name.startswith(f"{model.base_model_prefix}.") and "pooler" not in name]
    if body and not any(name.split(".")[0] in HEAD_MODULES for name in missing):
        return f"lacks weights ({body[0]}{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}): {TWO_MODELS}"
    return f"has no trained classification head ({names} would be random); {UNTRAINED}"


def _further_layers(model: Any, unexpected: set[str]) -> list[str]:
    """Tensors of layers that the model has no room for: they have names like those of its first layer."""
    known = model.state_dict().keys()
    return sorted(name for name in unexpected if re.sub(r"\.\d+\.", ".0.", name, count=1) in known)


def _shape(shape: Any) -> str:
    return " x ".join(map(str, shape))


def non_finite_weights(model: Any) -> list[str]:
    """Names of parameters with NaN or infinity among their numbers, with which all logits would be NaN.

    Embeddings are left out: each text meets those of its own tokens only, and is rejected if its logits are not finite.
    """
    import torch

    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    found = []
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.numel() and id(parameter) not in embeddings:
            extremes = torch.stack(torch.aminmax(parameter.detach()))  # in one pass, and NaN if any number is
            if not torch.isfinite(extremes).all():
                found.append(name)
    return found
