"""A machine that has what models run on, and nothing else of the program's dependencies: bare GPU machines are like this."""

import os
from pathlib import Path

from tests.support import REPOSITORY

MISSING = (
    *("ray", "s3fs", "moto", "boto3", "botocore", "aiobotocore", "aiohttp"),
    *("accelerate", "psutil", "matplotlib", "zstandard", "cronsim", "charset_normalizer", "peft"),
)


def bare_environment(folder: Path) -> dict[str, str]:
    """The environment of a process in which MISSING cannot be imported, nor in those that it starts; written into `folder`."""
    blocking = f"import sys\n\nsys.modules.update(dict.fromkeys({MISSING!r}))\n"  # None spells "not to be found"
    (folder / "sitecustomize.py").write_text(blocking, encoding="utf-8")
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(REPOSITORY)])}
