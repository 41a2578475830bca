"""The container image and the cluster of AWS machines that `ray up` makes of it."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from docker.utils.build import exclude_paths

from tests.support import REPOSITORY

DOCKERFILE = REPOSITORY / "cluster" / "Dockerfile"
MACHINES = REPOSITORY / "cluster" / "ray-up-aws.yaml"


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions: name and the rest, on one line each."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    found = [line.partition(" ") for line in joined.splitlines() if line.strip()]
    return [(name, " ".join(rest.split())) for name, _, rest in found]


def of(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def test_dockerfile_has_known_instructions_only() -> None:
    assert {name for name, _ in instructions()} <= {"ARG", "FROM", "RUN", "ENV", "WORKDIR", "COPY", "USER", "CMD"}


def test_dockerfile_copies_what_there_is_and_what_the_build_may_see() -> None:
    patterns = [line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    visible = exclude_paths(str(REPOSITORY), patterns, dockerfile="cluster/Dockerfile")
    sources = {source for arguments in of("COPY") for source in arguments.split()[:-1]}
    assert sources <= visible
    packages = {"jobs", "pipeline_ops", "cluster"}
    assert packages < sources
    assert {str(path.relative_to(REPOSITORY)) for name in packages for path in (REPOSITORY / name).rglob("*.py")} <= visible
    assert not [path for path in visible if path.startswith((".git", "tests")) or "__pycache__" in path]


def test_image_is_pinned_and_runs_as_the_user_of_the_manifests() -> None:
    [base] = [rest for rest in of("ARG") if rest.startswith("PYTHON_IMAGE=")]
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.11-slim-[a-z]+", base)
    assert of("FROM") == ["${PYTHON_IMAGE}"]
    [rayjob] = yaml.load_all((REPOSITORY / "cluster/manifests/rayjob.yaml").read_text(), Loader=yaml.CSafeLoader)
    head = rayjob["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    user = str(head["containers"][0]["securityContext"]["runAsUser"])
    assert of("USER") == [user]
    [useradd] = [rest for rest in of("RUN") if "useradd" in rest]
    assert f"--uid {user} " in useradd
    assert head["containers"][0]["volumeMounts"][0]["mountPath"] in useradd.split()


def test_image_has_what_kuberay_and_ray_up_run_and_no_entrypoint_in_their_way() -> None:
    [packages] = [rest for rest in of("RUN") if "apt-get install" in rest]
    assert {"bash", "wget", "openssh-client", "rsync"} <= set(packages.split())
    assert "rm -rf /var/lib/apt/lists/*" in packages
    assert of("ENTRYPOINT") == []
    [pip] = [rest for rest in of("RUN") if "--requirement" in rest]
    assert "--constraint cluster/constraints.txt" in pip
    assert "boto3" in pip.split()
    assert any("PIP_NO_CACHE_DIR=1" in rest for rest in of("ENV"))


@pytest.mark.parametrize("extras", ["", "tables", "tables,avro"])
def test_image_has_the_extras_that_its_build_is_given(tmp_path: Path, extras: str) -> None:
    [instruction] = [rest for rest in of("RUN") if "--requirement" in rest]
    command = instruction.partition(" && ")[0].removeprefix("python ")
    (tmp_path / "pyproject.toml").write_bytes((REPOSITORY / "pyproject.toml").read_bytes())
    subprocess.run(f"{sys.executable} {command}", shell=True, check=True, cwd=tmp_path, env={"EXTRAS": extras})
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    added = [one for name in extras.split(",") if name for one in project["optional-dependencies"][name]]
    assert (tmp_path / "requirements.txt").read_text().splitlines() == [*project["dependencies"], *added]


@pytest.mark.parametrize("path", [DOCKERFILE, MACHINES], ids=lambda path: path.name)
def test_files_name_no_latest_image(path: Path) -> None:
    assert re.findall(r"\S+:latest\b", path.read_text()) == []


@pytest.fixture(scope="module")
def machines() -> dict[str, Any]:
    return yaml.safe_load(MACHINES.read_text())


def test_machines_are_what_ray_up_accepts(machines: dict[str, Any]) -> None:
    import ray.autoscaler
    from ray.autoscaler._private.util import prepare_config, validate_config

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(machines, schema)
    prepared = prepare_config(machines)
    validate_config(prepared)
    # Ray's own defaults would install another Ray
    commands = [prepared[f"{kind}setup_commands"] for kind in ("", "head_", "worker_")]
    assert commands == [[], [], []]


def test_machines_head_has_no_resources_and_workers_are_spot(machines: dict[str, Any]) -> None:
    types = dict(machines["available_node_types"])
    head = types.pop(machines["head_node_type"])
    assert head["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]
    [start] = [line for line in machines["head_start_ray_commands"] if "ray start" in line]
    assert {"--num-cpus=0", "--dashboard-host=127.0.0.1", "--autoscaling-config=~/ray_bootstrap_config.yaml"} <= set(
        start.split()
    )
    assert set(types) == {"cpu", "gpu"}
    for kind in types.values():
        assert kind["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
        assert (kind["min_workers"], kind["max_workers"] > 0) == (0, True)
    assert types["gpu"]["resources"]["GPU"] == 1
    assert sum(kind["max_workers"] for kind in types.values()) <= machines["max_workers"]


def test_machines_have_the_token_of_the_user_and_roles_instead_of_keys(machines: dict[str, Any]) -> None:
    assert "--env RAY_AUTH_MODE=token" in machines["docker"]["run_options"]
    assert machines["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    for kind in machines["available_node_types"].values():
        assert kind["node_config"]["IamInstanceProfile"]["Name"].startswith("label-corpus-")
    assert re.findall(r"AWS_SECRET|AWS_ACCESS|\bAKIA\w+", MACHINES.read_text()) == []
