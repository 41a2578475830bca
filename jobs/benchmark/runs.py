"""One run of a contender: starts its process, waits, and computes rates from its output (report.of_run)."""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from cluster.session import this_machine
from jobs.benchmark.processes import run_child, run_contender
from jobs.benchmark.report import HOST_WARM_SHARE, JOB, LIMIT, ON_RAY, of_run
from jobs.benchmark.setup import BenchmarkSetup

KEPT = ("ran_on", "units", "padding_share", "startup_seconds", "finish_seconds", "classify_seconds")  # of the job's JSON line

Run = Callable[[str], tuple[dict[str, Any], str | None]]  # (a folder of its own) -> one run, and where its labels are


def chosen_runs(setup: BenchmarkSetup) -> dict[str, Run]:
    """The contenders that --contender leaves, by name."""
    runs: dict[str, Run] = {
        LIMIT: lambda folder: _run_limit(setup, folder),
        JOB: lambda folder: run_job(setup, folder),
        ON_RAY: lambda folder: run_job(setup, folder, on_ray=True),
    }
    return {name: run for name, run in runs.items() if name in setup.options.contenders}


def _run_limit(setup: BenchmarkSetup, folder: str) -> tuple[dict[str, Any], str]:
    labels = os.path.join(folder, "labels")
    task = setup.task(dtype=setup.dtype, batches=setup.batches, labels=labels)
    result, _ = run_contender("limit", task, folder, 1)
    return limit_run(result), labels


def run_tokenizer(setup: BenchmarkSetup, folder: str) -> tuple[dict[str, Any], None]:
    """The bare tokenizer, as many processes as cores."""
    task = setup.task(processes=this_machine().cores, texts=os.path.join(folder, "texts.arrow"))
    result, _ = run_contender("tokenizer", task, folder, 1)
    return limit_run(result), None


def limit_run(result: dict[str, Any]) -> dict[str, Any]:
    """A bare loop has a steady state only: it starts before its time begins."""
    return {"documents": result["documents"], "steady": result["documents"] / result["seconds"]}


def run_job(setup: BenchmarkSetup, folder: str, *, on_ray: bool = False) -> tuple[dict[str, Any], str]:
    """The job on the local corpus; see job_run.

    Args:
        on_ray: also where the job would do without Ray: it names its classifiers.
    """
    target = os.path.join(folder, "output")
    if on_ray:
        setup = replace(setup, compute={**setup.compute, "classifiers": setup.pools.classifiers})
    summary, seconds = start_job(setup, folder, setup.corpus, target)
    stamps = commit_times(target)
    if len(stamps) != summary["units"]:
        raise RuntimeError(f"the job reports {summary['units']} units, its output has {len(stamps)} commits")
    return job_run(setup, summary, seconds, stamps), target


def start_job(
    setup: BenchmarkSetup,
    folder: str,
    source: str,
    target: str,
    storage: dict[str, str] | None = None,
    environment: dict[str, str | None] | None = None,
) -> tuple[dict[str, Any], float]:
    """`label-corpus run` over `source`; returns and raises as run_child."""
    settings = {
        "input": {"path": source, "text_column": setup.text_column},
        "model": {"path": setup.model, "dtype": setup.dtype, "trust_remote_code": setup.own_code},
        "output": {"path": target},
        "storage": storage or {},
        "compute": {**setup.compute, "unit_bytes": setup.unit_bytes()},
    }
    job_file = os.path.join(folder, "job.yaml")
    Path(job_file).write_text(yaml.safe_dump(settings), encoding="utf-8")
    command = [sys.executable, "-m", "jobs.cli", "run", job_file, "--quiet", "--no-report"]  # no other contender makes one
    return run_child(command, os.path.join(folder, "job.log"), {"RAY_ADDRESS": None, **(environment or {})})


def job_run(setup: BenchmarkSetup, summary: dict[str, Any], seconds: float, stamps: list[float]) -> dict[str, Any]:
    """The rates of a run of the job.

    Where the model bounds the job, its steady rate is that of the classifiers from when they had loaded to their last row,
    waiting included: what else works on the same cores makes them slower. Elsewhere its steps are its commits.

    Args:
        summary: the JSON line of the run.
        seconds: from its start to its exit.
        stamps: when its commits were put, ascending, in seconds.
    """
    run = of_run(summary["labeled"], stamps, setup.workers, seconds, setup.documents, HOST_WARM_SHARE)
    spent = sum(summary["classify_seconds"].values())
    if setup.model_bound and spent:  # rounded to hundredths, it may be 0
        run["steady"] = summary["labeled"] * summary["classifiers"] / spent
    return {**run, **{key: summary[key] for key in KEPT}}


def commit_times(output: str) -> list[float]:
    """When the commits of a local output were put, ascending."""
    with os.scandir(os.path.join(output, "_commits")) as entries:
        return sorted(entry.stat().st_mtime for entry in entries if entry.name.endswith(".json"))
