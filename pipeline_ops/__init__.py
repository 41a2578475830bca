"""What happens to data: plain functions and plain actor classes, in packages by subject. Nothing here imports ray, jobs
or cluster.
"""
