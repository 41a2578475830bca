"""`label-corpus init --train`: profile a labeled corpus and write a commented training file for it."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.config import check_config, load_config, override
from jobs.start.init import (
    COMMON_SETTINGS,
    check_column,
    check_new,
    default_output,
    head,
    sections,
    summary_lines,
    summary_of,
    text_column_of,
    write_file,
)
from jobs.start.train import TrainConfig
from pipeline_ops.reading.column_guess import ColumnGuess, guess_columns
from pipeline_ops.reading.corpus_profile import CorpusProfile, profile_corpus
from pipeline_ops.schema.errors import UserError, store_access
from pipeline_ops.storage.paths import full_path
from pipeline_ops.storage.store import Store

DEFAULT_START = "distilbert/distilbert-base-uncased"
# {section: settings to list in the file, commented out}; jobs/README.md has all
LISTED = {
    "input": ("format", "text_unit", "min_characters", "corrections"),
    "model": ("revision",),
    "training": ("epochs", "learning_rate", "batch_size", "max_length", "freeze", "class_weights", "max_documents"),
    "output": ("overwrite",),
    "storage": COMMON_SETTINGS["storage"],
}
OWN_ARCHITECTURE = (
    "without a model hub, in place of path: architecture: {model_type: distilbert, options: {n_layers: 2, dim: 128,"
    " hidden_dim: 512, n_heads: 4, max_position_embeddings: 128}} trains new weights; with training.epochs of 10 or so"
)


def init_training(
    path: str,
    train_file: str,
    model: str | None = None,
    output: str | None = None,
    overrides: Sequence[str] = (),
    *,
    force: bool = False,
) -> dict[str, Any]:
    """Write `train_file`; returns the profile of the corpus, with `label_column`.

    Args:
        path: the labeled corpus: a file, folder or glob.
        model: what training starts from; None: DEFAULT_START.
        output: the model's folder; None: in the working folder, named after the corpus.
        overrides: `key.sub=value` settings to write into the file.
        force: replace an existing file.

    Raises:
        UserError: no such corpus, no text or label column, or the file exists.
    """
    check_new(train_file, force=force)
    settings: dict[str, Any] = {
        "input": {"path": path},
        "model": {"path": model or DEFAULT_START},
        "output": {"path": output or default_output(path, "classifier")},
    }
    for setting in overrides:
        override(settings, setting)
    if model is None and (settings["model"] or {}).get("architecture") is not None:
        del settings["model"]["path"]
    config = check_config(TrainConfig, settings)
    source = config.input.model_copy(update={"path": full_path(config.input.path)})
    with store_access("input.path", source.path, "read"):
        corpus = profile_corpus(source, Store(source.path, config.storage))
    settings["input"] |= {key: value for key, (value, _) in corpus.csv_settings.items()}
    if corpus.encoding is not None:
        settings["input"]["encoding"] = corpus.encoding
        source = source.model_copy(update={"encoding": corpus.encoding})
    guessed = guess_columns([*corpus.columns], corpus.common_texts)
    text = settings["input"].get("text_column") or text_column_of(source, corpus, guessed)
    label = settings["input"].get("label_column") or _label_column(path, text, corpus, guessed)
    check_column("input.text_column", text, source, corpus)
    check_column("input.label_column", label, source, corpus)
    rest = {key: value for key, value in settings["input"].items() if key not in ("path", "text_column", "label_column")}
    settings["input"] = {"path": settings["input"]["path"], "text_column": text, "label_column": label, **rest}
    remarks = [*corpus.notes_on_files(text), *corpus.encoding_notes]
    summary = summary_of(corpus, guessed, text, {}, ()) | {"label_column": label, "remarks": remarks}
    others = [name for name in guessed.truths if name != label]
    notes = {
        "input": [
            *remarks,
            *([f"other columns that may hold labels: {', '.join(map(repr, others))}"] if others else []),
        ],
        "model": [OWN_ARCHITECTURE] if "path" in settings["model"] else [],
    }
    command = f"Run label-corpus train {shlex.quote(train_file)}"
    write_file(train_file, [*head(summary, command), *sections(TrainConfig, LISTED, settings, notes)], force=force)
    load_config(TrainConfig, train_file, [])
    return {"training": train_file, "model": settings["model"].get("path"), "output": settings["output"]["path"], **summary}


def _label_column(path: str, text: str, corpus: CorpusProfile, guessed: ColumnGuess) -> str:
    found = [name for name in guessed.truths if name != text]
    if not found:
        columns = ", ".join(repr(name) for name in corpus.columns if name != text) or "no other column"
        raise UserError(
            f"input.label_column: no column of {path!r} looks like labels; beside {text!r} it has {columns}; name it by"
            " input.label_column=NAME"
        )
    return found[0]


def print_training_summary(found: Mapping[str, Any], source: str) -> None:
    """Print the profile and the next commands on stderr."""
    from rich.console import Console

    console = Console(file=sys.stderr, highlight=False, markup=False, soft_wrap=True)
    for line in (*summary_lines(found), *found["remarks"]):
        console.print(line)
    console.print(f"labels: {found['label_column']!r}")
    console.print(f"wrote {shlex.quote(found['training'])}; next:", style="bold")
    console.print(f"  {shlex.join(['label-corpus', 'train', found['training']])}")
    console.print(f"  {shlex.join(['label-corpus', 'init', source, '--model', found['output']])}   # or another corpus")
