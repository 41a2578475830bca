"""One run of a contender: starts its process, waits, and turns what it says into rates (report.of_run)."""

import os
import sys
import uuid
from collections.abc import Callable
from typing import Any

import yaml

from cluster.session import this_machine
from jobs.benchmark.processes import (
    BUCKET,
    has_s3_server,
    put_times,
    run_child,
    run_contender,
    s3_settings,
)
from jobs.benchmark.report import HOST_WARM_SHARE, JOB, LIMIT, of_run
from jobs.benchmark.setup import Course, say
from pipeline_ops.synthetic.reference_loops import corpus_formats

BATCH_SIZES = (1, 8, 32, 64, 128, 256)  # of the pipeline, tried in this order
SWEEP_DOCUMENTS = 128
LEAST_BATCHES = 16  # that a corpus has to give, for a steady state to show
RAY_ROWS = 16  # per batch of Ray Data on a CPU; few, so that the last ones leave no core idle for long
RAY_ROWS_GPU = 256
KEPT = ("units", "padding_share", "startup_seconds", "finish_seconds", "classify_seconds")  # of the job's JSON line

Run = Callable[[str], tuple[dict[str, Any], str | None]]  # (a folder of its own) -> one run, and where its labels are


def chosen_runs(course: Course, notes: list[str]) -> dict[str, Run]:
    """The contenders that --contender leaves, by name; the pipeline's and Ray Data's names end with their dtype.

    The pipeline runs in float32, its default, and in the job's dtype; Ray Data as its guide has it, in float32 and with single
    documents, and as well as the pipeline inside it can do.
    """
    chosen = {*course.options.contenders}
    runs: dict[str, Run] = {}
    if LIMIT in chosen:
        runs[LIMIT] = lambda folder: _run_limit(course, folder)
    if JOB in chosen:
        runs[JOB] = lambda folder: run_job(course, folder)
    if "job-s3" in chosen and has_s3_server():
        runs["job-s3"] = lambda folder: run_job(course, folder, on_s3=True)
        notes.append("job-s3: the S3 server (moto) works on the same cores; what it takes of them counts against the job")
    elif "job-s3" in chosen:
        notes.append("job-s3 is left out: there is no S3 server to run; pip install 'moto[server,s3]'")
    peers = [(kind, f"{kind}-best") for kind in ("pipeline", "ray-data")]
    for dtype in dict.fromkeys(["float32", course.dtype]):
        if not chosen & {name for names in peers for name in names}:
            break
        best, rates = _sweep(course, dtype)
        for (kind, kind_best), run in zip(peers, (_run_pipeline, _run_ray_data), strict=True):
            if kind in chosen and (kind == "pipeline" or dtype == "float32"):
                runs[f"{kind}-{dtype}"] = _peer(run, course, dtype, 1, rates[1])
            if kind_best in chosen and (kind == "pipeline" or dtype == course.dtype):
                if best == 1 and f"{kind}-{dtype}" in runs:
                    notes.append(f"{kind}-{dtype}: its best batch size is its default, 1")
                else:
                    runs[f"{kind_best}-{dtype}"] = _peer(run, course, dtype, best, rates[best])
                    notes.append(f"{kind_best}-{dtype}: batches of {best}")
    return runs


def _peer(run: Callable[..., Any], course: Course, dtype: str, batch_size: int, rate: float) -> Run:
    return lambda folder: run(course, folder, dtype, batch_size, course.documents_for(rate))


def _run_limit(course: Course, folder: str) -> tuple[dict[str, Any], str]:
    labels = os.path.join(folder, "labels")
    task = course.task(dtype=course.dtype, batches=course.batches, labels=labels)
    result, _ = run_contender("limit", task, folder, 1)
    return limit_run(result), labels


def run_tokenizer(course: Course, folder: str) -> tuple[dict[str, Any], None]:
    """The bare tokenizer, as many processes as cores."""
    task = course.task(processes=this_machine().cores, texts=os.path.join(folder, "texts.arrow"))
    result, _ = run_contender("tokenizer", task, folder, 1)
    return limit_run(result), None


def limit_run(result: dict[str, Any]) -> dict[str, Any]:
    """A bare loop has a steady state only: it starts before its time begins."""
    return {"documents": result["documents"], "steady": result["documents"] / result["seconds"]}


def run_job(course: Course, folder: str, *, on_s3: bool = False) -> tuple[dict[str, Any], str | None]:
    """`python -m jobs.label_corpus JOB.yaml`.

    Where the model is what counts, its steady rate is that of the classifiers from when they had loaded to their last row,
    waiting included: what else works on the same cores makes them slower. Elsewhere its steps are its commits.
    """
    source, target = course.corpus, os.path.join(folder, "output")
    if on_s3:
        source, target = f"s3://{BUCKET}/corpus", f"s3://{BUCKET}/{uuid.uuid4().hex}"
    settings = {
        "input": {"path": source, "text_column": course.text_column},
        "model": {"path": course.model, "dtype": course.dtype, "trust_remote_code": course.own_code},
        "output": {"path": target},
        "storage": {"endpoint_url": course.endpoint} if on_s3 else {},
        "compute": {**course.compute, "unit_bytes": course.unit_bytes()},
    }
    job_file = os.path.join(folder, "job.yaml")
    with open(job_file, "w", encoding="utf-8") as file:
        yaml.safe_dump(settings, file)
    command = [sys.executable, "-m", "jobs.cli", "run", job_file, "--quiet", "--no-report"]  # no peer makes one
    environment = {"RAY_ADDRESS": None, **(s3_settings() if on_s3 else {})}
    summary, seconds = run_child(command, os.path.join(folder, "job.log"), environment)
    stamps = put_times(course.folder, f"{target.removeprefix('s3:/')}/_commits/") if on_s3 else commit_times(target)
    if len(stamps) != summary["units"]:
        raise RuntimeError(f"the job says {summary['units']} units, its output has {len(stamps)} commits")
    run = of_run(summary["labeled"], stamps, course.workers, seconds, course.documents, HOST_WARM_SHARE)
    spent = sum(summary["classify_seconds"].values())
    if course.model_bound and spent:  # rounded to hundredths, it may be nothing
        run["steady"] = summary["labeled"] * summary["classifiers"] / spent
    return {**run, **{key: summary[key] for key in KEPT}}, None if on_s3 else target


def commit_times(output: str) -> list[float]:
    """When the commits of a local output were put, ascending."""
    with os.scandir(os.path.join(output, "_commits")) as entries:
        return sorted(entry.stat().st_mtime for entry in entries if entry.name.endswith(".json"))


def upload(course: Course) -> None:
    """Puts the corpus on the S3 server."""
    run_contender(
        "upload", course.task(endpoint=course.endpoint, target=f"s3://{BUCKET}/corpus"), course.folder, None, s3_settings()
    )


def _sweep(course: Course, dtype: str) -> tuple[int, dict[int, float]]:
    """The pipeline's best batch size, and its documents/s by batch size, on the first documents."""
    few = min(SWEEP_DOCUMENTS * (8 if course.pools.use_gpu else 1), course.documents // 4)
    sizes = [size for size in BATCH_SIZES if size <= max(8, course.documents // LEAST_BATCHES)]
    task = course.task(dtype=dtype, documents=few, batch_sizes=sizes)
    result, _ = run_contender("sweep", task, course.folder, this_machine().cores)
    rates = {int(size): rate for size, rate in result["rates"].items()}
    by_size = ", ".join(f"{size}: {rate:,.0f}" for size, rate in rates.items())
    say(f"pipeline, {dtype}, documents/s by batch size: {by_size}", course.options)
    return result["best"], rates


def _run_pipeline(course: Course, folder: str, dtype: str, batch_size: int, count: int) -> tuple[dict[str, Any], str]:
    labels = os.path.join(folder, "labels")
    task = course.task(dtype=dtype, batch_size=batch_size, documents=count, labels=labels)
    result, seconds = run_contender("pipeline", task, folder, this_machine().cores)
    return of_run(count, result["stamps"], 1, seconds, course.documents), labels


def _run_ray_data(course: Course, folder: str, dtype: str, batch_size: int, count: int) -> tuple[dict[str, Any], str]:
    labels = os.path.join(folder, "labels")
    (corpus_format,) = corpus_formats(course.corpus, course.text_column)
    task = course.task(
        dtype=dtype,
        batch_size=batch_size,
        rows=max(batch_size, RAY_ROWS_GPU if course.pools.use_gpu else RAY_ROWS),
        documents=count,
        all_documents=course.documents,
        format=corpus_format,
        output=folder,
        labels=labels,
    )
    result, seconds = run_contender("ray-data", task, folder, None if course.pools.use_gpu else 1)
    return of_run(count, result["stamps"], result["workers"], seconds, course.documents), labels
