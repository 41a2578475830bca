"""Retries and fatal errors, and the settings of Ray Data that make them so.

| failure | consequence |
|---|---|
| a request to object storage | retried by the storage layer (storage/s3.py), not by Ray; then the run ends with one line |
| a document | rejected with its error |
| an input file, or a unit | quarantined with its reason; the run goes on, and ends with exit 1 |
| a worker process, working on a unit | Ray retries the unit elsewhere; after three deaths it is quarantined (attempts.py) |
| a node | the same; committed units stay committed |
| an actor's start | another actor is started, up to three times in a row; then the run ends |
| the driver | the next run continues |
"""

MAX_FAILED_ACTOR_STARTS = 3  # in a row; a node may be preempted while a model is loaded


def configure_ray_data(unit_bytes: int) -> None:
    """Configures the current DataContext for a dataset whose rows are units of about `unit_bytes`."""
    import logging
    import warnings

    import ray.data

    context = ray.data.DataContext.get_current()
    # a block ends after the row that makes it exceed this, and one actor labels all units of a block: one unit is enough. Ray
    # also estimates block sizes by this value until it has measured them, so it is not far below
    context.target_max_block_size = max(unit_bytes // 4, 1)
    # of what a stage works on or has been sent, as much may wait for it. Readers are so much faster than tokenizers that they
    # would fill the object store, which then has no room for what tokenizers make
    context.downstream_capacity_backpressure_ratio = 1
    context.memory_usage_poll_interval_s = None  # of what nobody looks at; it takes a thread per task
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    context.print_on_execution_start = False
    context.actor_init_retry_on_errors = False
    context.max_consecutive_actor_init_deaths = MAX_FAILED_ACTOR_STARTS
    # a slow core may take an hour for a unit, and preempted GPUs longer to return
    context.execution_no_progress_timeout_s = -1
    context.retried_io_errors = []  # the storage layer retries; Ray's retries would multiply with its
    # a small input does not keep all classifiers busy; the number of units is not known when they start
    warnings.filterwarnings("ignore", message="The minimum number of concurrent actors")
    for name in ("ray.data", "ray.data._internal"):
        logging.getLogger(name).setLevel(logging.ERROR)


def root_cause(error: BaseException) -> BaseException:
    """The exception that a task raised, without Ray's wrappers."""
    from ray.exceptions import RayTaskError

    while isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        error = error.cause
    return error
