"""A stand-in for kubectl and the Kubernetes API behind it: RayJobs are JSON files in a folder. Run as `kubectl` by tests.

Knows `get rayjobs.ray.io` by selector or name with jsonpath, and `create --filename=-`. Environment: RAYJOBS, the folder.
There, `answers` holds a line for each command, `refused` for one that fails; `statuses` what a RayJob's status becomes, a line
for each time that it is asked for by its name.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ["RAYJOBS"])


def take_line(file: str) -> str | None:
    """Takes the first line out of a file; None: there is none."""
    lines = (FOLDER / file).read_text().splitlines() if (FOLDER / file).exists() else []
    if not lines:
        return None
    (FOLDER / file).write_text("".join(f"{line}\n" for line in lines[1:]))
    return lines[0]


def look_up(value: Any, path: str) -> str:
    """What {.a.b[0].c} stands for; nothing where it is missing."""
    for key, index in re.findall(r"\.([A-Za-z]+)|\[(\d+)\]", path):
        try:
            value = value[key] if key else value[int(index)]
        except (KeyError, IndexError):
            return ""
    return str(value)


def fill_in(template: str, rayjob: dict[str, Any]) -> str:
    """A jsonpath template's text for one object."""
    return re.sub(r"{(.*?)}", lambda found: json.loads(found[1]) if '"' in found[1] else look_up(rayjob, found[1]), template)


def stored() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))]


def store(rayjob: dict[str, Any]) -> None:
    (FOLDER / f"{rayjob['metadata']['name']}.json").write_text(json.dumps(rayjob))


def get_one(name: str, template: str) -> None:
    for rayjob in stored():
        if rayjob["metadata"]["name"] == name:
            status = take_line("statuses")
            if status == "deleted":
                (FOLDER / f"{name}.json").unlink()
                return
            if status is not None:
                rayjob["status"] = dict(zip(("jobDeploymentStatus", "jobStatus"), status.split("/"), strict=False))
                store(rayjob)
            sys.stdout.write(fill_in(template, rayjob))


def get_all(selector: str, template: str) -> None:
    wanted = dict(pair.split("=") for pair in selector.split(","))
    [each] = re.findall(r"{range \.items\[\*\]}(.*){end}", template, re.DOTALL)
    for rayjob in stored():
        if wanted.items() <= rayjob["metadata"].get("labels", {}).items():
            sys.stdout.write(fill_in(each, rayjob))


def create() -> None:
    import yaml  # not for the other commands, which are many

    [rayjob] = yaml.safe_load_all(sys.stdin)
    rayjob["metadata"]["name"] = f"{rayjob['metadata'].pop('generateName')}{len(stored()):05}"
    store(rayjob)
    print(f"rayjob.ray.io/{rayjob['metadata']['name']}")


def main(arguments: list[str]) -> None:
    options: dict[str, str] = {}
    for argument in arguments:
        if argument.startswith("--"):
            name, _, value = argument.removeprefix("--").partition("=")
            options[name] = value
    words = [argument for argument in arguments if not argument.startswith("--")]
    if unknown := options.keys() - {"filename", "output", "selector", "ignore-not-found"}:
        sys.exit(f"error: unknown flags {unknown}")
    if take_line("answers") == "refused":
        sys.exit("error: the server is currently unable to handle the request")
    if words == ["create"] and options == {"filename": "-", "output": "name"}:
        create()
    elif words == ["get", "rayjobs.ray.io"]:
        get_all(options["selector"], options["output"].removeprefix("jsonpath="))
    elif words[:2] == ["get", "rayjobs.ray.io"] and "ignore-not-found" in options:
        get_one(words[2], options["output"].removeprefix("jsonpath="))
    else:
        sys.exit(f"error: unknown command {words}")


if __name__ == "__main__":
    main(sys.argv[1:])
