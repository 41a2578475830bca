"""Where the job runs: the Ray session, resources, retries, metrics, the Jobs API, manifests. Imports no other package."""
