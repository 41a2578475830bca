"""Local paths and fsspec URLs as strings."""

import difflib
import os
import re
from collections.abc import Iterable, Sequence

from pipeline_ops.schema.errors import UserError

S3_PROTOCOLS = ("s3://", "s3a://")
MOST_NAMES = 3  # of several files, in messages


def is_local(path: str) -> bool:
    return "://" not in path or path.startswith(("file://", "local://"))


def is_s3(path: str) -> bool:
    return path.startswith(S3_PROTOCOLS)


def is_hub(path: str) -> bool:
    """Whether the path is on the Hugging Face hub."""
    return path.startswith("hf://")


def full_path(path: str) -> str:
    """`path` in the form that is recorded: absolute for local paths, a URL without trailing slash otherwise."""
    if is_local(path):
        return os.path.abspath(os.path.expanduser(path.split("://", 1)[-1]))
    return path.rstrip("/").replace("s3a://", "s3://", 1)


def join(folder: str, *names: str) -> str:
    return "/".join([folder.rstrip("/"), *names])


def real_path(path: str) -> str:
    """full_path with the symbolic links of a local path resolved."""
    return os.path.realpath(full_path(path)) if is_local(path) else full_path(path)


def is_inside(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or below it, as they are written or by their real paths; a link is where it stands as well."""
    forms = [(full_path(path), full_path(folder))]
    if is_local(path) and is_local(folder):
        parent, name = os.path.split(full_path(path))
        forms += [(real_path(path), real_path(folder)), (join(real_path(parent), name), real_path(folder))]
    return any(join(inner, "").startswith(join(outer, "")) for inner, outer in forms)


def check_apart(source: str, target: str, written: str) -> None:
    """Checks that what is written to output.path is not read by input.path later, and replaces nothing of it; not the hub.

    Args:
        source: input.path: a file, folder or glob.
        target: output.path, a folder.
        written: what is written there, for the message.

    Raises:
        UserError: one of the two is inside the other, or the target is on the Hugging Face hub.
    """
    source, target = full_path(source), full_path(target)
    if is_hub(target):
        then = "`label-corpus publish JOB --hub user/name`" if written == "labels" else "`hf upload user/name FOLDER`"
        raise UserError(
            f"output.path: {target!r} cannot be written: the hub has no conditional puts, by which files are committed; give a"
            f" local folder or one on object storage, and then {then}"
        )
    folder = source
    while any(character in folder for character in "*?["):
        folder = os.path.dirname(folder)
    if target == source or (is_inside(target, folder) and not is_inside(folder, target)):
        raise UserError(
            f"output.path: {target!r} is inside the input {source!r}: {written} would become input; use another folder"
        )
    if is_inside(folder, target):
        raise UserError(f"input.path: {source!r} is inside the output {target!r}; use another output folder")


def base_folder(path: str) -> str:
    """The part of a glob before the first name with a wildcard; any other path as it is."""
    parts = path.split("/")
    wildcards = [number for number, part in enumerate(parts) if any(character in part for character in "*?[")]
    return "/".join(parts[: wildcards[0]]) if wildcards else path


def shown(path: str) -> str:
    """A full path as messages show it: relative to the working folder if it is below that."""
    if not is_local(path):
        return path
    below = os.path.relpath(path)
    return path if below.startswith("..") else below


def some_shown(paths: Sequence[str], count: int | None = None) -> str:
    """The first of several paths, as messages show them: a, b, c and 12 more.

    Args:
        count: how many there are, where `paths` has only the first ones.
    """
    names = ", ".join(shown(path) for path in paths[:MOST_NAMES])
    more = (len(paths) if count is None else count) - MOST_NAMES
    return names + (f" and {more:,} more" if more > 0 else "")


def matching(glob: str, paths: Iterable[str]) -> list[str]:
    """Those of the full paths that a listing by this glob would find."""
    from fsspec.utils import glob_translate

    expression = re.compile(glob_translate(glob))
    return [path for path in paths if expression.match(path)]


def did_you_mean(path: str) -> str:
    """The part of an error about a missing local path that names the nearest existing one in its folder; "" if none is near."""
    name = os.path.expanduser(path).rstrip("/")
    folder = os.path.dirname(name)
    if not is_local(path) or os.path.exists(name) or not os.path.isdir(folder or "."):
        return ""
    near = difflib.get_close_matches(os.path.basename(name), os.listdir(folder or "."), n=1)
    if not near:
        return ""
    found = os.path.join(folder, near[0])
    return f"; did you mean {(shown(found) if os.path.isabs(found) else found)!r}?"
