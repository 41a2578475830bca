"""Corpora and classifiers that are made on the spot, and the bare loops that the job's speed is compared with."""
