"""What is retried, and what ends a run.

| what fails | what happens |
|---|---|
| a request to object storage (5xx, throttling, reset, cut body) | s3fs repeats it, five times in all |
| a worker process or node | Ray runs the unit again elsewhere; units that were written keep their commits |
| an actor's start | the run ends: a model that does not load once does not load twice |
| an exception in a stage | it travels on as the unit's failure and ends the run; a later run continues |
"""


def configure_ray_data(unit_bytes: int) -> None:
    """Sets the current DataContext for a chain whose rows are units."""
    import logging

    import ray.data

    context = ray.data.DataContext.get_current()
    context.target_max_block_size = max(unit_bytes, 2**20)  # a block is finished when it holds about one unit
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    context.print_on_execution_start = False
    context.actor_init_retry_on_errors = False
    for name in ("ray.data", "ray.data._internal"):
        logging.getLogger(name).setLevel(logging.ERROR)


def root_cause(error: BaseException) -> BaseException:
    """The exception that a task raised, without what Ray wrapped around it."""
    from ray.exceptions import RayTaskError

    while isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        error = error.cause
    return error
