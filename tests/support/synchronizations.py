"""Counts, on a CPU, the places at which a computation would have the host wait for a GPU."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# operators whose result, or its shape, the host has to know; in inference mode is_nonzero and item are one
READING = (
    *(
        "is_nonzero",
        "item",
        "_local_scalar_dense",
        "equal",
        "allclose",
        "nonzero",
        "nonzero_numpy",
        "argwhere",
        "masked_select",
    ),
    *("unique_consecutive", "_unique2", "unique_dim", "bincount"),
)
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")
COPYING = ("tolist", "cpu", "numpy")  # methods; of a tensor that is on the CPU they run no operator


class _Operators(TorchDispatchMode):
    def __init__(self, found: Counter[str]):
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        # True in place of a row index: the number of rows follows from the values
        by_values = name in INDEXING and any(one is not None and one.dtype in (torch.bool, torch.uint8) for one in args[1])
        repeats = name == "repeat_interleave" and (kwargs or {}).get("output_size") is None
        if name in READING or by_values or repeats:
            self.found[_place()] += 1
        return func(*args, **(kwargs or {}))


class _Copies(TorchFunctionMode):
    def __init__(self, found: Counter[str]):
        super().__init__()
        self.found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        from_host = func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None
        to_host = name == "to" and "cpu" in [one for one in (*args[1:], *kwargs.values()) if isinstance(one, str)]
        first = args[0] if args else None
        number = name == "type_as" and isinstance(first, torch.Tensor) and not first.ndim  # made on the host, for a device
        if from_host or number or (isinstance(first, torch.Tensor) and (name in COPYING or to_host)):
            self.found[_place()] += 1
        return func(*args, **kwargs)


def _place() -> str:
    """`module.function` of transformers or the product that is being run."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith(("transformers.", "pipeline_ops.")):
            return f"{module.rpartition('.')[2]}.{frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"


@contextmanager
def synchronizations() -> Iterator[Counter[str]]:
    """What would synchronize in the block: {module.function: number}, empty until it ends."""
    found: Counter[str] = Counter()
    with _Copies(found), _Operators(found):
        yield found
