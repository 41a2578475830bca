"""Where the job runs: the Ray session, resources, retries, metrics, the Jobs API, manifests. Nothing here imports
pipeline_ops or jobs.
"""
