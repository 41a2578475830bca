"""Attention over padded batches that reads no value on the host, for classifiers on a GPU.

transformers asks before each pass whether the mask masks anything, so that its fused attention (SDPA) can do without one: the
host waits for the GPU and then launches kernels for an idle one. Here two more implementations, which never ask, are registered
with it, in its AttentionInterface and AttentionMaskInterface; a model has one by the name in its configuration:

- MASKED: SDPA with one additive mask for all layers, [rows, 1, 1, width] where every token may see every other.
- SEGMENTED: no mask. Each row is two segments, its tokens and its padding, each a sequence of its own for FlashAttention's
  kernel for sequences of variable length, in the padded layout that the model's other layers have.

Both leave the mask out where a batch has none.
"""

import inspect
import sys
from collections import Counter
from typing import Any

from pipeline_ops.loading.device_errors import fault_of, raise_if_lost
from pipeline_ops.loading.same_answers import is_near
from pipeline_ops.schema.errors import one_line

MASKED, SEGMENTED = "padding_mask", "padding_segments"  # names that transformers reads no meaning into
ON_A_GPU = SEGMENTED
"""Which one a model gets on a GPU if it can have both.

SDPA has no FlashAttention kernel for a mask. On an H200, in bfloat16 with 12 heads of 64, FlashAttention for sequences of
variable length computed 256, 149, 96 and 305 TFLOP/s at 512, 128, 100 and 2,048 tokens, SDPA with a mask 86, 75, 49 and 92; and
of a window (ModernBERT) it computes no more than that. This was with a sequence per row, padded ones by `seqused_k`; what the
second segment of each row costs, a few blocks of the grid that end at once, has not been measured.
"""
LARGEST_HEAD = 256  # of FlashAttention
MAX_SEGMENTS = 65_535  # the second dimension of a CUDA grid; each segment is one of it
TRIED_LENGTHS, TRIED_WIDTH = (5, 77, 133, 160), 160  # within, and over, the kernel's blocks of up to 128 tokens; one is full
TRIED_WINDOWS = ((-1, -1), (16, 16), (-1, 0), (16, 0))


PASSES_OF_A_PLAN = 48
"""Passes of one shape in which cuDNN's attention gains what its plan for the shape has cost, before it is used.

On an H200, where SDPA would prefer it: 65 ms, once per shape and process. At 512 tokens, without padding, it computed 405
TFLOP/s and FlashAttention 270, by which a pass of a BERT-base over 65,536 tokens, 30 ms, is 5 % shorter.
"""
CUDNN_MULTIPLE = 128  # older versions of cuDNN were wrong at other lengths


def attend_without_waiting(model: Any) -> None:
    """Gives a model whose attention is SDPA one of the two; others keep theirs.

    To be called where a classifier begins on a GPU: it also turns cuDNN's attention off, which SDPA would prefer on Hopper. It
    makes a plan for every new shape, and batches sorted by length nearly all have one; see RecurringShapes.

    Args:
        model: of transformers, on its device.
    """
    import torch

    torch.backends.cuda.enable_cudnn_sdp(False)
    use(model, ON_A_GPU)
    if model.config._attn_implementation == SEGMENTED and (why_not := kernel_fault(model)) is not None:
        print(f"attention has a mask, and is slower: {why_not}", file=sys.stderr)
        model.set_attn_implementation(MASKED)


class RecurringShapes:
    """Has cuDNN's attention for the shapes of batches without padding that come again and again: documents of full length."""

    def __init__(self) -> None:
        self._passes: Counter[tuple[int, int]] = Counter()

    def choose(self, rows: int, width: int, *, padded: bool) -> None:
        """Turns cuDNN's attention on or off for the pass that comes next, of so many rows and tokens each."""
        import torch

        allowed = not padded and width % CUDNN_MULTIPLE == 0
        if allowed:
            self._passes[rows, width] += 1
        torch.backends.cuda.enable_cudnn_sdp(allowed and self._passes[rows, width] > PASSES_OF_A_PLAN)


def use(model: Any, name: str) -> None:
    """Gives a model whose attention is SDPA the implementation `name`; MASKED where it cannot have SEGMENTED.

    A model that its authors have not marked as fit for FlashAttention may do with its mask what only a mask allows. In
    encoder-decoders padding is read: the decoder of BigBird-Pegasus sees that of its own texts. A model whose code asks for
    SDPA by name, for another mask (A.X-K2), keeps it, as do those in which transformers cannot replace it, and those whose code
    is their own: it may do as it likes for a name that it does not know.
    """
    _register()
    config = model.config
    if getattr(config, "_attn_implementation", None) != "sdpa":
        return
    if not type(model).__module__.startswith("transformers.") or _asks_for_sdpa(type(model)):
        return
    fit = model._supports_flash_attn and not config.is_encoder_decoder and _head_size(config.get_text_config()) <= LARGEST_HEAD
    model.set_attn_implementation(name if fit else MASKED)


def _asks_for_sdpa(kind: type) -> bool:
    try:
        return '"sdpa"' in inspect.getsource(sys.modules[kind.__module__])
    except (OSError, TypeError):  # no source, in which case transformers replaces nothing either
        return True


def _head_size(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    for name, mask in ((MASKED, additive_mask), (SEGMENTED, segments_or_mask)):
        AttentionInterface.register(name, attention)
        AttentionMaskInterface.register(name, mask)


def additive_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    *,
    attention_mask: Any,
    dtype: Any,
    device: Any,
    kv_offset: int = 0,
    local_size: int | None = None,
    allow_is_causal_skip: bool = True,
    allow_is_bidirectional_skip: bool = False,
    **others: Any,
) -> Any:
    """What transformers' sdpa_mask masks, as numbers to add: 0 where a token is seen, else hugely negative; once per pass.

    Args (as of transformers.masking_utils.sdpa_mask, which says more):
        attention_mask: bool (rows, width), or None without padding.
        local_size: of a window of tokens that are seen.
        allow_is_causal_skip, allow_is_bidirectional_skip: the pattern is the plain causal one, or none at all, but for the
            window.

    Returns:
        `dtype` (rows, 1, 1 or width, width); None: nothing is masked, or what is causal alone.
    """
    import torch
    from transformers.masking_utils import sdpa_mask

    if allow_is_bidirectional_skip and local_size is None and attention_mask is not None and not kv_offset:
        seen = attention_mask[:, None, None, :kv_length]
    else:
        padded = attention_mask is not None
        seen = sdpa_mask(
            batch_size,
            q_length,
            kv_length,
            attention_mask=attention_mask,
            device=device,
            kv_offset=kv_offset,
            local_size=local_size,
            allow_is_causal_skip=allow_is_causal_skip and not padded,  # else it would look whether there is padding
            allow_is_bidirectional_skip=allow_is_bidirectional_skip and not padded,
            **others,
        )
    if seen is None:
        return None
    # half of the least number: with a score added it is still finite, and a row that sees nothing is no NaN
    return torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, torch.finfo(dtype).min / 2)


def segments_or_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    *,
    attention_mask: Any,
    dtype: Any,
    device: Any,
    q_offset: int = 0,
    kv_offset: int = 0,
    local_size: int | None = None,
    allow_is_causal_skip: bool = True,
    allow_is_bidirectional_skip: bool = False,
    **others: Any,
) -> Any:
    """The bounds of segments for `attention`; where it could not use them, as additive_mask, with the same arguments.

    Segments say which tokens are padding. That attention is causal, or has a window, the kernel gets from the layer. Causal
    windows narrower than the batch are masked: chunks of tokens look the same from here.

    Returns:
        int32 (2 * rows + 1,): see bounds_of; or a mask of four dimensions; None: nothing is masked, or what is causal alone.
    """
    narrow = local_size is not None and kv_length > local_size
    plain = allow_is_bidirectional_skip or (allow_is_causal_skip and not narrow)
    whole = q_length == kv_length and q_offset == kv_offset == 0
    if plain and whole and has_kernel(device, dtype) and 2 * batch_size <= MAX_SEGMENTS:
        if attention_mask is not None:
            return bounds_of(attention_mask)
        if not narrow:
            return None
        import torch

        return bounds_of(torch.ones((batch_size, kv_length), dtype=torch.bool, device=device))
    return additive_mask(
        batch_size,
        q_length,
        kv_length,
        attention_mask=attention_mask,
        dtype=dtype,
        device=device,
        q_offset=q_offset,
        kv_offset=kv_offset,
        local_size=local_size,
        allow_is_causal_skip=allow_is_causal_skip,
        allow_is_bidirectional_skip=allow_is_bidirectional_skip,
        **others,
    )


def has_kernel(device: Any, dtype: Any) -> bool:
    """Whether FlashAttention's kernel takes tensors of a dtype on a device; models are tried in float32 as well."""
    import torch

    return torch.device(device).type == "cuda" and dtype in (torch.bfloat16, torch.float16)


def bounds_of(attention_mask: Any) -> Any:
    """Where segments begin among the cells of a batch, and where the last one ends: two per row, one of them may be empty.

    The padding of a row is a segment, so that positions count from its first token, as causal and windowed attention needs, and
    so that what padding answers is finite.

    Args:
        attention_mask: bool (rows, width); each row's tokens are together, at its beginning or its end.

    Returns:
        int32 (2 * rows + 1,), from 0 to rows * width.
    """
    import torch

    rows, width = attention_mask.shape
    lengths = attention_mask.sum(dim=1)
    first = torch.where(attention_mask[:, 0], lengths, width - lengths)  # the length of a row's first segment
    starts = torch.arange(0, rows * width, width, device=lengths.device)
    bounds = torch.full((2 * rows + 1,), rows * width, dtype=torch.int32, device=lengths.device)
    bounds[0:-1:2], bounds[1::2] = starts, starts + first
    return bounds


def attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    *,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Any, None]:
    """Attention of a layer, as transformers' AttentionInterface asks for it.

    Args:
        query: (rows, heads, width, size); key, value: the same, of as many heads or fewer.
        attention_mask: what additive_mask or segments_or_mask has returned.
        scaling: of the scores; default: 1 / sqrt(size).
        sliding_window: of a layer that sees so many tokens, itself among them, to the left, and if it is not causal, the right.

    Returns:
        ((rows, width, heads, size), None: no weights).
    """
    if attention_mask is None or attention_mask.ndim == 4:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, is_causal=is_causal, **others)
    unknown = [name for name in ("position_bias", "softcap", "s_aux") if others.get(name) is not None]
    if unknown:
        raise ValueError(f"{type(module).__name__} asks for {unknown[0]}, which {SEGMENTED} attention has not")
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    left = -1 if sliding_window is None else sliding_window - 1
    window = (left, 0 if causal else left)
    return segmented_attention(query, key, value, attention_mask, window, scaling), None


def kernel_fault(model: Any) -> str | None:
    """Why segmented_attention cannot serve a model where it is; None: it can, or the model's dtype is not the kernel's.

    It does not run on GPUs older than Ampere, nor in every build of torch. And as a wrong label shows nowhere, its answers to
    random rows of the model's heads are compared with those of SDPA in float32: padded on either side, in all kinds of windows.
    """
    import torch

    device, dtype, config = model.device, model.base_model.dtype, model.config.get_text_config()
    if not has_kernel(device, dtype):
        return None
    heads, size = config.num_attention_heads, _head_size(config)
    random = torch.Generator(device).manual_seed(0)
    query, key, value = (
        torch.randn((len(TRIED_LENGTHS), TRIED_WIDTH, count, size), generator=random, dtype=dtype, device=device).transpose(
            1, 2
        )
        for count in (heads, *[getattr(config, "num_key_value_heads", None) or heads] * 2)
    )
    columns, lengths = torch.arange(TRIED_WIDTH, device=device), torch.tensor(TRIED_LENGTHS, device=device)[:, None]
    try:
        for mask in (columns < lengths, columns >= TRIED_WIDTH - lengths):
            for window in TRIED_WINDOWS:
                inputs = (bounds_of(mask), window, None)
                expected = attention_by_mask(query.float(), key.float(), value.float(), *inputs)
                if not is_near(segmented_attention(query, key, value, *inputs), expected.to(dtype)):
                    return f"FlashAttention's kernel answers otherwise than SDPA, with window {window}"
    except Exception as error:
        if fault_of(error) == "memory":
            raise
        raise_if_lost(device)
        return f"FlashAttention's kernel does not run here ({one_line(error)[:200]})"
    return None


Window = tuple[int, int]  # tokens that are seen to the left and to the right of each; -1: all


def segmented_attention(query: Any, key: Any, value: Any, bounds: Any, window: Window, scaling: float | None) -> Any:
    """Attention within segments by FlashAttention's kernel for sequences of variable length; only for which has_kernel.

    Source: torch's _flash_attention_forward, which torch.nn.attention.varlen calls from torch 2.10 on, through an operator that
    fills one more tensor each time.

    Args:
        query, key: (rows, heads, width, size), the key's heads as many or a divisor of it; value: as the key, of any size.
        bounds: int32, of segments of the rows * width cells; see bounds_of.

    Returns:
        (rows, width, heads, size of the value).
    """
    import torch

    rows, _, width, size = query.shape
    packed = [one.transpose(1, 2).reshape(rows * width, -1, one.shape[-1]) for one in (query, key, value)]
    # the kernel asks for one size, a multiple of 8; zeros change neither the products nor the sums
    largest = -(-max(size, value.shape[-1]) // 8) * 8
    packed = [torch.nn.functional.pad(one, (0, largest - one.shape[-1])) if one.shape[-1] < largest else one for one in packed]
    left, right = window
    attended = torch.ops.aten._flash_attention_forward(
        *packed,
        *(bounds, bounds),
        *(width, width),
        0.0,  # dropout
        right == 0,  # causal
        False,
        scale=size**-0.5 if scaling is None else scaling,
        window_size_left=left,
        window_size_right=right,
    )[0]
    return attended[..., : value.shape[-1]].unflatten(0, (rows, width))


def attention_by_mask(query: Any, key: Any, value: Any, bounds: Any, window: Window, scaling: float | None) -> Any:
    """What segmented_attention computes, on any device and in any dtype, by SDPA with a mask of all pairs of tokens."""
    import torch

    rows, heads, width, _ = query.shape
    cells = torch.arange(rows * width, device=query.device)
    segments = torch.searchsorted(bounds.long(), cells, right=True).view(rows, width)
    distance = cells[None, :width] - cells[:width, None]
    seen = segments[:, :, None] == segments[:, None, :]
    for limit, beyond in zip(window, (-distance, distance), strict=True):
        seen = seen & ((limit < 0) | (beyond <= limit))
    key, value = (one.repeat_interleave(heads // one.shape[1], dim=1, output_size=heads) for one in (key, value))
    attended = torch.nn.functional.scaled_dot_product_attention(query, key, value, seen[:, None], scale=scaling)
    return attended.transpose(1, 2)
