"""`label-corpus run`: the job. plan -> read -> tokenize -> classify -> postprocess + write -> commit, a unit per row."""

import json
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from cluster.failures import configure_ray_data, root_cause
from cluster.resources import READER_CPUS, WRITER_CPUS, Pools, resolve_pools
from cluster.session import connected
from jobs.config import JobConfig
from jobs.plan import Prepared, check_same_job, fingerprint, job_record, prepare, result_settings
from jobs.progress import Progress
from pipeline_ops.actors import ClassifyActor, Failure, TokenizeActor, probe_model, read_task, write_row
from pipeline_ops.commits import commit_unit, current_commits, incomplete_files, sweep, write_job
from pipeline_ops.reading import ReadSettings, spans_to_json
from pipeline_ops.schema import UserError
from pipeline_ops.storage import check_writable, store_errors
from pipeline_ops.writing import Commit


def label_units(prepared: Prepared, pools: Pools, dtype: str) -> Iterator[Commit]:
    """The chain, on Ray Data: yields what was written of each unit, as soon as it is."""
    import ray.data
    from ray.data import ActorPoolStrategy

    job, facts = prepared.job, prepared.facts
    settings = result_settings(job, facts, dtype)
    reading = ReadSettings(
        job.input, job.storage, job.output, prepared.line_types, job.compute.unit_bytes, fingerprint(settings)
    )
    metadata = {**asdict(facts), "dtype": dtype, "fingerprint": fingerprint(settings)}
    unit = {"batch_size": 1, "batch_format": "pyarrow", "zero_copy_batch": True}
    configure_ray_data(job.compute.unit_bytes)
    tasks = [{"task": spans_to_json(list(spans))} for spans in prepared.plan.tasks]
    written = (
        ray.data.from_items(tasks, override_num_blocks=len(tasks))
        .map_batches(read_task, fn_kwargs={"settings": reading}, num_cpus=READER_CPUS, **unit)  # pyright: ignore
        .map_batches(
            TokenizeActor,
            fn_constructor_args=(job.model, facts, job.storage, job.input.text_column, job.output, pools.batch_tokens),
            compute=ActorPoolStrategy(size=pools.tokenizers),
            num_cpus=1,
            **unit,
        )
        .map_batches(
            ClassifyActor,
            fn_constructor_args=(job.model, facts, job.storage, dtype, pools.use_gpu),
            compute=ActorPoolStrategy(size=pools.classifiers, max_tasks_in_flight_per_actor=4 if pools.use_gpu else 2),
            **({"num_gpus": pools.gpus_per_classifier} if pools.use_gpu else {"num_cpus": 1}),
            **unit,
        )
        .map_batches(
            write_row,  # pyright: ignore[reportArgumentType]
            fn_kwargs={"facts": facts, "output": job.output, "storage": job.storage, "metadata": metadata},
            num_cpus=WRITER_CPUS,
            **unit,
        )
    )
    for rows in written.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for row in rows.to_pylist():
            if row["failure"] is not None:
                raise_failure(Failure(**json.loads(row["failure"])))
            yield Commit.from_json(row["commit"])


def raise_failure(failure: Failure) -> None:
    """Ends the run: a user's mistake as it is, anything else with the file that it happened in."""
    if failure.by_user:
        raise UserError(failure.message)
    error = RuntimeError(f"{failure.error}: {failure.message}")
    if failure.where not in failure.message:
        error.add_note(f"in the unit that begins in {failure.where}")
    error.add_note(failure.traceback)
    raise error


def run(job: JobConfig, *, quiet: bool = False) -> dict[str, Any]:
    """Labels what is not labelled yet. Returns the counts of the whole output and the rates of this run.

    Raises:
        UserError: a mistake in the job, its input, its model or its output's permissions; nothing has been written.
    """
    started = time.monotonic()
    prepared = prepare(job)
    job, commits = prepared.job, prepared.commits
    skipped = len(current_commits(commits))
    labelled: list[Commit] = []
    with Progress(prepared.plan, quiet=quiet) as progress:
        if prepared.plan.tasks:
            try:
                check_writable(job.output.path, job.storage)
            except store_errors() as error:
                raise UserError(f"output.path: {job.output.path!r} cannot be written: {error}") from error
            for commit in _label_and_commit(prepared, progress):
                labelled.append(commit)
        else:
            progress.say("nothing to do: every input file is labelled")
        sweep(job.output.path, commits, job.storage)
        # the end is a comparison with the input, not the absence of an error
        incomplete = incomplete_files(prepared.files, commits)
        for path in incomplete:
            progress.say(f"not completely labelled: {path}")
    summary = summarize(commits, labelled, skipped=skipped, seconds=time.monotonic() - started, output=job.output.path)
    return {**summary, "files": len(prepared.files), "files_incomplete": len(incomplete)}


def _label_and_commit(prepared: Prepared, progress: Progress) -> Iterator[Commit]:
    job, commits, run_id = prepared.job, prepared.commits, uuid.uuid4().hex[:12]
    sweep(job.output.path, commits, job.storage)
    with connected() as machines:
        try:
            pools = resolve_pools(job.compute, machines)
        except ValueError as error:
            raise UserError(str(error)) from error
        dtype = _probe(prepared, pools)
        record = job_record(prepared, dtype, run_id)
        if prepared.record is not None:
            check_same_job(prepared.record, record["settings"])
        recorded = False
        for commit in label_units(prepared, pools, dtype):
            if not recorded:  # before the first commit, and not before the model has labelled something
                write_job(record, job.output.path, job.storage)
                recorded = True
            outdated = {name for piece in commit.pieces for name in prepared.plan.replaced.get(piece.path, ())}
            commit = replace(commit, run=run_id, replaces=tuple(sorted(outdated)))
            if commit_unit(commit, job.output.path, job.storage):
                commits[commit.unit] = commit
                progress.add(commit)
                yield commit


def _probe(prepared: Prepared, pools: Pools) -> str:
    """Loads the model without its weights where classifiers run; returns the dtype they will use."""
    import ray

    probe = ray.remote(num_cpus=1, num_gpus=pools.gpus_per_classifier)(probe_model)
    job = prepared.job
    try:
        return ray.get(probe.remote(job.model, prepared.facts, job.storage, job.model.dtype, pools.use_gpu))["dtype"]
    except ray.exceptions.RayTaskError as error:
        raise root_cause(error) from None


def summarize(
    commits: dict[str, Commit], labelled: list[Commit], *, skipped: int, seconds: float, output: str
) -> dict[str, Any]:
    """The JSON line: counts over all current commits; *_run, seconds and rates are this run's."""
    current = current_commits(commits).values()
    documents_run = sum(commit.documents for commit in labelled)
    tokens_run, padded_run = sum(c.tokens for c in labelled), sum(c.padded_tokens for c in labelled)
    labels: Counter[str] = Counter()
    for commit in current:
        labels.update(commit.labels)
    return {
        "documents": sum(commit.documents for commit in current),
        "labeled": sum(commit.labeled for commit in current),
        "rejected": sum(commit.rejected for commit in current),
        "units": len(current),
        "units_skipped": skipped,
        "units_failed": 0,
        "documents_run": documents_run,
        "tokens": sum(commit.tokens for commit in current),
        "tokens_run": tokens_run,
        "padding_share": round(1 - tokens_run / padded_run, 4) if padded_run else 0.0,
        "truncated": sum(commit.truncated for commit in current),
        "labels": dict(sorted(labels.items())),
        "seconds": round(seconds, 2),
        "documents_per_second": round(documents_run / seconds, 1),
        "output": output,
    }


if __name__ == "__main__":
    from jobs.cli import main

    main("run")
