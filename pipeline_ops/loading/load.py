"""ModelConfig -> a torch sequence classifier in eval mode on its device."""

from typing import Any

from pipeline_ops.models.config import ModelConfig
from pipeline_ops.models.fetch import local_copy
from pipeline_ops.models.padding_side import is_decoder
from pipeline_ops.schema.errors import UserError, one_line
from pipeline_ops.storage.config import StorageConfig

NO_TOKEN = -1  # a pad id that no token has


def load_classifier(
    config: ModelConfig, storage: StorageConfig, *, revision: str | None, dtype: str, device: str, attention: str | None = None
) -> Any:
    """The sequence classification model in eval mode on `device`.

    Attention is transformers' default: torch's fused one (SDPA) if the architecture supports it, else the model's own. BigBird,
    and the encoder of BigBird-Pegasus, gets full attention for all texts: transformers would switch to it for good at the first
    short one, so that results would depend on the order.

    Args:
        revision: commit on the hub.
        dtype: of weights and arithmetic, resolved.
        device: a torch device; "meta" checks that the model can be loaded, without its weights.
        attention: an implementation of transformers, such as "eager".

    Raises:
        UserError: no weights, pickled weights, no trained classification head, or no such head in the architecture.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            local_copy(config, storage, weights=True),
            revision=revision,
            dtype=getattr(torch, dtype),
            trust_remote_code=config.trust_remote_code,
            use_safetensors=None if config.allow_pickled_weights else True,
            output_loading_info=True,
            **({"device_map": "meta"} if device == "meta" else {}),
            **({"attn_implementation": attention} if attention is not None else {}),
        )
        if model.config.model_type in ("big_bird", "bigbird_pegasus") and device != "meta":
            sparse = model.base_model.encoder if model.config.is_encoder_decoder else model.base_model
            sparse.set_attention_type("original_full")
        if is_decoder(model.config) and model.config.get_text_config().pad_token_id is None:
            model.config.get_text_config().pad_token_id = NO_TOKEN  # else it refuses batches; see is_decoder
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = one_line(error)[:300]
        raise UserError(f"model.path: {config.path!r} cannot be loaded as a sequence classifier: {reason}") from error
    missing = sorted(report["missing_keys"])
    if missing and not config.allow_new_weights:
        raise UserError(
            f"model.path: {config.path!r} has no trained classification head ({', '.join(missing[:4])} would be random);"
            f" fine-tune it first (label-corpus train), or set model.allow_new_weights"
        )
    return model.eval() if device == "meta" else model.to(device).eval()
