"""On which side batches are padded: left for decoders, whose heads read the last token that is no padding.

And the kinds of models for which padding is harmful on either side.
"""

from typing import Any

# kinds whose answers depend on padding, although it is masked
DEPENDS_ON_PADDING = {
    "canine",  # pools four characters to one
    "convbert",  # convolutions
    "fnet",  # Fourier transforms over all tokens; takes no mask
    "funnel",  # pools
    "nystromformer",  # landmarks among all tokens, and convolutions
    "t5gemma",  # the head reads the token behind the last one, if there is one
    "t5gemma2",
    "yoso",  # takes a mask of 0 and 1 for another one
}
DEPENDS = "answers depend on padding"  # why batches of a model are without it


def is_decoder(model: Any) -> bool:
    """True for decoder-only models, whose heads read the last token that is no padding.

    If the padding token also ends texts, or the configuration has no padding token, the head finds that token only if padding
    is on the left.

    Args:
        model: a configuration of transformers.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

    kind = model.model_type
    if model.is_encoder_decoder:  # their decoders alone are causal language models as well
        return False
    return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def pad_id_of(model: Any, tokenizer: Any) -> int:
    """The id that fills batches: of the tokenizer's padding token, else the one that the model's head passes over, else 0.

    Behind a mask any id will do, as far as a model's answers do not depend on padding, which is tried when it is loaded.

    Args:
        model: a configuration of transformers.
    """
    if tokenizer.pad_token_id is not None:
        return tokenizer.pad_token_id
    return max(0, model.get_text_config().pad_token_id or 0)


def known_reason(model_type: str) -> str | None:
    """Why batches of that kind of model have to be without padding; None: no reason is known."""
    return DEPENDS if model_type in DEPENDS_ON_PADDING else None


def padding_line(model_type: str, reason: str) -> str:
    """What a user sees about a model whose batches have to be without padding."""
    return f"{model_type}: {reason}, so rows of equal length share a batch"


def pads_left(model: Any, padding_side: str) -> bool:
    """True if batches are padded on the left: always for decoders (see is_decoder), never for encoder-decoders.

    The encoders of encoder-decoders take no position ids and would count the padding, and their decoders would begin with it.

    Args:
        model: a configuration of transformers.
        padding_side: the tokenizer's; it decides for all other models.
    """
    return not model.is_encoder_decoder and (padding_side == "left" or is_decoder(model))
