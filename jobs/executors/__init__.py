"""Where the work of a run is done: on Ray, in one process, or on whichever suits it (auto_executor.py).

An executor takes plain functions and gives back their results.
"""
