"""ModelConfig -> a torch sequence classifier in eval mode on its device."""

from typing import Any

from pipeline_ops.loading.adapters import check_trained, merge
from pipeline_ops.loading.float32_head import keep_head_in_float32
from pipeline_ops.loading.padded_attention import attend_without_waiting
from pipeline_ops.loading.weight_faults import non_finite_weights, report_fault
from pipeline_ops.model_files.config_faults import UNQUANTIZED, quantization_of
from pipeline_ops.model_files.tensor_names import wrappers_of
from pipeline_ops.models.adapters import find_adapter
from pipeline_ops.models.config import ModelConfig
from pipeline_ops.models.fetch import local_copy
from pipeline_ops.models.padding_side import is_decoder
from pipeline_ops.schema.errors import UserError, one_line
from pipeline_ops.storage.config import StorageConfig

MAKES_FLOAT32 = ("deberta", "xlnet")  # kinds whose code makes some weights in float32, and then cannot compute in other dtypes
NO_TOKEN = -1  # a pad id that no token has


def load_classifier(
    config: ModelConfig, storage: StorageConfig, *, revision: str | None, dtype: str, device: str, attention: str | None = None
) -> Any:
    """The sequence classification model in eval mode on `device`.

    Attention is transformers' default: torch's fused one (SDPA) if the architecture supports it, else the model's own; on a GPU
    what padded_attention.py has in SDPA's place. The head is in float32, whatever the dtype (float32_head.py).

    Args:
        revision: commit on the hub; of an adapter's model by config.base_revision.
        dtype: of weights and arithmetic but for the head's, resolved.
        device: a torch device; "meta" checks that the model can be loaded, without its weights.
        attention: an implementation of transformers, such as "eager".

    Raises:
        UserError: no weights, pickled weights, weights that do not fit the configuration or are not finite, no trained
            classification head, or no such head in the architecture.
    """
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    config = config.model_copy(update={"revision": revision})
    adapter = find_adapter(config, storage)
    whole = config if adapter is None else adapter.base
    folder = local_copy(whole, storage, weights=True)
    settings = {
        "revision": whole.revision,
        "dtype": getattr(torch, dtype),
        "trust_remote_code": config.trust_remote_code,
        "use_safetensors": None if config.allow_pickled_weights else True,
        "ignore_mismatched_sizes": True,  # refused below, with both sizes
        "output_loading_info": True,
        **({"device_map": "meta"} if device == "meta" else {}),
        **({} if adapter is None or adapter.num_labels is None else {"num_labels": adapter.num_labels}),
        **({"attn_implementation": attention} if attention is not None else {}),
    }
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(folder, **settings)
        wrappers = wrappers_of(report["unexpected_keys"])
        if wrappers:  # saved from within torch.compile or the like
            names = dict.fromkeys(wrappers, "")
            model, report = AutoModelForSequenceClassification.from_pretrained(folder, key_mapping=names, **settings)
        prepare_for_batches(model)
        if model.config.model_type in MAKES_FLOAT32:
            model.to(getattr(torch, dtype))
    except Exception as error:  # of any kind: quantizers and code of the model's own run here
        raise UserError(f"model.path: {config.path!r} {_reason(folder, whole.revision, error)}") from error
    if adapter is not None:
        check_trained(report, adapter, config)
        model = merge(model, adapter, config.path)
    fault = None if adapter is not None else report_fault(model, report, allow_new_weights=config.allow_new_weights)
    if fault is not None:
        raise UserError(f"model.path: {config.path!r} {fault}")
    keep_head_in_float32(model)
    if device == "meta":
        return model.eval()
    model = model.to(device).eval()
    if model.device.type == "cuda" and attention is None:
        attend_without_waiting(model)
    broken = non_finite_weights(model)
    if broken:
        remedy = "set model.dtype: float32, or " if dtype == "float16" else ""
        raise UserError(
            f"model.path: {config.path!r} has weights that are NaN or infinite in {dtype} ({broken[0]}"
            f"{f' and {len(broken) - 1} more' if len(broken) > 1 else ''}), so that no text would get a label; {remedy}give a"
            " model whose training has not diverged"
        )
    return model


def prepare_for_batches(model: Any) -> None:
    """Has a classifier answer a text alike in every batch.

    BigBird, and the encoder of BigBird-Pegasus, gets full attention for all texts: transformers would switch to it for good at
    the first short one, so that results would depend on the order. Decoders without a padding token refuse batches, see
    is_decoder: they get NO_TOKEN for one.
    """
    config = model.config
    if config.model_type in ("big_bird", "bigbird_pegasus"):
        sparse = model.base_model.encoder if config.is_encoder_decoder else model.base_model
        sparse.set_attention_type("original_full")
    if is_decoder(config) and config.get_text_config().pad_token_id is None:
        config.get_text_config().pad_token_id = NO_TOKEN


def _reason(folder: str, revision: str | None, error: Exception) -> str:
    """Why from_pretrained has failed, behind the model's path."""
    reason = one_line(error)[:300]
    method = _quantization(folder, revision)
    if method is not None:
        return f"is quantized by {method} and cannot be loaded here ({reason}); {UNQUANTIZED}"
    return f"cannot be loaded as a sequence classifier: {reason}"


def _quantization(folder: str, revision: str | None) -> str | None:
    from transformers import PreTrainedConfig

    try:
        return quantization_of(PreTrainedConfig.get_config_dict(folder, revision=revision)[0])
    except OSError:  # the error says so
        return None
