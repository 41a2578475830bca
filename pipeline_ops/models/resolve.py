"""ModelConfig -> ModelFacts and the tokenizer: everything about a model that does not need its weights. No torch."""

import sys
from typing import Any, NamedTuple

from pipeline_ops.model_files.config_faults import NEEDS_CODE, check_settings, label_remarks
from pipeline_ops.model_files.folder_faults import check_folder
from pipeline_ops.models.adapters import find_adapter, fit_head
from pipeline_ops.models.config import ModelConfig, ModelFacts
from pipeline_ops.models.cross_encoder import saved_activation
from pipeline_ops.models.fetch import hub_commit, is_hub_id, local_copy, model_identity
from pipeline_ops.models.flops import token_flops_of
from pipeline_ops.models.head_weights import check_head
from pipeline_ops.models.heads import resolve_head
from pipeline_ops.models.padding_side import pad_id_of, pads_left
from pipeline_ops.models.tokenizer import (
    check_sequences,
    check_tokenizer,
    load_tokenizer,
    measured_speed,
    resolve_max_length,
    tokenizer_hash,
    unembedded_remarks,
)
from pipeline_ops.schema.errors import UserError, one_line
from pipeline_ops.storage.config import StorageConfig
from pipeline_ops.storage.store import Store
from pipeline_ops.tokenizing.windows import resolve_windows

MORE_THAN_TEXT = ("layoutlm", "layoutlmv2", "layoutlmv3", "lilt", "markuplm", "modernvbert", "perceiver", "tapas", "ultravbert")
# kinds of sequence classifiers of transformers that cannot label texts -> why
REFUSED_KINDS = {
    **dict.fromkeys(MORE_THAN_TEXT, "reads more than text"),
    "mra": "takes zeros for its attention wherever its own CUDA kernel is not built",
    "reformer": "hashes at random, so that its answers change from run to run",
}
# kinds that compute in float32 alone -> why
FLOAT32_KINDS = {"fnet": "whose Fourier transforms have no lower precision"}


def block_torch_import() -> None:
    """Make transformers skip importing torch in this process: configurations and tokenizers do not need it (2 s of CPU).

    No effect if torch is imported already. No model can be loaded in this process afterwards.
    """
    if "torch" in sys.modules:
        return
    sys.modules["torch"] = None  # pyright: ignore[reportArgumentType] so the import system spells "not to be found"
    try:
        from transformers.utils.import_utils import is_torch_available

        is_torch_available()  # caches its result
    finally:
        del sys.modules["torch"]


class ResolvedModel(NamedTuple):
    """What resolve_model finds out."""

    facts: ModelFacts
    tokenizer: Any  # transformers'
    token_flops: float | None  # per token, estimated; see flops.token_flops_of
    remarks: tuple[str, ...] = ()  # sentences about what works, but may not be what was meant
    tokens_per_core: float | None = None  # that a core tokenizes in a second, measured; None: the tokenizer is a fast one


def resolve_model(config: ModelConfig, storage: StorageConfig, *, pairs: bool = False) -> ResolvedModel:
    """Identify a model exactly, and load its tokenizer, without its weights.

    Args:
        pairs: documents are pairs of texts.

    Raises:
        UserError: no such model, not a text classifier, no trained head, pickled weights, a tokenizer that cannot be used, no
            usable max_length, or a setting that does not fit its head.
    """
    if is_hub_id(config.path):
        config = config.model_copy(update={"revision": hub_commit(config)})
    adapter = find_adapter(config, storage)
    whole = config if adapter is None else adapter.base
    if not is_hub_id(whole.path):
        check_folder(
            whole.path,
            Store(whole.path, storage),
            allow_pickled_weights=config.allow_pickled_weights,
            allow_new_weights=config.allow_new_weights or adapter is not None,
        )
    folder = local_copy(whole, storage, weights=False)
    model, settings = _load_configuration(whole, folder)
    _check_architecture(whole, model)
    fitted = check_head(config, storage, model) if adapter is None else fit_head(adapter, config, storage, model)
    remarks = [*fitted, *label_remarks(settings)]
    own = adapter.folder if adapter is not None and adapter.has_tokenizer else None
    tokenizer = load_tokenizer(whole, folder) if own is None else load_tokenizer(config, own)
    check_tokenizer(config, tokenizer)
    special = tokenizer.num_special_tokens_to_add(pair=pairs)
    max_length = resolve_max_length(config, model, tokenizer, special)
    windows = resolve_windows(config, max_length - special, pairs)
    check_sequences(config, tokenizer, max_length, pairs=pairs, windows=windows)
    labels = [str(model.id2label.get(index, "")) for index in range(int(model.num_labels))]  # "": has a name in the job file
    follows = config.activation == config.problem_type == "auto"  # else the job file says what the logits are
    saved = saved_activation(whole.path, folder, whole.revision, model) if follows else None
    facts = ModelFacts(
        path=config.path,
        revision=config.revision,
        weights=model_identity(config, storage) if adapter is None else adapter.identity,
        tokenizer_hash=tokenizer_hash(tokenizer),
        max_length=max_length,
        head=resolve_head(config, labels, model.problem_type, saved),
        pad_id=pad_id_of(model, tokenizer),
        pad_type_id=tokenizer.pad_token_type_id,
        pad_left=pads_left(model, tokenizer.padding_side),
        has_type_ids="token_type_ids" in tokenizer.model_input_names,
        pairs=pairs,
        windows=windows,
        model_type=model.model_type,
        adapted=None if adapter is None else adapter.adapted_model(storage),
    )
    tokens_per_core, speed_remarks = measured_speed(tokenizer, max_length)
    remarks += [*unembedded_remarks(model, tokenizer), *speed_remarks]
    return ResolvedModel(facts, tokenizer, token_flops_of(model), tuple(remarks), tokens_per_core)


def _load_configuration(config: ModelConfig, folder: str) -> tuple[Any, dict[str, Any]]:
    """(the configuration as transformers has it, as its config.json has it).

    Args:
        folder: what from_pretrained takes: a local folder or a hub id.
    """
    from transformers import AutoConfig, PreTrainedConfig

    try:
        settings, _ = PreTrainedConfig.get_config_dict(folder, revision=config.revision)
        check_settings(config.path, settings, trust_remote_code=config.trust_remote_code, renamed=[*(config.id2label or {})])
        model = AutoConfig.from_pretrained(folder, revision=config.revision, trust_remote_code=config.trust_remote_code)
    except UserError:
        raise
    except Exception as error:  # of any kind: settings of the wrong type, code of the model's own
        raise UserError(
            f"model.path: the configuration of {config.path!r} cannot be read ({one_line(error)[:300]}); give a folder that"
            " save_pretrained wrote, or a model on the hub that can be reached from here"
        ) from error
    return model, settings


def _check_architecture(config: ModelConfig, model: Any) -> None:
    """Raises UserError for an architecture that has no sequence classifier in transformers, or one that cannot label texts."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

    kind = model.model_type
    refusal = REFUSED_KINDS.get(kind)
    if kind == "yoso" and not model.use_expectation:
        refusal = "hashes at random without `use_expectation`, so that its answers change from run to run"
    if refusal is not None:
        raise UserError(f"model.path: {config.path!r} is a {kind} model, which {refusal}; give another model")
    if kind in FLOAT32_KINDS and config.dtype not in ("auto", "float32"):
        raise UserError(
            f"model.dtype: {config.dtype!r} for a {kind} model, {FLOAT32_KINDS[kind]}; leave it out, or set it to float32"
        )
    has_code = "AutoModelForSequenceClassification" in (getattr(model, "auto_map", None) or {})
    if has_code and not config.trust_remote_code and kind not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        raise UserError(f"model.path: {config.path!r} {NEEDS_CODE.format(kind=kind)}")
    if kind not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES and not has_code:
        raise UserError(
            f"model.path: {config.path!r} is a {kind} model, and transformers has no sequence classifier of that kind; give"
            f" another model"
        )
