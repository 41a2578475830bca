"""Where the work of a run is done: on Ray (ray_executor.py). They take plain functions and give back their results."""
