"""The modes of `benchmark`: contenders, the host ceiling, and scaling.

Each contender runs in a process of its own, alone, in rounds whose order rotates.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

from jobs.benchmark.processes import run_contender
from jobs.benchmark.report import JOB, LIMIT, TOKENIZER, medians_and_ratios, rounded
from jobs.benchmark.runs import Run, chosen_runs, run_job, run_tokenizer
from jobs.benchmark.scaling import ACTORS, conclude, scaling_task
from jobs.benchmark.setup import BenchmarkSetup, Options, check, machine_facts, make_host_setup, make_setup
from jobs.console.step_progress import Steps

STEADY_NOTE = (
    "steady: the documents of all steps (batches; with --host-ceiling, the job's commits) behind the first quarter of them (of"
    " the job: half), by the time from there to the last step; too low rather than too high (jobs/benchmark/report.py). Whole"
    " process: from the command to its exit, with imports, Ray's start and the model's loading."
)
JOB_NOTE = "job, steady: its documents by the time of its classifiers, from when the model was loaded, waiting included"
PREFIX = "label-corpus-benchmark-"
SHOWN, SHOWN_CHARACTERS = 5, 80  # of the documents that two contenders label differently
Labels = dict[str, tuple[str, float | None]]  # by text; with the score, where a contender gives one


def measure_contenders(
    options: Options, further: Callable[[BenchmarkSetup, list[str]], dict[str, Run]] | None = None
) -> dict[str, Any]:
    """Measures the contenders of --contender.

    Args:
        further: returns more contenders for a setup; may append to the notes.

    Returns:
        mode, contenders ({name: as report.medians_and_ratios, and `agreement`: the share of its documents that have the same
        label from the job, `disagreements`: the first others, see _agreement}), settings of the job, corpus, model,
        hardware, versions, notes.

    Raises:
        UserError: no such model, corpus or contender, or a corpus that not all of them can label.
    """
    with Steps("benchmark", quiet=options.quiet) as steps, tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
        steps.begin("making model and corpus, and trying the bare model")
        setup = make_setup(options, folder)
        notes = [
            STEADY_NOTE,
            JOB_NOTE,
            "limit: only forward passes, on batches in memory; it starts and loads outside its time.",
        ]
        contenders = chosen_runs(setup) | (further(setup, notes) if further else {})
        runs, labels = _rounds(setup, contenders, steps)
    rates = medians_and_ratios(runs, LIMIT)
    for name, row in rates.items():
        row |= _agreement(labels.get(name), labels.get(JOB))
    return _result("compare", setup, rates, notes)


def host_ceiling(options: Options) -> dict[str, Any]:
    """The rate that reading, tokenizing, moving and writing alone allow, on Ray: what a GPU can be fed with.

    Returns:
        As measure_contenders(), which raises the same.
    """
    with Steps("benchmark", quiet=options.quiet) as steps, tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
        steps.begin("making model and corpus, and trying the bare tokenizer")
        setup = make_host_setup(options, folder)
        contenders = {
            TOKENIZER: lambda place: run_tokenizer(setup, place),
            JOB: lambda place: run_job(setup, place, on_ray=True),
        }
        runs, _ = _rounds(setup, contenders, steps)
    rates = medians_and_ratios(runs, TOKENIZER)
    for row in rates.values():
        for key in ("steady", "whole"):
            rate = row[key]
            row[f"megabytes_per_second_{key}"] = rate and rate * setup.text_bytes / setup.documents / 1e6
    notes = [
        STEADY_NOTE,
        "tokenizer: encode_batch_fast alone, a process per core, on texts in memory, nothing kept",
        "the job's model takes the mean of its tokens' embeddings, of 8 dimensions",
    ]
    return _result("host-ceiling", setup, rates, notes)


def scaling(
    options: Options,
    actors: list[int] | None,
    units: int | None = None,
    unit_seconds: float | None = None,
    cores: int | None = None,
    moved_bytes: int | None = None,
    per_process: int = 1,
) -> dict[str, Any]:
    """Units/s with more and more classifiers that sleep instead of computing (scaling.py).

    Args:
        units, unit_seconds, cores, moved_bytes, per_process: see scaling.scaling_task.

    Returns:
        mode, actors (scaling.measure), hardware, versions, notes.

    Raises:
        UserError: see setup.check.
    """
    check(options)
    with Steps("benchmark", quiet=options.quiet) as steps, tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
        steps.begin("making the corpora")
        task = scaling_task(options, folder, actors or list(ACTORS), units, unit_seconds, cores, moved_bytes, per_process)
        steps.begin(f"{', '.join(str(corpus['actors']) for corpus in task['corpora'])} classifiers, one after the other")
        measured, _ = run_contender("scaling", task, folder, None)
    return rounded({"mode": "scaling", **measured, **machine_facts(), "notes": conclude(measured)})


def _rounds(
    setup: BenchmarkSetup, contenders: dict[str, Run], steps: Steps
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Labels]]:
    """Each contender once per round, another one first each time; their runs, and the labels of the first round."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    labels: dict[str, Labels] = {}
    steps.begin("measuring", setup.options.repeat * len(contenders), item="measurement", min_steps=len(contenders))
    for number in range(setup.options.repeat):
        turn = number % len(contenders)
        for name in [*contenders, *contenders][turn : turn + len(contenders)]:
            place = os.path.join(setup.folder, "run")
            os.makedirs(place)
            steps.add(0, f"round {number + 1} of {setup.options.repeat}: {name}")
            run, where = contenders[name](place)
            if number == 0 and where:
                labels[name] = _read_labels(where, setup.text_column)
            shutil.rmtree(place)
            runs[name].append(run)
            steady, whole = (f"{run[key]:,.1f}" if run.get(key) else "-" for key in ("steady", "whole"))
            steps.add()
            done = f"round {number + 1} of {setup.options.repeat}: {name}"
            steps.say(f"benchmark: {done}: {steady} documents/s steady, {whole} as a whole")
    return runs, labels


def _read_labels(folder: str, text_column: str) -> Labels:
    """Of what a contender wrote, whether the label is a column or a folder."""
    import pyarrow.dataset as ds

    files = [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names if name.endswith(".parquet")]
    partitioning = ds.HivePartitioning.discover(infer_dictionary=False)
    table = ds.dataset(files, format="parquet", partitioning=partitioning, partition_base_dir=folder).to_table()
    texts = table[text_column if text_column in table.column_names else "text"].to_pylist()
    scores = table["score"].to_pylist() if "score" in table.column_names else [None] * len(texts)
    return dict(zip(texts, zip(map(str, table["label"].to_pylist()), scores, strict=True), strict=True))


def _agreement(labels: Labels | None, job: Labels | None) -> dict[str, Any]:
    """The share of documents with the job's label, and the first of the others: of these, a score near a tie means rounding."""
    if not labels or job is None:
        return {"agreement": None, "disagreements": []}
    nothing = (None, None)
    others = [text for text, (label, _) in labels.items() if job.get(text, nothing)[0] != label]
    return {
        "agreement": 1 - len(others) / len(labels),
        "disagreements": [
            {"text": text[:SHOWN_CHARACTERS], "label": labels[text][0], "job": list(job.get(text, nothing))}
            for text in others[:SHOWN]
        ],
    }


def _result(mode: str, setup: BenchmarkSetup, contenders: dict[str, dict[str, Any]], notes: list[str]) -> dict[str, Any]:
    machine = machine_facts()
    machine["hardware"]["gpu"] = setup.measured_on["gpu"]
    pools = setup.pools
    return rounded(
        {
            "mode": mode,
            "contenders": contenders,
            "dtype": setup.dtype,
            "job": {
                "classifiers": pools.classifiers,
                "tokenizers": pools.tokenizers,
                "batch_tokens": pools.batch_tokens,
                "unit_bytes": setup.unit_bytes(),
            },
            "corpus": setup.facts,
            "model": {"path": setup.model, "parameters": setup.measured_on["parameters"]},
            **machine,
            "notes": notes,
        }
    )
