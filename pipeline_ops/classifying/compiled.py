"""torch.compile for classifiers: which kinds are compiled by `model.compile: auto`, for which shapes, and what hinders it.

What is compiled is a layer. All layers of a model share its graphs, so that the compiler's time does not grow with their
number. What surrounds the layers (embeddings, masks, the head) stays eager: a few percent of a pass, which often reads values.
"""

import os
import sysconfig
from collections.abc import Sequence
from typing import Any, Literal

from pipeline_ops.schema.errors import UserError, one_line

# Graphs of all layers in a process, beyond which a new shape is an error: torch would go on eagerly, without a word. Static
# widths up to 8,192 are 56, times two for one row or many, times two with or without a mask, times the kinds of layers.
MAX_GRAPHS = 512

# kinds of models, whether `auto` compiles them on a GPU, and why; no other kind
GAINS: dict[str, bool] = {
    # Its own attention passes over the scores, (rows, heads, width, width), 24 times; compiled, 7 times. v3-base on an H200, in
    # bfloat16, 512 tokens: eager 809 documents/s, compiled for one shape 1,615, for all shapes 1,239.
    "deberta-v2": True,
    # The layers are fused already (fused_layers.py). BERT-base on the same: eager 4,265, compiled for one shape 12 % above the
    # eager way with the same attention kernel, for all shapes 4,165.
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra"), False),
}


def wants_compiling(setting: bool | Literal["auto"], model: Any) -> bool:
    """Whether `model.compile` asks for a model on its device, to be compiled."""
    if setting != "auto":
        return setting
    return GAINS.get(model.config.model_type, False) and model.device.type == "cuda"


def bucket_width(width: int, max_width: int | None = None) -> int:
    """The width that batches of `width` tokens are padded to where each width has a graph.

    Multiples of 16, from 256 tokens on of an eighth of the power of two below: 24 widths up to 512 tokens, 8 more for each
    doubling. What is added is at most 1/8, on average 4 % from 128 tokens on, 8 % from 64 to 128.

    Args:
        max_width: the model's limit, which is not exceeded.
    """
    step = max(16, 2 ** (width - 1).bit_length() // 16)
    rounded = -(-width // step) * step
    return rounded if max_width is None else max(width, min(rounded, max_width))


class CompiledLayers:
    """The layers of a model in eval mode, compiled in place; a graph is made when the first batch of its shape comes.

    Every batch is of one graph: where the compiler would have to break it, or to make more than MAX_GRAPHS, it raises.

    Attributes:
        by_auto: the model stays as it was where a shape cannot be compiled; else that is an error.
        static_widths: a graph for each width, for any number of rows; else one for all shapes.

    Args:
        max_width: the most tokens of a row that the model takes; None: any number.
        pad_id: of padding.
        backend: of torch.compile.
    """

    by_auto = False

    def __init__(
        self, model: Any, *, static_widths: bool, max_width: int | None = None, pad_id: int = 0, backend: Any = "inductor"
    ):
        import torch

        self.static_widths, self.max_width, self.pad_id = static_widths, max_width, pad_id
        self._layers, self._seen = _layers_of(model), set[tuple[Any, ...]]()
        self._before = [vars(layer).get("forward") for layer in self._layers]
        for layer in self._layers:
            # dynamic=False: sizes are constants, unless they are marked
            forward = torch.compile(layer.forward, fullgraph=True, dynamic=not static_widths, backend=backend)
            layer.forward = _marking_rows(forward) if static_widths else forward

    def widened(self, of_tokens: Sequence[Any], pad_left: bool) -> tuple[list[Any], int]:
        """A batch's token ids and maybe type ids, (rows, width), padded to a width that has a graph; that width."""
        import torch

        width = of_tokens[0].shape[1]
        if not self.static_widths:
            return list(of_tokens), width
        added = bucket_width(width, self.max_width) - width
        sides = (added, 0) if pad_left else (0, added)
        return [
            torch.nn.functional.pad(one, sides, value=fill) for one, fill in zip(of_tokens, (self.pad_id, 0), strict=False)
        ], width + added

    def is_new(self, rows: int, width: int, masked: bool) -> bool:
        """True once for each graph: whether a batch of that shape is the first one; to be asked before each batch."""
        allow_graphs()
        shape = (width if self.static_widths else min(width, 2), min(rows, 2), masked)  # torch takes sizes of 1 for constants
        if shape in self._seen:
            return False
        self._seen.add(shape)
        return True

    def undo(self) -> None:
        """The model as before."""
        for layer, before in zip(self._layers, self._before, strict=True):
            if before is None:
                del layer.forward
            else:
                layer.forward = before


def allow_graphs() -> None:
    """Sets MAX_GRAPHS in place of torch's 8, for this thread; to be called before what torch.compile has made.

    Settings are a thread's own in torch 2.13 (not yet in 2.11), and Ray Data calls an actor in another one than constructs it.
    """
    import torch

    config = torch._dynamo.config
    if config.recompile_limit != MAX_GRAPHS or not config.fail_on_recompile_limit_hit:
        config.recompile_limit = config.accumulated_recompile_limit = MAX_GRAPHS  # of a function, and all layers have the same
        config.fail_on_recompile_limit_hit = True


def _layers_of(module: Any) -> Sequence[Any]:
    """The modules in a model's outermost lists; the model itself if it has none."""
    import torch

    def inside(part: Any) -> list[Any]:
        if isinstance(part, torch.nn.ModuleList):
            return list(part)
        return [layer for child in part.children() for layer in inside(child)]

    return inside(module) or [module]


def _marking_rows(forward: Any) -> Any:
    """`forward`, compiled with static sizes, for any number of rows: the first size of its first tensor."""
    import torch
    from torch.utils._pytree import tree_leaves

    def with_dynamic_rows(*args: Any, **kwargs: Any) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        rows = len(tensors[0])
        for tensor in tensors:
            # of one dimension: bounds of segments, whose number goes with the rows; torch takes sizes of 1 for constants
            if len(tensor) > 1 and (len(tensor) == rows or tensor.dim() == 1):
                torch._dynamo.maybe_mark_dynamic(tensor, 0)  # maybe: a table of embeddings may be as long by chance
        return forward(*args, **kwargs)

    return with_dynamic_rows


def eager_line(kind: str, error: BaseException) -> str:
    """What a user sees of a model that `model.compile: auto` would compile."""
    return f"{kind} runs without being compiled, and slower: {one_line(error)[:300]}"


def is_compilers(error: BaseException) -> bool:
    """True if the compiler has raised it, not what it has compiled."""
    import torch

    return isinstance(error, torch._dynamo.exc.TorchDynamoException | torch._dynamo.exc.FailOnRecompileLimitHit)


def check_compiler(device: str) -> None:
    """Raises UserError if torch.compile does not work on a device.

    It needs Python's headers, and g++, or on a GPU Triton and gcc.
    """
    import torch

    try:
        torch.compile(torch.nn.functional.gelu)(torch.ones(8, device=device))
    except Exception as error:
        raise UserError(
            f"model.compile: torch.compile does not work where the classifiers run: {lack_of(error)}, or set it to false"
        ) from error


# (a text in what torch or Triton raises, what is missing and how to get it)
LACKS = (
    ("working triton", "Triton is missing or too old; install the one that this torch requires"),
    ("too old to be supported by the triton", "the GPU is too old for Triton; use a newer one"),
    ("find C compiler", "the C compiler that Triton calls is missing; install gcc"),
    ("C++ compiler", "a C++ compiler is missing; install g++"),
    ("Python.h", "Python's headers are missing (Python.h); install python3-dev"),
)


def lack_of(error: BaseException) -> str:
    """What the compiler lacks, and what to install, by what torch has raised."""
    texts, cause = [], error
    while cause is not None:
        texts.append(str(cause))
        cause = cause.__cause__ or cause.__context__
    if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        texts.append("Python.h")  # Triton's gcc says so on stderr only
    known = next((said for text, said in LACKS if any(text in one for one in texts)), None)
    return known or f"{one_line(error)[:200]}; make it work"
