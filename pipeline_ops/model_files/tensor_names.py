"""What names, dtypes and shapes of tensors say: what is around the model, its head, numbers that are no weights."""

import re
from collections.abc import Collection, Iterable, Mapping

from pipeline_ops.model_files.weight_files import Tensor

# the attributes that hold the heads of transformers' sequence classifiers; tests/unit/models/test_head_weights.py compares
HEAD_MODULES = {"classifier", "score", "classification_head", "logits_proj", "sequence_summary"}
# their last layers, of shape (labels, width)
LAST_LAYER = re.compile(r"(classifier|score|logits_proj)(\.out_proj)?\.weight|classification_head\.out_proj\.weight")
FLOATS = {"F64", "F32", "F16", "BF16"}
# what training code puts around a model, as it shows in the names of all its tensors when its state_dict() is saved
WRAPPERS = {
    r"_orig_mod\.": "torch.compile",
    r"^module\.": "DataParallel or DistributedDataParallel",
    r"^model\.": "a LightningModule",
}


def wrappers_of(names: Collection[str]) -> list[str]:
    """The patterns of WRAPPERS to remove from names of tensors, in that order.

    Prefixes that all have, if the head has its usual name without them: `model.` is a part of some models as well. What
    torch.compile adds may also be in the names of single layers.
    """
    found, left = [], list(names)
    for pattern in WRAPPERS:
        stripped = unwrapped(left, [pattern])
        changed = sum(name != before for name, before in zip(stripped, left, strict=True))
        if changed == len(left) or (changed and not pattern.startswith("^")):
            found.append(pattern)
            left = stripped
    has_head = any(name.split(".")[0] in HEAD_MODULES for name in left)
    return [pattern for pattern in found if has_head or not pattern.startswith("^")]


def unwrapped(names: Iterable[str], wrappers: Iterable[str]) -> list[str]:
    """Names of tensors without what the wrappers have put before them."""
    names = list(names)
    for pattern in wrappers:
        names = [re.sub(pattern, "", name, count=1) for name in names]
    return names


def wrapper_remarks(names: Collection[str]) -> list[str]:
    """A sentence about the wrappers in names of tensors, if there are any."""
    wrappers = wrappers_of(names)
    if not wrappers:
        return []
    prefixes = " and ".join(pattern.replace("\\", "").lstrip("^") for pattern in wrappers)
    by = " and ".join(WRAPPERS[pattern] for pattern in wrappers)
    return [f"the model's weights were saved from within {by}: {prefixes} is removed from their names"]


def tensor_fault(tensors: Mapping[str, Tensor], num_labels: int, *, quantized: bool) -> str | None:
    """What is wrong with the weights of a sequence classifier.

    Args:
        num_labels: of its configuration.
        quantized: its configuration says how the numbers become weights.
    """
    numbers = [name for name, tensor in tensors.items() if name.endswith("weight") and tensor.dtype not in FLOATS]
    if numbers and not quantized:
        return (
            f"has weights of dtype {tensors[numbers[0]].dtype} ({numbers[0]}) and no quantization_config in its config.json"
            " that says what they stand for; give the model as it was before quantization"
        )
    for name, tensor in zip(unwrapped(tensors, wrappers_of(tensors)), tensors.values(), strict=True):
        if LAST_LAYER.fullmatch(name) and len(tensor.shape) == 2 and tensor.shape[0] != num_labels and not quantized:
            return head_fault(tensor.shape[0], num_labels, name)
    return None


def head_fault(outputs: int, num_labels: int, name: str) -> str:
    """The message about a head that has another size than the configuration says."""
    return (
        f"has a head of {outputs} outputs ({name}), and its config.json has {num_labels} labels: they are not of one model;"
        f" copy the config.json that was saved with the weights, or give it {outputs} names in id2label"
    )
