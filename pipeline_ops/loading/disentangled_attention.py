"""DeBERTa-v2 and -v3's attention in one kernel, in place of a dozen passes over tensors of (rows, heads, length, length).

transformers computes the three terms of a score, content to content, content to position and position to content, as tensors of
their own. Here torch's FlexAttention adds the latter two to each score within its kernel. It reads them from two products whose
size is linear in the length: queries by relative keys, and keys by relative queries.

Source: He et al. 2021, DeBERTa (arXiv:2006.03654), equations 2 to 4; transformers' DisentangledSelfAttention.
"""

import sys
import time
from collections.abc import Sequence
from functools import cache, partial
from math import sqrt
from typing import Any

from pipeline_ops.loading.device_errors import raise_if_lost
from pipeline_ops.loading.same_answers import is_near, random_rows
from pipeline_ops.schema.errors import one_line

# rows and tokens
TRIED = ((2, 32), (3, 160))  # to compare answers: two, so that what is compiled is not for the first one alone
TIMED = (16, 512)
WARM_UP_PASSES = 2
# Values of a product of queries by relative keys, whose places the kernel counts in int32. 24 heads (v2-xlarge) exceed it with
# the tokens that an H200 has memory for, by 1.5 times.
MAX_PRODUCT = 2**31 - 1
# Graphs of a compiled function in a process, beyond which a new shape is an error: torch would go on eagerly, without a word.
# Of layers, static widths up to 8,192 are 56, times two for one row or many, times two with or without a mask, times kinds.
MAX_GRAPHS = 512
LEAST_TABLE = 512  # relative positions in a table: of all lengths up to it there is one table, and so one compiled kernel


def fuse_disentangled_attention(model: Any) -> None:
    """Replaces the attention of a DeBERTa-v2 or -v3 in eval mode; other models stay as they are.

    Where the attention has other terms than the three (`pos_att_type`), it stays as well, and where it cannot be compiled, or
    is not faster: then a line on stderr says so. What tokens of padding attend to is undefined afterwards; no other token reads
    them.
    """
    from transformers.models.deberta_v2.modeling_deberta_v2 import DebertaV2Encoder

    for encoder in [module for module in model.modules() if isinstance(module, DebertaV2Encoder)]:
        attentions: list[Any] = [layer.attention.self for layer in encoder.layer]  # pyright: ignore[reportAttributeAccessIssue]
        if all(one.relative_attention and {"c2p", "p2c"} <= set(one.pos_att_type) for one in attentions):
            _fuse(encoder, attentions)


def has_fused_attention(model: Any) -> bool:
    """Whether fuse_disentangled_attention has replaced a model's attention."""
    return any(
        isinstance(vars(module).get("forward"), partial) and vars(module)["forward"].func is _attention
        for module in model.modules()
    )


def _fuse(encoder: Any, attentions: Sequence[Any]) -> None:
    expected, seconds_before = [_answers_of(encoder, *shape) for shape in TRIED], _seconds_of(encoder)
    for one in attentions:
        one.forward = partial(_attention, one)
    # transformers' are (rows, 1, length, length), and computed with numbers that it copies to the GPU for each pass
    encoder.get_attention_mask = _key_mask
    encoder.get_rel_pos = partial(_relative_positions, attentions[0])
    why_not = None
    try:
        answers = [_answers_of(encoder, *shape) for shape in TRIED]
        if not all(is_near(*both, kernels=len(attentions)) for both in zip(answers, expected, strict=True)):
            why_not = "its answers would be others"
        elif (seconds := _seconds_of(encoder)) > seconds_before:
            why_not = f"it would take {seconds / seconds_before:.2f} times as long"
    except Exception as error:  # of the compiler, of any kind
        raise_if_lost(attentions[0].query_proj.weight.device)
        why_not = one_line(error)[:200]
    if why_not is not None:
        print(f"DeBERTa's attention is not fused: {why_not}", file=sys.stderr)
        for one in attentions:
            del one.forward
        del encoder.get_attention_mask, encoder.get_rel_pos


def _answers_of(encoder: Any, rows: int, length: int) -> Any:
    """The encoder's answers to random states of rows, the last one padded: of the tokens that are no padding."""
    import torch

    states = random_rows(encoder.layer[0].attention.self.query_proj.weight, rows, length)
    mask = torch.ones((rows, length), dtype=torch.long, device=states.device)
    mask[-1, length // 2 :] = 0
    with torch.inference_mode():
        return encoder(states, mask).last_hidden_state[mask.bool()]


def _seconds_of(encoder: Any) -> float:
    """What a pass through the encoder takes on a GPU; on a CPU, where tests run it, 0."""
    import torch

    if encoder.layer[0].attention.self.query_proj.weight.device.type != "cuda":
        return 0.0
    for _ in range(WARM_UP_PASSES):
        _answers_of(encoder, *TIMED)
    torch.cuda.synchronize()
    begin = time.monotonic()
    _answers_of(encoder, *TIMED)
    torch.cuda.synchronize()
    return time.monotonic() - begin


def _key_mask(attention_mask: Any) -> Any:
    return attention_mask.bool()


def _relative_positions(attention: Any, hidden_states: Any, query_states: Any = None, relative_pos: Any = None) -> Any:
    """For each distance of a query from a key, from -(size - 1) to size - 1, its row in the table of relative embeddings."""
    size = max(LEAST_TABLE, 1 << (hidden_states.shape[1] - 1).bit_length())
    return _table(
        size, attention.position_buckets, attention.max_relative_positions, attention.pos_ebd_size, hidden_states.device
    )


@cache
def _table(size: int, buckets: int, max_relative_positions: int, span: int, device: Any) -> Any:
    import torch
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    distances = torch.arange(1 - size, size)
    if buckets > 0 and max_relative_positions > 0:
        distances = make_log_bucket_position(distances, buckets, max_relative_positions).long()
    table = (distances + span).clamp(0, 2 * span - 1).int().to(device)
    torch._dynamo.mark_static(table)  # its middle is a constant of the kernel
    return table


def _attention(
    module: Any,
    hidden_states: Any,
    attention_mask: Any,
    output_attentions: bool = False,
    query_states: Any = None,
    relative_pos: Any = None,
    rel_embeddings: Any = None,
) -> tuple[Any, None]:
    """In place of DisentangledSelfAttention.forward, with the results of _key_mask and _relative_positions."""
    import torch

    rows, length, _ = hidden_states.shape
    heads = module.num_attention_heads
    most = max(1, MAX_PRODUCT // (heads * length * 2 * module.pos_ebd_size))
    if rows > most:
        parts = zip(hidden_states.split(most), attention_mask.split(most), strict=True)
        attended = [_attention(module, *part, relative_pos=relative_pos, rel_embeddings=rel_embeddings)[0] for part in parts]
        return torch.cat(attended), None

    def by_head(projection: Any, states: Any) -> Any:
        """(tokens, heads, size of a head)."""
        return projection(states).view(-1, heads, module.attention_head_size)

    query, key, value = (by_head(one, hidden_states) for one in (module.query_proj, module.key_proj, module.value_proj))
    relative = module.pos_dropout(rel_embeddings)[: 2 * module.pos_ebd_size]
    shared = module.share_att_key
    relative_key = by_head(module.key_proj if shared else module.pos_key_proj, relative)
    relative_query = by_head(module.query_proj if shared else module.pos_query_proj, relative)
    to_position = torch.bmm(query.transpose(0, 1), relative_key.permute(1, 2, 0))  # (heads, tokens, relative positions)
    from_position = torch.bmm(key.transpose(0, 1), relative_query.permute(1, 2, 0))
    attend = _compiled_attend if hidden_states.is_cuda else _attend
    queries, keys, values = (one.view(rows, length, heads, -1).transpose(1, 2) for one in (query, key, value))
    to_position, from_position = (one.view(heads, rows, length, -1) for one in (to_position, from_position))
    context = attend(queries, keys, values, to_position, from_position, relative_pos, attention_mask)
    return context.transpose(1, 2).reshape(rows, length, -1), None


def _attend(query: Any, key: Any, value: Any, to_position: Any, from_position: Any, table: Any, key_mask: Any) -> Any:
    """(rows, heads, length, size of a head); the first three the same, key_mask (rows, length)."""
    import torch
    from torch.nn.attention.flex_attention import flex_attention

    scale, center = 1 / sqrt(3 * query.shape[-1]), table.shape[0] // 2

    def score_of(score: Any, row: Any, head: Any, query_index: Any, key_index: Any) -> Any:
        position = table[query_index - key_index + center]
        terms = to_position[head, row, query_index, position] + from_position[head, row, key_index, position]
        return torch.where(key_mask[row, key_index], score + terms * scale, -float("inf"))

    # else a single row of less than 128 tokens has another kernel, for decoding, which was not tried when the model was loaded
    one_kernel: Any = {"FORCE_USE_FLEX_ATTENTION": True}
    return flex_attention(query, key, value, score_mod=score_of, scale=scale, kernel_options=one_kernel)


def _compiled_attend(query: Any, key: Any, value: Any, to_position: Any, from_position: Any, table: Any, key_mask: Any) -> Any:
    """_attend, by one kernel for all batches: of any number of rows, and of any length up to the table's."""
    import torch
    from torch._dynamo import maybe_mark_dynamic

    if not torch.compiler.is_compiling():  # else the kernel is part of a larger graph
        allow_graphs()
        for one, row, length in (
            *((one, 0, 2) for one in (query, key, value)),
            *((one, 1, 2) for one in (to_position, from_position)),
            (key_mask, 0, 1),
        ):
            maybe_mark_dynamic(one, (row, length))
    return _compiled()(query, key, value, to_position, from_position, table, key_mask)


def allow_graphs() -> None:
    """Sets MAX_GRAPHS in place of torch's 8, for this thread; to be called before what torch.compile has made.

    Settings are a thread's own in torch 2.13 (not yet in 2.11), and Ray Data calls an actor in another one than constructs it.
    """
    import torch

    config = torch._dynamo.config
    if config.recompile_limit != MAX_GRAPHS or not config.fail_on_recompile_limit_hit:
        config.recompile_limit = config.accumulated_recompile_limit = MAX_GRAPHS  # of a function, and all layers have the same
        config.fail_on_recompile_limit_hit = True


@cache
def _compiled() -> Any:
    import torch

    return torch.compile(_attend)
