"""`python -m jobs.cli NAME` is `label-corpus NAME`."""

from jobs.cli import main

main()
