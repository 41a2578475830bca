"""A BERT layer in fewer kernels than transformers' (BertLayerVariant), for measurements: the same weights, the same function.

Not for labeling: GELU's tanh approximation and FP8 change logits.
"""

from typing import Any

import torch

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0  # of e4m3


class BertLayerVariant(torch.nn.Module):
    """Takes the place of a transformers BertLayer in eval mode, and its weights.

    Args:
        layer: the BertLayer.
        fused_qkv: one matrix product for queries, keys and values.
        gelu_in_gemm: GELU by its tanh approximation in the epilogue of the product before it (cuBLASLt), not by a kernel.
        fp8: which matrix products are of e4m3 numbers, scaled by row of the activations, at the time, and by row of the
            weights: "all" of the layer's linear ones, or those of the "feed-forward" block; None: none.
        varlen: FlashAttention's kernel for sequences of variable length, in place of SDPA; takes no mask.
    """

    def __init__(
        self,
        layer: Any,
        *,
        fused_qkv: bool = False,
        gelu_in_gemm: bool = False,
        fp8: str | None = None,
        varlen: bool = False,
    ):
        super().__init__()
        attention = layer.attention.self
        self.heads, self.head_size = attention.num_attention_heads, attention.attention_head_size
        self.gelu_in_gemm, self.varlen = gelu_in_gemm, varlen
        parts = [attention.query, attention.key, attention.value]
        make = Fp8Linear if fp8 == "all" else PlainLinear
        make_inner = PlainLinear if fp8 is None else Fp8Linear
        fused = [(torch.cat([one.weight for one in parts]), torch.cat([one.bias for one in parts]))]
        separate = [(one.weight, one.bias) for one in parts]
        self.inputs = torch.nn.ModuleList(make(*one) for one in (fused if fused_qkv else separate))
        self.output = make(layer.attention.output.dense.weight, layer.attention.output.dense.bias)
        self.up = make_inner(layer.intermediate.dense.weight, layer.intermediate.dense.bias)
        self.down = make_inner(layer.output.dense.weight, layer.output.dense.bias)
        self.first_norm, self.second_norm = layer.attention.output.LayerNorm, layer.output.LayerNorm

    def forward(self, hidden_states: Any, attention_mask: Any = None, *others: Any, **more: Any) -> Any:
        """hidden_states: (rows, width, hidden), the same is returned; attention_mask: as SDPA takes it."""
        rows, width, _ = hidden_states.shape
        shape = (rows, width, -1, self.heads, self.head_size)
        parts = [part for linear in self.inputs for part in linear(hidden_states).view(shape).unbind(2)]
        if self.varlen:
            attended = varlen_attention(*parts)
        else:
            query, key, value = (part.transpose(1, 2) for part in parts)
            attended = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
            attended = attended.transpose(1, 2)
        hidden_states = self.first_norm(hidden_states + self.output(attended.reshape(hidden_states.shape)))
        if self.gelu_in_gemm:
            flat = hidden_states.view(rows * width, -1)
            inner = linear_gelu(flat, self.up.weight, self.up.bias).view(rows, width, -1)
        else:
            inner = torch.nn.functional.gelu(self.up(hidden_states))
        return self.second_norm(hidden_states + self.down(inner))


class PlainLinear(torch.nn.Module):
    """torch.nn.Linear of given tensors."""

    def __init__(self, weight: Any, bias: Any):
        super().__init__()
        self.weight, self.bias = (torch.nn.Parameter(one.detach(), requires_grad=False) for one in (weight, bias))

    def forward(self, inputs: Any) -> Any:
        return torch.nn.functional.linear(inputs, self.weight, self.bias)


class Fp8Linear(torch.nn.Module):
    """A linear layer in e4m3: weights (out, in) scaled by row, once; inputs by row, each time. Sums are in float32."""

    def __init__(self, weight: Any, bias: Any):
        super().__init__()
        values, scales = quantize_rows(weight)
        self.weight = torch.nn.Parameter(values.t(), requires_grad=False)  # column-major, as _scaled_mm takes it
        self.scales = torch.nn.Parameter(scales.t().contiguous(), requires_grad=False)
        self.bias = torch.nn.Parameter(bias.detach(), requires_grad=False)

    def forward(self, inputs: Any) -> Any:
        flat = inputs.reshape(-1, inputs.shape[-1])
        values, scales = quantize_rows(flat)
        if inputs.is_cuda:
            outputs = torch.ops.aten._scaled_mm(
                values, self.weight, scales, self.scales, bias=self.bias, out_dtype=inputs.dtype, use_fast_accum=True
            )
        else:  # a rehearsal: the same numbers, multiplied in float32
            product = (values.float() * scales) @ (self.weight.float() * self.scales)
            outputs = (product + self.bias.float()).to(inputs.dtype)
        return outputs.view(*inputs.shape[:-1], -1)


def quantize_rows(tensor: Any) -> tuple[Any, Any]:
    """(e4m3 (rows, columns), float32 (rows, 1) that it has been divided by), of a matrix."""
    wide = tensor.float()
    scales = wide.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / FP8_MAX
    return (wide / scales).clamp(-FP8_MAX, FP8_MAX).to(FP8), scales


@torch.library.custom_op("label_corpus::linear_gelu", mutates_args=())
def linear_gelu(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """GELU (tanh) of a linear layer, (rows, in) -> (rows, out), in one kernel; the compiler would make two of it."""
    return torch.ops.aten._addmm_activation(bias, inputs, weight.t(), use_gelu=True)


@linear_gelu.register_fake
def _(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return inputs.new_empty((inputs.shape[0], weight.shape[0]))


def varlen_attention(query: Any, key: Any, value: Any) -> Any:
    """Attention of (rows, width, heads, size), each row a sequence; on a CPU by SDPA."""
    rows, width = query.shape[:2]
    if not query.is_cuda:
        parts = (one.transpose(1, 2) for one in (query, key, value))
        return torch.nn.functional.scaled_dot_product_attention(*parts).transpose(1, 2)
    from torch.nn.attention.varlen import varlen_attn

    bounds = torch.arange(0, (rows + 1) * width, width, dtype=torch.int32, device=query.device)
    query, key, value = (one.flatten(0, 1) for one in (query, key, value))
    attended: Any = varlen_attn(query, key, value, bounds, bounds, width, width)
    return attended.unflatten(0, (rows, width))
