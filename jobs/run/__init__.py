"""One run of the job: everything checked (prepare), the chain on Ray Data, commits under the lease, the result."""
