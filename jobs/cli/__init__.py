"""The `label-corpus` command: one typer command per file function; each calls a plain function that a test can call."""

from jobs.cli.app import main

__all__ = ["main"]
