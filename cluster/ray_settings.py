"""What is retried, and what ends a run.

| what fails | what happens |
|---|---|
| a request to object storage | repeated where it is made (s3.py), not by Ray; then the run ends with one line |
| a document | rejected with its error |
| an input file, or a unit | quarantined with its reason; the run goes on, and ends with exit 1 |
| a worker process, at work on a unit | Ray runs the unit again elsewhere; the fourth time it is quarantined (attempts.py) |
| a node | the same; units that were written keep their commits |
| an actor's start | another one is started, three times in a row; then the run ends |
| the driver | the next run continues |
"""

ACTOR_STARTS = 3  # that may fail in a row: a node that goes away while a model is loaded is no fault of the model


def configure_ray_data(unit_bytes: int) -> None:
    """Sets the current DataContext for a chain whose rows are units."""
    import logging
    import warnings

    import ray.data

    context = ray.data.DataContext.get_current()
    # a block ends behind the row that makes it larger than this, and one actor labels all units of a block: one is enough. Ray
    # takes the value for the size of blocks too, as long as it knows no better, so it is not far below
    context.target_max_block_size = max(unit_bytes // 4, 1)
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    context.print_on_execution_start = False
    context.actor_init_retry_on_errors = False
    context.max_consecutive_actor_init_deaths = ACTOR_STARTS
    # a unit may take a slow core an hour, and GPUs that were taken away longer to come back: no reason to end the run
    context.execution_no_progress_timeout_s = -1
    context.retried_io_errors = []  # storage retries itself; Ray's retries would multiply with that
    # a small input keeps not all classifiers busy; how many units there are is not known when they are started
    warnings.filterwarnings("ignore", message="The minimum number of concurrent actors")
    for name in ("ray.data", "ray.data._internal"):
        logging.getLogger(name).setLevel(logging.ERROR)


def root_cause(error: BaseException) -> BaseException:
    """The exception that a task raised, without what Ray wrapped around it."""
    from ray.exceptions import RayTaskError

    while isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        error = error.cause
    return error
