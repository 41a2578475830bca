"""The activation that sentence-transformers has saved with a CrossEncoder, such as a reranker."""

import json
from typing import Any

from pipeline_ops.models.fetch import model_file
from pipeline_ops.models.heads import Activation
from pipeline_ops.schema.errors import UserError, one_line

SETTINGS = "config_sentence_transformers.json"  # of later versions; before, config.json
ACTIVATIONS: dict[str, Activation] = {
    "torch.nn.modules.linear.Identity": "none",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
    "torch.nn.modules.activation.Softmax": "softmax",
    "torch.nn.Identity": "none",
    "torch.nn.Sigmoid": "sigmoid",
    "torch.nn.Softmax": "softmax",
}


def saved_activation(path: str, folder: str, revision: str | None, model: Any) -> Activation | None:
    """The activation of a CrossEncoder's `predict`; None: a model without one, or with the default for several labels.

    The default, Identity, is saved with every CrossEncoder of several labels. It is no choice, and the pipeline's activation
    makes probabilities of the same order; of a single logit the default is the pipeline's sigmoid, and Identity is a choice.

    Source: sentence_transformers.CrossEncoder (6.2), _parse_model_config and get_default_activation_fn.

    Args:
        path: `model.path`, for messages.
        folder: local folder or hub id.
        model: its transformers config.

    Raises:
        UserError: an activation that is not in ACTIVATIONS.
    """
    saved = _name_of(folder, revision, model)
    if saved is None:
        return None
    activation = ACTIVATIONS.get(str(saved))
    if activation is None:
        raise UserError(
            f"model.path: {path!r} is a CrossEncoder with the activation {saved}, which is none of label-corpus's; choose one"
            f" for it: model.activation=none (the logits), sigmoid or softmax"
        )
    return None if activation == "none" and model.num_labels > 1 else activation


def _name_of(folder: str, revision: str | None, model: Any) -> Any:
    """The dotted name of the class, from where each version of sentence-transformers writes it."""
    file = model_file(folder, SETTINGS, revision)
    if file is not None:
        try:
            with open(file, encoding="utf-8") as settings:
                saved = dict(json.load(settings))
        except (ValueError, TypeError) as error:
            what = f"{SETTINGS} of {folder!r} is cut or damaged ({one_line(error)})"
            raise UserError(f"model.path: {what}; copy or download it again") from error
        if saved.get("model_type") == "CrossEncoder" and saved.get("activation_fn") is not None:
            return saved["activation_fn"]
    of_version_4 = getattr(model, "sentence_transformers", None)
    if isinstance(of_version_4, dict) and "activation_fn" in of_version_4:
        return of_version_4["activation_fn"]
    return getattr(model, "sbert_ce_default_activation_function", None)
