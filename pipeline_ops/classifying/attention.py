"""What a classifier looks at: the attention of the token that its head reads. For people; no part of labeling."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline_ops.models.resolve import is_decoder
from pipeline_ops.schema.errors import UserError


def attention_of(model: Any, input_ids: Sequence[int], mask: Sequence[int], type_ids: Sequence[int] | None) -> np.ndarray:
    """float32 (tokens,): how much the last layer's heads, on average, look from the token that the head reads at each token.

    That token is the first one, a decoder's the last one. The numbers sum to 1, those of special tokens included.

    Args:
        model: a sequence classification model that was loaded with its own ("eager") attention: fused ones keep no weights.
        input_ids, mask, type_ids: (tokens,), of a single sequence; type_ids None where the model takes none.

    Raises:
        UserError: the model does not tell its attention, or not as weights between all tokens.
    """
    import torch

    inputs = {"input_ids": torch.tensor([list(input_ids)]), "attention_mask": torch.tensor([list(mask)])}
    if type_ids is not None:
        inputs["token_type_ids"] = torch.tensor([list(type_ids)])
    with torch.inference_mode():
        layers = model(**inputs, output_attentions=True).attentions
    count = len(input_ids)
    if not layers or layers[-1] is None or layers[-1].shape[-2:] != (count, count):
        raise UserError(
            f"--attention: a {model.config.model_type} model does not tell how much each token looks at each other one; leave"
            f" it out"
        )
    places = np.flatnonzero(np.asarray(mask))
    reader = int(places[-1] if is_decoder(model.config) else places[0])
    return layers[-1][0, :, reader].float().mean(dim=0).numpy()


def over_text(weights: np.ndarray, is_text: np.ndarray) -> np.ndarray:
    """The share of each token in what goes to the text's tokens, float32 (tokens,): special tokens, where most goes, aside.

    Args:
        weights: float32 (tokens,); is_text: bool (tokens,).
    """
    kept = np.where(is_text, weights, 0)
    return kept / max(float(kept.sum()), 1e-30)
