"""What a person runs. `jobs.label_corpus` holds the job and is the Python interface: run, labels, RunResult."""
