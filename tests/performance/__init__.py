"""Measurements that are run by hand: memory of a run, cost of planning, speed beside peers."""
