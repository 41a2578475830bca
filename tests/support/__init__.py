"""How tests start jobs, make corpora and check outputs."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
