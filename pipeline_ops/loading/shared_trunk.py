"""Loaded models that have their lowest layers in common: one of them computes these, the others take what it has computed."""

from itertools import chain
from typing import Any

from pipeline_ops.models.shared_layers import CommonPart, common_part, same_arithmetic


def common_part_of(first: Any, second: Any) -> CommonPart | None:
    """What two transformers classifiers on one device have in common, as common_part; None if they are of different kinds."""
    encoder = getattr(first, "base_model_prefix", "")
    if type(first) is not type(second) or not encoder or first.base_model is first:
        return None
    settings = [(model.base_model.dtype, getattr(model.config, "_attn_implementation", None)) for model in (first, second)]
    if settings[0] != settings[1] or not same_arithmetic(first.config, second.config):
        return None
    tensors, others = _tensors_of(first), _tensors_of(second)
    names, other_names = ({name for name in one if name.startswith(f"{encoder}.")} for one in (tensors, others))
    if names != other_names:
        return None
    layers = getattr(first.config, "num_hidden_layers", None)
    return common_part(names, lambda name: _same(tensors[name], others[name]), encoder=encoder, num_layers=layers)


def _tensors_of(model: Any) -> dict[str, Any]:
    # with duplicates: modules that share a tensor have it under both names
    return dict(chain(model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)))


def _same(first: Any, second: Any) -> bool:
    import torch

    return first is second or (first.dtype == second.dtype and torch.equal(first, second))


def release_duplicates(model: Any, of: Any) -> None:
    """Points the parameters of a model's modules to equal ones of another model of its kind, so that they are held once."""
    others = dict(of.named_modules())
    for name, module in model.named_modules():
        for key, parameter in module._parameters.items():
            other = others[name]._parameters.get(key) if name in others else None
            if parameter is not None and other is not None and _same(parameter, other):
                module._parameters[key] = other


class SharedTrunk:
    """Has a model take the common part from the last pass of another one, which has to be of the same rows.

    The models stay whole: of the shared modules of `model` only `forward` is replaced, by what returns the last output of the
    highest of them in `source`, be it a tensor, a tuple or a mapping. The output of a lower layer is then a higher one's, which
    nothing but the next layer reads, shared as well.

    Args:
        part: what they have in common.
    """

    def __init__(self, model: Any, source: Any, part: CommonPart):
        encoder = model.base_model_prefix
        self.names = [encoder] if part.whole else [f"{part.layer_list}.{layer}" for layer in range(part.layers)]
        self._modules = [model.get_submodule(name) for name in self.names]
        self._output: Any = None
        self._hook = source.get_submodule(self.names[-1]).register_forward_hook(self._record)
        for module in self._modules:
            module.forward = self._recorded

    def _record(self, module: Any, inputs: Any, output: Any) -> None:
        self._output = output

    def _recorded(self, *arguments: Any, **named: Any) -> Any:
        assert self._output is not None, "the model that computes the shared layers comes first"
        return self._output

    def clear(self) -> None:
        """Frees what has been computed for the last rows, which the next ones must not get."""
        self._output = None

    def undo(self) -> None:
        """Lets the model compute all of its layers again."""
        self._hook.remove()
        for module in self._modules:
            del module.forward
