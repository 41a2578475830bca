"""Local paths and fsspec URLs as strings."""

import os
import re
from collections.abc import Iterable

S3_PROTOCOLS = ("s3://", "s3a://")


def is_local(path: str) -> bool:
    return "://" not in path or path.startswith(("file://", "local://"))


def is_s3(path: str) -> bool:
    return path.startswith(S3_PROTOCOLS)


def full_path(path: str) -> str:
    """`path` in the form that is recorded: absolute for local paths, a URL without trailing slash otherwise."""
    if is_local(path):
        return os.path.abspath(os.path.expanduser(path.split("://", 1)[-1]))
    return path.rstrip("/").replace("s3a://", "s3://", 1)


def join(folder: str, *names: str) -> str:
    return "/".join([folder.rstrip("/"), *names])


def shown(path: str) -> str:
    """A full path as messages show it: relative to the working folder if it is below that."""
    if not is_local(path):
        return path
    below = os.path.relpath(path)
    return path if below.startswith("..") else below


def matching(glob: str, paths: Iterable[str]) -> list[str]:
    """Those of the full paths that a listing by this glob would find."""
    from fsspec.utils import glob_translate

    expression = re.compile(glob_translate(glob))
    return [path for path in paths if expression.match(path)]
