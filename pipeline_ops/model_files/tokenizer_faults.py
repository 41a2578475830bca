"""Why a tokenizer cannot be loaded: which of its files is damaged, or was written by a newer version of a library."""

import json
import os
import re
from importlib.metadata import version

from pipeline_ops.schema.errors import one_line

AGAIN = "copy or download it again"


def tokenizer_fault(folder: str, error: Exception) -> str:
    """The message about an error of from_pretrained, behind the tokenizer's name.

    Args:
        folder: a local folder, or a hub id, whose files are not looked at.
    """
    reason = one_line(error)[:300]
    damaged = _damaged_file(folder) if os.path.isdir(folder) else None
    if damaged is not None:
        return f"cannot be read: {damaged}; {AGAIN}"
    part = re.search(r"untagged enum (\w+?)(Untagged)? at line", reason)
    if part is not None:
        return (
            f"has a {part[1]} in its tokenizer.json that tokenizers {version('tokenizers')} does not know; a newer one wrote"
            " it: pip install -U tokenizers transformers"
        )
    return f"cannot be loaded ({reason}); save it again with save_pretrained, into the folder of the model"


def _damaged_file(folder: str) -> str | None:
    """The first of its JSON files that is none, with the place; None: all are."""
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name.endswith(".json") and os.path.isfile(path):
            try:
                with open(path, encoding="utf-8") as file:
                    json.load(file)
            except ValueError as error:
                return f"{name} is cut or damaged ({one_line(error)})"
    return None
