"""What is wrong with a model's config.json, before transformers reads it: its kind, its label names, how it is quantized.

FAULTS is an ordered list of small checks, as in folder_faults.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pipeline_ops.schema.errors import UserError

# packages that transformers needs for weights quantized by a method; by others it needs none, or a GPU's kernels only
QUANTIZATION_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "aqlm": ("aqlm",),
    "auto-round": ("auto-round",),
    "awq": ("gptqmodel",),
    "bitsandbytes": ("bitsandbytes",),
    "compressed-tensors": ("compressed-tensors",),
    "gptq": ("optimum", "gptqmodel"),
    "hqq": ("hqq",),
    "quanto": ("optimum-quanto",),
    "quark": ("amd-quark",),
    "torchao": ("torchao",),
    "vptq": ("vptq",),
}
UNQUANTIZED = "give the model as it was before quantization"
NEEDS_CODE = (
    "is a {kind} model of Python code that comes with it: read that code, then set model.trust_remote_code: true, which runs it"
    " on your machines with your rights"
)
WRITTEN = "give a folder that save_pretrained wrote"


@dataclass(frozen=True)
class Configuration:
    """A config.json, and what the job says of it."""

    settings: Mapping[str, Any]
    trust_remote_code: bool
    named_ids: frozenset[int]  # labels to which `model.id2label` gives a name by their id

    @property
    def kind(self) -> str | None:
        return self.settings.get("model_type")

    @property
    def names(self) -> Any:
        """id2label as it is; not checked."""
        return self.settings.get("id2label")

    @property
    def size(self) -> int:
        """The number of labels that transformers gives the head."""
        return int(self.settings.get("num_labels") or len(self.names))


def check_settings(
    path: str, settings: Mapping[str, Any], *, trust_remote_code: bool, renamed: Collection[int | str] = ()
) -> None:
    """Raises UserError for a configuration that transformers does not know, or that does not say which label is which.

    Args:
        path: `model.path`.
        settings: of config.json.
        renamed: ids and old names of the labels to which `model.id2label` gives names.
    """
    named_ids = frozenset(int(key) for key in renamed if str(key).isdecimal())
    configuration = Configuration(settings, trust_remote_code, named_ids)
    for fault_of in FAULTS:
        fault = fault_of(configuration)
        if fault is not None:
            raise UserError(f"model.path: {path!r} {fault}")


def _is_mixin(config: Configuration) -> str | None:
    """As nvidia/domain-classifier: a base model by its name, and weights of a class that only its model card has."""
    base = config.settings.get("base_model")
    if config.kind is not None or not isinstance(base, str):
        return None
    return (
        f"is a PyTorchModelHubMixin: weights of a class of its own around {base!r}, whose code is not in transformers nor in"
        " the folder; label with the script of its model card, or fine-tune a sequence classifier on what that answers"
        " (label-corpus train)"
    )


def _has_no_kind(config: Configuration) -> str | None:
    if config.kind or config.settings.get("auto_map"):
        return None
    return f"is no model of transformers: its config.json has no model_type; {WRITTEN}"


def _has_code(config: Configuration) -> str | None:
    from transformers import CONFIG_MAPPING

    code = config.settings.get("auto_map")
    if not code or config.trust_remote_code or config.kind in CONFIG_MAPPING:
        return None
    return NEEDS_CODE.format(kind=config.kind or "custom")


def _has_unknown_kind(config: Configuration) -> str | None:
    from transformers import CONFIG_MAPPING

    if config.kind in CONFIG_MAPPING or config.settings.get("auto_map"):
        return None
    writer = config.settings.get("transformers_version")
    written = f", written by transformers {writer}," if writer else ""
    return (
        f"is a {config.kind} model{written} which transformers {version('transformers')} here does not know; install a newer"
        " version (pip install -U transformers), or give another model"
    )


def _is_quantized(config: Configuration) -> str | None:
    """By a method that is unknown, or for which a package is missing; what a GPU lacks shows when weights are loaded."""
    if not config.settings.get("quantization_config"):
        return None
    from transformers.utils.quantization_config import QuantizationMethod

    method = quantization_of(config.settings)
    if method not in {one.value for one in QuantizationMethod}:  # transformers would load the numbers as they are
        return (
            f"is quantized by {method or 'a method that its config.json does not name'}, which is unknown here; {UNQUANTIZED}"
        )
    missing = [package for package in QUANTIZATION_PACKAGES.get(method, ()) if not _is_installed(package)]
    if not missing:
        return None
    packages = " ".join(missing)
    return (
        f"is quantized by {method}, which needs what is not installed: pip install {packages} (and a GPU, for most methods);"
        f" or {UNQUANTIZED}"
    )


def quantization_of(settings: Mapping[str, Any]) -> str | None:
    """The method that a config.json says its weights are quantized by; None: it names none."""
    found = settings.get("quantization_config") or {}
    if found.get("load_in_8bit") or found.get("load_in_4bit"):
        return "bitsandbytes"
    return found.get("quant_method")


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _has_no_names_by_id(config: Configuration) -> str | None:
    """transformers cannot read these at all, so that `model.id2label` is no remedy; it makes names up where there are none."""
    names = config.names
    if names is None:
        return None
    if isinstance(names, Mapping) and names and all(str(key).isdecimal() for key in names):
        return None
    found = f"{next(iter(names))!r}" if isinstance(names, Mapping) and names else f"{names!r}"[:40]
    return f'has no names by id in id2label of its config.json ({found}): correct it to {{"0": NAME, "1": NAME}}'


def _has_other_ids(config: Configuration) -> str | None:
    if config.names is None or config.named_ids.issuperset(range(config.size)):
        return None
    ids = sorted(int(key) for key in config.names)
    if ids != list(range(len(ids))):
        shown = ", ".join(map(str, ids)) if len(ids) < 6 else f"{ids[0]} to {ids[-1]}"
        what = f"has the ids {shown} in id2label of its config.json, and a head counts from 0 to {len(ids) - 1}"
    elif config.size != len(ids):
        what = f"has num_labels {config.size} and {len(ids)} names in id2label of its config.json"
    else:
        return None
    more = ", ..." if config.size > 2 else ""
    return f"{what}: which label is which is not known; name all of the head's: model.id2label='{{0: NAME, 1: NAME{more}}}'"


def _has_no_name(config: Configuration) -> str | None:
    for key, name in (config.names or {}).items():
        if (isinstance(name, str | int | float) and str(name)) or int(key) in config.named_ids:
            continue
        what = f"has {name!r} as the name of label {key} in id2label of its config.json"
        return f"{what}; give it one: model.id2label='{{{key}: NAME}}'"
    return None


FAULTS: tuple[Callable[[Configuration], str | None], ...] = (
    _is_mixin,
    _has_no_kind,
    _has_code,
    _has_unknown_kind,
    _is_quantized,
    _has_no_names_by_id,
    _has_other_ids,
    _has_no_name,
)


def label_remarks(settings: Mapping[str, Any]) -> list[str]:
    """Sentences about label names that are taken, but may be others than whoever trained the model meant."""
    names, ids = settings.get("id2label"), settings.get("label2id")
    if not isinstance(names, Mapping) or not isinstance(ids, Mapping):
        return []
    differing = [name for key, name in names.items() if str(ids.get(str(name), key)) != str(key)]
    if not differing:
        return []
    return [
        f"id2label and label2id of the model's config.json contradict each other ({differing[0]!r} has the id"
        f" {ids[str(differing[0])]} in label2id); labels are named by id2label, as by transformers' pipeline"
    ]
