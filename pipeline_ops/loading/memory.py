"""Tokens per forward pass that fit into a GPU's memory, by what a pass allocates: measured on tensors that hold no data."""

import inspect
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pipeline_ops.models.flops import inner_size_of

# Below, a GPU waits for kernel launches; above, nothing gets faster. BERT-base on an H200, in bfloat16, 512 tokens, documents/s
# for 8,192 to 262,144 tokens a pass: 3,362, 4,146, 4,165, 4,154, 4,172, 4,127. Smaller models, not measured, need more.
MIN_BATCH_TOKENS, MAX_BATCH_TOKENS = 8192, 262_144
ACTIVATION_MEMORY_SHARE = 0.5  # of the memory beside the weights; the rest is for fragments, workspaces, other processes
TRACED_TOKENS = 65_536  # makes what a pass allocates once negligible beside what it does per token
BLOCK_BYTES = 512  # torch's allocator on a GPU rounds up to it


def token_budget(models: Sequence[Any], lengths: Sequence[int], free_bytes: float) -> int:
    """Tokens per forward pass, padding included, of each of a classifier's models: a power of two from 8,192 to 262,144.

    The models' weights are all in memory, and their passes run one after another. ACTIVATION_MEMORY_SHARE of what the weights
    leave is used; ForwardPasses halves the budget if that turns out to be too much.

    Args:
        models: transformers classifiers on "meta", as they will run.
        lengths: tokens of each one's longest document.
        free_bytes: of the GPU, before the weights are loaded.
    """
    weight_bytes = sum(weight.numel() * weight.element_size() for model in models for weight in model.parameters())
    token_bytes = max(
        bytes_per_token(model, length) or estimated_bytes_per_token(model, length)
        for model, length in zip(models, lengths, strict=True)
    )
    tokens = int(max(ACTIVATION_MEMORY_SHARE * (free_bytes - weight_bytes) / token_bytes, 1))
    return min(max(2 ** (tokens.bit_length() - 1), MIN_BATCH_TOKENS), MAX_BATCH_TOKENS)


def bytes_per_token(model: Any, length: int) -> float | None:
    """The most that a pass over documents of `length` tokens has allocated at once, per token, weights left out.

    That is exact for what torch executes operator by operator: each tensor's storage counts from when it is made until nothing
    refers to it. Fused attention counts as its output, as on a GPU; what kernels take for themselves is left out.

    Args:
        model: of transformers, in eval mode on "meta". It is run with a mask if its attention is not fused: others get none on
            a GPU, or one that is small. Where the model reads a value, it gets 0.

    Returns:
        None if the architecture cannot be run without data: shapes depend on the values of ids.
    """
    import torch

    model.to("meta")  # buffers may be elsewhere
    shape = (max(1, TRACED_TOKENS // length), length)
    fused = getattr(model.config, "_attn_implementation", "eager") != "eager"
    for module in (model, model.base_model):  # some heads look for the last token, which takes ids
        parameters = inspect.signature(module.forward).parameters
        for with_mask in (not fused, fused):
            try:
                with _counted_allocations() as allocations:
                    ids = torch.zeros(shape, dtype=torch.int64, device="meta")
                    inputs: dict[str, Any] = {"input_ids": ids}
                    if with_mask:
                        inputs["attention_mask"] = torch.ones_like(ids)
                    if "use_cache" in parameters:
                        inputs["use_cache"] = False
                    if "decoder_input_ids" in parameters and module is not model:
                        inputs["decoder_input_ids"] = ids
                    module(**inputs)
            except Exception:  # of any kind: the model's own code runs here
                continue
            return allocations.peak / (shape[0] * length)
    return None


@contextmanager
def _counted_allocations() -> Iterator[Any]:
    """A block whose tensors are counted; yields a counter with `peak`, the most bytes that were allocated at once."""
    import torch
    from torch.overrides import TorchFunctionMode
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    def storages(values: Any) -> dict[int, Any]:
        tensors = [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]
        return {storage._cdata: storage for storage in (tensor.untyped_storage() for tensor in tensors)}

    class FusedAttention(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is not torch.nn.functional.scaled_dot_product_attention:
                return function(*args, **(kwargs or {}))
            query, _, value = args[:3]
            rows, heads, width, _ = query.shape
            return query.new_empty((rows, width, heads, value.shape[-1])).transpose(1, 2)  # the layout of a GPU's kernels

    class Allocations(TorchDispatchMode):
        peak = allocated = 0

        def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if operator is torch.ops.aten._local_scalar_dense.default:
                return 0
            given = storages((args, kwargs))  # weights, too, which a view must not count
            result = operator(*args, **(kwargs or {}))
            for key, storage in storages(result).items():
                if key not in given:
                    size = -(-storage.nbytes() // BLOCK_BYTES) * BLOCK_BYTES
                    self.allocated += size
                    weakref.finalize(storage, self.free, size)
            self.peak = max(self.peak, self.allocated)
            return result

        def free(self, size: int) -> None:
            self.allocated -= size

    with torch.no_grad(), FusedAttention(), Allocations() as allocations:
        yield allocations


def estimated_bytes_per_token(model: Any, length: int) -> float:
    """A guess by the model's sizes, for architectures that bytes_per_token cannot run; sizes that are not named are BERT's.

    In numbers of the model's dtype: residual, input, output, queries, keys, values, their product and a copy; an inner layer,
    gated ones as well; where attention is not fused, three tensors of scores, and their softmax in float32.
    """
    config = model.config.get_text_config()
    value_bytes, hidden_size = model.base_model.dtype.itemsize, config.hidden_size
    estimate = value_bytes * (8 * hidden_size + 3 * inner_size_of(config))
    if getattr(config, "_attn_implementation", "eager") == "eager":
        heads = getattr(config, "num_attention_heads", None) or max(1, hidden_size // 64)
        estimate += heads * length * (3 * value_bytes + 4)
    return float(estimate)
