"""Commands for a first look: demo, init, inspect."""

from typing import Annotated, Any

import typer

from jobs.cli.options import SETTING, AsJson, emit, examples

DEMO_FOLDER = "~/.cache/label-corpus/demo"
DEFAULT_MODEL = "distilbert/distilbert-base-uncased-finetuned-sst-2-english"

app = typer.Typer()


@app.command(
    "demo",
    epilog=examples(
        "label-corpus demo",
        "label-corpus demo --folder /tmp/demo --fresh",
    ),
)
def demo_command(
    folder: Annotated[str, typer.Option("--folder", help="folder for the corpus, the model and the labels")] = DEMO_FOLDER,
    fresh: Annotated[bool, typer.Option("--fresh", help="train the model again")] = False,
    as_json: AsJson = False,
) -> None:
    """Train a small classifier and label real text with it, all on this machine."""
    from jobs.start.demo import demo, print_result

    result = demo(folder, fresh)
    print_result(result)
    emit(
        {key: value for key, value in result.items() if key != "confusion"}, as_json=as_json, shown=True, ok=result["verified"]
    )


@app.command(
    "init",
    epilog=examples(
        "label-corpus init reviews/",
        "label-corpus init 's3://bucket/in/*.jsonl.zst' --output s3://bucket/labels",
        "label-corpus init reviews.csv --model my-classifier input.text_column=body",
        "label-corpus init --train labeled-reviews.csv      # writes train.yaml",
    ),
)
def init_command(
    source: Annotated[str, typer.Argument(metavar="INPUT", help="file, folder or glob; local or s3://")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar=SETTING, help="settings that go into the file")] = None,
    job: Annotated[
        str | None, typer.Option("--job", metavar="FILE", help="the file to write; default: job.yaml, or train.yaml")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="hub id, local folder, or folder on object storage")] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", metavar="FOLDER", help="for the labels, or the model; default: INPUT-labeled, or -classifier"),
    ] = None,
    train: Annotated[bool, typer.Option("--train", help="INPUT is labeled: write a training file")] = False,
    force: Annotated[bool, typer.Option("--force", help="replace an existing job file")] = False,
    as_json: AsJson = False,
) -> None:
    """Profile a corpus and write a job file, or a training file, for it."""
    from jobs.start.init import init, print_summary
    from jobs.start.init_training import init_training, print_training_summary
    from pipeline_ops.models.resolve import block_torch_import

    if not any(setting.startswith("model.trust_remote_code") for setting in overrides or []):  # that code may ask for torch
        block_torch_import()
    if train:
        summary = init_training(source, job or "train.yaml", model, output, overrides or [], force=force)
        print_training_summary(summary, source)
        emit(summary, as_json=as_json, shown=True)
        return
    summary = init(source, job or "job.yaml", model or DEFAULT_MODEL, output, overrides or [], force=force)
    print_summary(summary)
    emit(summary, as_json=as_json, shown=True)


@app.command(
    "inspect",
    epilog=examples(
        'label-corpus inspect "What a film!" --model my-classifier',
        'label-corpus inspect "A man sleeps." --pair "He is awake." --model my-nli',
        'label-corpus inspect "What a film!" --model my-classifier --attention',
    ),
)
def inspect_command(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="the text")],
    model: Annotated[str, typer.Option("--model", help="hub id, local folder, or folder on object storage")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar=SETTING, help="e.g. model.max_length=128")] = None,
    pair: Annotated[str | None, typer.Option("--pair", help="the second text, for models that read two")] = None,
    attention: Annotated[bool, typer.Option("--attention", help="shade each token by its attention weight")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object instead of tables")] = False,
) -> None:
    """Show each step for one text: tokens, ids, mask, logits, scores, label."""
    from jobs.config import check_config, override
    from jobs.start.inspect import InspectConfig, inspect_text, print_steps

    settings: dict[str, Any] = {"model": {"path": model}}
    for setting in overrides or []:
        override(settings, setting)
    config = check_config(InspectConfig, settings)
    steps = inspect_text(text, config, pair=pair, attention=attention)
    if as_json:
        emit(steps, as_json=True)
    else:
        print_steps(steps)
