"""Attention weights of the token that a classifier's head reads, for `label-corpus inspect`; labeling does not use them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline_ops.models.padding_side import is_decoder
from pipeline_ops.schema.errors import UserError


def attention_weights(model: Any, input_ids: Sequence[int], mask: Sequence[int], type_ids: Sequence[int] | None) -> np.ndarray:
    """Attention from the token that the classification head reads to every token, in the last layer, averaged over its heads.

    The head reads the first token; in decoders, the last one.

    Args:
        model: a sequence classification model loaded with `attn_implementation="eager"`: fused kernels return no weights.
        input_ids, mask, type_ids: (tokens,), of a single sequence; type_ids is None where the model takes none.

    Returns:
        float32 (tokens,); sums to 1 over all tokens, special ones included.

    Raises:
        UserError: the model returns no attention, or not as a (tokens, tokens) matrix.
    """
    import torch

    inputs = {"input_ids": torch.tensor([list(input_ids)]), "attention_mask": torch.tensor([list(mask)])}
    if type_ids is not None:
        inputs["token_type_ids"] = torch.tensor([list(type_ids)])
    with torch.inference_mode():
        layers = getattr(model(**inputs, output_attentions=True), "attentions", None)  # encoder-decoders have three others
    count = len(input_ids)
    if not layers or layers[-1] is None or layers[-1].shape[-2:] != (count, count):
        raise UserError(
            f"--attention: models of type {model.config.model_type} return no attention weights between tokens; leave the"
            " option out"
        )
    positions = np.flatnonzero(np.asarray(mask))
    head_position = int(positions[-1] if is_decoder(model.config) else positions[0])
    return layers[-1][0, :, head_position].float().mean(dim=0).numpy()


def normalize_over_text(weights: np.ndarray, is_text: np.ndarray) -> np.ndarray:
    """Weights with special tokens set to 0 and the rest scaled to sum to 1, float32 (tokens,).

    Most attention goes to special tokens, which would hide the text's.

    Args:
        weights: float32 (tokens,); is_text: bool (tokens,).
    """
    text_weights = np.where(is_text, weights, 0)
    return text_weights / max(float(text_weights.sum()), 1e-30)
