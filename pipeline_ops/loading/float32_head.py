"""The classification head in float32 behind a model in a lower dtype.

bfloat16 has steps of 1/64 between 2 and 4, and of 1/16 between 8 and 16: logits that come out of a layer in bfloat16 tie where
they should rank, and scores jump past thresholds. The head is what is beside the base model: a fraction of a percent of a pass.
"""

from typing import Any


def keep_head_in_float32(model: Any) -> None:
    """Converts the weights of a classifier's head to float32; each layer of it converts what it gets.

    Weights have been rounded to the model's dtype before, as all of its weights are. A pooler within the base model (BERT's)
    stays as it is: between it and the logits there is a layer in float32.

    Args:
        model: a classifier. Nothing is converted if its code is its own, which may use the head's weights as it likes, or if it
            has no base model under the name that its class says.
    """
    import torch

    base = model.base_model
    if base is model or not type(model).__module__.startswith("transformers."):
        return
    beside = [part for part in model.children() if all(module is not base for module in part.modules())]
    for module in (module for part in beside for module in part.modules()):
        parameters = list(module.parameters(recurse=False))
        if any(one.dtype in (torch.bfloat16, torch.float16) for one in parameters):
            for one in (*parameters, *module.buffers(recurse=False)):
                if one.is_floating_point():
                    one.data = one.data.float()
            module.register_forward_pre_hook(_with_float32)


def _with_float32(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    import torch

    return tuple(one.float() if isinstance(one, torch.Tensor) and one.is_floating_point() else one for one in inputs)
