"""A model and an adapter of PEFT -> one model with the adapter's weights merged into its own."""

from collections.abc import Mapping
from typing import Any
from warnings import catch_warnings, simplefilter

from pipeline_ops.models.adapters import NEEDS_PEFT, Adapter
from pipeline_ops.models.config import ModelConfig
from pipeline_ops.schema.errors import UserError, one_line

NAME = "default"  # peft's for a model's only adapter


def check_trained(report: Mapping[str, Any], adapter: Adapter, config: ModelConfig) -> None:
    """Raises UserError for weights that neither the adapted model's files nor the adapter have.

    peft saves of a head what is named `classifier` or `score`. DeBERTa's pooler, for one, is random as well in a base model.

    Args:
        report: of from_pretrained of the adapted model, with output_loading_info.
        config: of the adapter.
    """
    other_size = {name for name, *_ in report["mismatched_keys"]}
    random = sorted({*report["missing_keys"], *other_size} - adapter.shapes.keys())
    if random and not config.allow_new_weights:
        raise UserError(
            f"model.path: neither the adapter {config.path!r} nor its model {adapter.base.path!r} has trained weights for"
            f" {', '.join(random[:4])}, which would be random; train the adapter with them in modules_to_save, or set"
            f" model.allow_new_weights"
        )


def merge(model: Any, adapter: Adapter, path: str) -> Any:
    """Merges an adapter into a sequence classifier that has as many labels; logits change by rounding only.

    Merging is done in the model's dtype: an update below its precision is lost.

    Args:
        model: of transformers, on a CPU, and changed; one on "meta" stays as it is.
        path: `model.path`, for messages.

    Raises:
        UserError: peft is not installed, or adapter and model do not fit.
    """
    if model.device.type == "meta":
        return model
    try:
        from peft import PeftModel
    except ImportError as error:
        raise UserError(f"model.path: {path!r} {NEEDS_PEFT}") from error
    from safetensors import SafetensorError

    try:
        _resize_embeddings(model, adapter)
        with catch_warnings():
            simplefilter("ignore")  # of what is checked here
            wrapped = PeftModel.from_pretrained(model, adapter.folder, adapter_name=NAME, torch_device="cpu")
            # once more, for what from_pretrained does not return: weights left as initialized, and weights without a place
            result = wrapped.load_adapter(adapter.folder, NAME, torch_device="cpu")
            further = {name for name in result.unexpected_keys if not _is_copy(name, adapter)}
            astray = sorted({*result.missing_keys, *further})
            if astray:
                raise ValueError(f"its weights do not fit the model ({', '.join(astray[:3])})")
            return wrapped.merge_and_unload(safe_merge=True)
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, ImportError, SafetensorError) as error:
        raise UserError(
            f"model.path: the adapter {path!r} cannot be merged into {adapter.base.path!r}: {one_line(error)[:300]}"
        ) from error


def _is_copy(name: str, adapter: Adapter) -> bool:
    """Whether it is the bias of a head that the adapter has under its own name as well: with bias "all" peft saves both."""
    return name.removeprefix("base_model.model.").replace(".modules_to_save.", ".") in adapter.shapes


def _resize_embeddings(model: Any, adapter: Adapter) -> None:
    """Gives a model as many token embeddings as an adapter has that was trained with added tokens."""
    table = model.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is table)
    rows = adapter.shapes.get(f"{name}.weight", (table.num_embeddings,))[0]
    if rows != table.num_embeddings:
        model.resize_token_embeddings(rows, mean_resizing=False)
