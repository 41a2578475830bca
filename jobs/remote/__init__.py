"""Jobs on a cluster: submit, jobs, schedule, and the Kubernetes manifests of a schedule."""
