"""The card (README.md) of labels on the Hugging Face hub: metadata for the hub's pages and `datasets`, and what the rows are.

What people write into it by hand stays: text outside of the two marks, and all metadata but those of OWN_METADATA.
"""

import html
import re
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import yaml

from jobs.number_format import counted, number
from pipeline_ops.analysis.summary_statistics import labels_of, rejects_by_reason
from pipeline_ops.output.labeled_output import Labeled
from pipeline_ops.output.run_records import read_runs
from pipeline_ops.publishing.hub_files import DATA_FOLDER, source_folder
from pipeline_ops.schema.errors import UserError, one_line
from pipeline_ops.schema.units import short_id

FILES = f"{DATA_FOLDER}/*/*.parquet"
MARKED = re.compile(r"<!-- label-corpus: (\w+) -->.*<!-- label-corpus: end -->", re.DOTALL)
METADATA = re.compile(r"\A\ufeff?---\r?\n(.*?)^---[ \t]*\r?\n?", re.DOTALL | re.MULTILINE)
OWN_METADATA = ("configs", "size_categories")
MAX_LABELS = 100  # of a model, in the card
MEANINGS = {
    "label_name": "the label: the one with the highest score, the bin of a value, or the fallback",
    "score_column": "the label's score; of a regression the value",
    "labels_column": "all labels whose scores reach the threshold, best first",
    "scores_column": "the score of every label, in the model's order",
    "logits_column": "the model's raw output, in the order of its labels",
    "top_labels_column": "the labels with the highest scores, best first",
    "top_scores_column": "their scores",
    "num_windows_column": "overlapping windows in which the text was read",
    "window_scores_column": "the score of every label in each window",
    "embedding_column": "the model's pooled last hidden state",
    "num_tokens_column": "tokens that the model has read, special tokens included",
    "truncated_column": "whether the end of the text was cut off",
    "source_file_column": "the file of the corpus, by its path in the corpus",
    "source_row_column": "the row or line in that file, from 0",
}


@dataclass(frozen=True)
class Place:
    """Where the card's repository is: `user/name`, and a branch."""

    name: str
    branch: str = "main"

    @property
    def glob(self) -> str:
        """Of the data files, for readers with fsspec's or DuckDB's hf:// paths."""
        at = "" if self.branch == "main" else f"@{self.branch}"
        return f"hf://datasets/{self.name}{at}/{FILES}"


def output_id(labeled: Labeled) -> str:
    """Names the labels that a repository has, by the corpus' folder and the settings that change results."""
    return short_id([labeled.record["fingerprint"], source_folder(labeled)])[:12]


def published_output(card: str | None) -> str | None:
    """The output_id of the labels that a card describes; None: it is none of ours."""
    found = MARKED.search(card or "")
    return found[1] if found else None


def dataset_card(labeled: Labeled, schema: pa.Schema, place: Place, earlier: str | None, *, complete: bool) -> str:
    """The card for all rows of `labeled`; the same text for the same rows.

    Args:
        schema: of the rows.
        earlier: the repository's card, whose other parts are kept.
        complete: else it says that some rows are not there yet.

    Raises:
        UserError: the earlier card's metadata cannot be read.
    """
    columns = _columns(labeled, schema)
    section = _render(marker=output_id(labeled), complete=complete, place=place, columns=columns, **_facts(labeled))
    found = METADATA.match(earlier or "")
    body = (earlier or "")[found.end() if found else 0 :]
    try:
        given = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError as error:
        raise UserError(f"--hub: README.md of {place.name}: its metadata is no YAML: {one_line(error)}; repair it") from error
    metadata = _metadata(labeled, place, given or {})
    if MARKED.search(body):
        body = MARKED.sub(lambda _: section, body, count=1)
    else:
        body = "\n".join(filter(None, [body.strip(), section, ""]))
    front = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n{'' if body.startswith(chr(10)) else chr(10)}{body}"


def _metadata(labeled: Labeled, place: Place, earlier: dict[str, Any]) -> dict[str, Any]:
    rows = sum(commit.labeled for commit in labeled.commits)
    own = {
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": FILES}]}],
        "size_categories": [_size_category(rows)],
    }
    given = earlier.get("tags") or []
    tags = [*([given] if isinstance(given, str) else given)]
    defaults = {"pretty_name": place.name.rpartition("/")[2], "task_categories": ["text-classification"]}
    tags += ["label-corpus"] if "label-corpus" not in tags else []
    return defaults | earlier | {"tags": tags} | own


def _size_category(rows: int) -> str:
    """As the hub names them: https://github.com/huggingface/hub-docs/blob/main/datasetcard.md."""
    steps = ["1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T"]
    for power, (step, before) in enumerate(zip(steps, [None, *steps], strict=False), 3):
        if rows < 10**power:
            return f"n<{step}" if before is None else f"{before}<n<{step}"
    return "n>1T"


def _facts(labeled: Labeled) -> dict[str, Any]:
    commits = labeled.commits
    runs = [run for store in labeled.stores for run in read_runs(store, newest=1)]
    return {
        "corpus": _corpus(labeled.record["config"]["input"]["path"]),
        "date": max((run.ended or run.written for run in runs), default="")[:10],
        "labeled": sum(commit.labeled for commit in commits),
        "rejected": sum(commit.rejected for commit in commits),
        "reasons": rejects_by_reason(commits),
        "truncated": sum(commit.truncated for commit in commits),
        "models": [_model(labeled, name) for name in labeled.record["models"]],
        "max_labels": MAX_LABELS,
        "source_file": labeled.columns.source_file_column,
        "source_row": labeled.columns.source_row_column,
        "version": labeled.record["versions"]["label-corpus"],
    }


def _corpus(path: str) -> str:
    """What may be said of input.path: a public name, or the last one that is no pattern, without the folders above it."""
    if path.startswith("hf://"):
        return path.removeprefix("hf://")
    names = [name for name in path.split("://", 1)[-1].split("/") if name and not any(character in name for character in "*?[")]
    return names[-1] if names else "a corpus"


def _model(labeled: Labeled, name: str) -> dict[str, Any]:
    facts = labeled.record["models"][name]
    is_public = str(facts.get("weights")).startswith("hub:")
    labels = labels_of(labeled.commits, name)
    return {
        "name": name,
        "path": facts["path"] if is_public else facts["path"].rstrip("/").rpartition("/")[2],
        "is_public": is_public,
        "revision": facts["revision"],
        "weights": facts.get("weights"),
        "max_length": facts["max_length"],
        "labels": list(labels.items()),
        "documents": sum(labels.values()),
    }


def _columns(labeled: Labeled, schema: pa.Schema) -> list[tuple[str, str, str]]:
    """(name, type, meaning) of each."""
    output, several = labeled.columns, len(labeled.record["models"]) > 1
    meanings = dict.fromkeys(labeled.text_columns, "the text that was labeled")
    for model, part in output.by_model().items():
        of = f" (model {model})" if several else ""
        meanings |= {column: MEANINGS[key] + of for key, column in part.added_columns().items() if key in MEANINGS}
    for key in ("source_file_column", "source_row_column"):
        meanings[getattr(output, key)] = MEANINGS[key]
    return [(field.name, str(field.type), meanings.get(field.name, "of the corpus")) for field in schema]


def _cell(text: object) -> str:
    """A text in a table's cell, and anywhere else in Markdown, as it is."""
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", html.escape(" ".join(str(text).split()), quote=False))


def _render(**context: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("jobs.publishing"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"cell": _cell, "counted": counted, "number": number}
    return environment.get_template("dataset_card.md.j2").render(**context)
