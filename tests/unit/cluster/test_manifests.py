"""The Kubernetes manifests: what they ask a cluster for, and that those made from rayjob.yaml are what is made from it."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.manifests import NAME_LENGTH, cronjob
from jobs.config import load_job
from jobs.remote.kubernetes import kubernetes_manifests, made_manifests, name_of
from pipeline_ops.schema.errors import UserError
from tests.support import REPOSITORY
from tests.support.running import command

MANIFESTS = REPOSITORY / "cluster" / "manifests"
SST2 = REPOSITORY / "jobs" / "sst2.yaml"
WHEN = ("0 2 * * *", "Europe/Berlin", "registry.example.com/it:0.1.0")
UNITS = {"": 1, "m": 0.001, "Mi": 2**20, "Gi": 2**30}


def read(text: str) -> list[dict[str, Any]]:
    return list(yaml.load_all(text, Loader=yaml.CSafeLoader))  # many times as fast as the one in Python


@cache
def documents(name: str) -> list[dict[str, Any]]:
    return read((MANIFESTS / name).read_text())


def of_kind(found: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    [document] = [document for document in found if document["kind"] == kind]
    return document


def rayjob_of(schedule: list[dict[str, Any]]) -> dict[str, Any]:
    """The RayJob that a schedule's ticks create."""
    [rayjob] = read(of_kind(schedule, "ConfigMap")["data"]["rayjob.yaml"])
    return rayjob


@cache
def ray_objects() -> dict[str, dict[str, Any]]:
    [rayjob], [kueue], [cluster] = (documents(f"{name}.yaml") for name in ("rayjob", "rayjob-kueue", "raycluster"))
    return {"rayjob": rayjob, "kueue": kueue, "raycluster": cluster, "cronjob": rayjob_of(documents("cronjob.yaml"))}


def cluster_of(ray_object: dict[str, Any]) -> dict[str, Any]:
    return ray_object["spec"].get("rayClusterSpec", ray_object["spec"])


def groups_of(ray_object: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {group["groupName"]: group for group in cluster_of(ray_object)["workerGroupSpecs"]}


def pods_of(ray_object: dict[str, Any]) -> Iterator[dict[str, Any]]:
    cluster = cluster_of(ray_object)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield group["template"]["spec"]
    if "submitterPodTemplate" in ray_object["spec"]:
        yield ray_object["spec"]["submitterPodTemplate"]["spec"]


def parts(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping of a document."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from parts(inner)


def quantity(text: object) -> float:
    found = re.fullmatch(r"(\d+)([A-Za-z]*)", str(text))
    assert found, text
    return int(found[1]) * UNITS[found[2]]


@pytest.fixture(params=["rayjob", "kueue", "raycluster", "cronjob"])
def ray_object(request: pytest.FixtureRequest) -> dict[str, Any]:
    return ray_objects()[request.param]


def test_manifests_made_from_rayjob_are_up_to_date() -> None:
    made = {name: (MANIFESTS / name).read_text() == text for name, text in made_manifests().items()}
    assert made == dict.fromkeys(made, True), "run jobs.remote.kubernetes.write_manifests()"


def test_manifest_head_has_no_resources_and_is_on_demand(ray_object: dict[str, Any]) -> None:
    head = cluster_of(ray_object)["headGroupSpec"]
    assert head["rayStartParams"] == {"num-cpus": "0"}
    affinity = head["template"]["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    [term] = affinity["nodeSelectorTerms"]
    assert {expression["operator"] for expression in term["matchExpressions"]} == {"NotIn"}


def test_manifest_asks_for_a_token_and_the_ray_that_is_installed(ray_object: dict[str, Any]) -> None:
    cluster = cluster_of(ray_object)
    assert cluster["authOptions"] == {"mode": "token"}
    constraints = (MANIFESTS.parent / "constraints.txt").read_text().splitlines()
    assert f"ray=={cluster['rayVersion']}" in constraints


def test_manifest_gpu_group_has_spot_nodes_with_gpus_to_itself(ray_object: dict[str, Any]) -> None:
    groups = groups_of(ray_object)
    assert list(groups) == ["cpu", "gpu"]
    pod = groups["gpu"]["template"]["spec"]
    affinity = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    spot = [term["matchExpressions"][0]["key"] for term in affinity["nodeSelectorTerms"]]
    tolerated = {toleration["key"] for toleration in pod["tolerations"]}
    assert {"nvidia.com/gpu", "spot"} <= tolerated
    # those of the providers that taint their spot nodes by themselves
    assert {"cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority"} <= tolerated & set(spot)
    resources = pod["containers"][0]["resources"]
    assert resources["limits"] == resources["requests"]
    assert resources["limits"]["nvidia.com/gpu"] == "1"
    assert "ray.io/accelerator-type" in groups["gpu"]["labels"]
    others = [container for other in pods_of(ray_object) if other is not pod for container in other["containers"]]
    assert not any("nvidia.com/gpu" in container["resources"]["limits"] for container in others)


@pytest.mark.parametrize("name", ["rayjob", "raycluster", "cronjob"])
def test_manifest_workers_scale_to_none(name: str) -> None:
    ray_object = ray_objects()[name]
    cluster = cluster_of(ray_object)
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["version"] == "v2"
    assert cluster["autoscalerOptions"]["idleTimeoutSeconds"] > 0
    for group in groups_of(ray_object).values():
        assert group["minReplicas"] == 0
        assert 0 <= group["replicas"] <= group["maxReplicas"]
        # a spot notice is two minutes at most, and Ray drains a node for 30 s
        assert 30 < group["template"]["spec"]["terminationGracePeriodSeconds"] <= 120


def test_manifest_pods_run_without_privileges_and_from_one_pinned_image(ray_object: dict[str, Any]) -> None:
    containers = [container for pod in pods_of(ray_object) for container in pod["containers"]]
    for container in containers:
        security = container["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert set(container["resources"]) == {"requests", "limits"}
    [image] = {container["image"] for container in containers}
    assert re.fullmatch(r"label-corpus:\d+\.\d+\.\d+", image)
    assert image.endswith(f":{version('label-corpus')}")


def test_manifest_models_are_cached_on_a_volume_of_the_pods_user(ray_object: dict[str, Any]) -> None:
    cluster = cluster_of(ray_object)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        [volume] = [volume for volume in pod["volumes"] if volume["name"] == "cache"]
        assert "emptyDir" in volume
        mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounts["/home/ray/.cache"] == "cache"
        assert pod["securityContext"]["fsGroup"] == pod["containers"][0]["securityContext"]["runAsUser"]


@pytest.mark.parametrize("path", sorted(MANIFESTS.glob("*.yaml")), ids=lambda path: path.name)
def test_manifest_holds_no_secrets_and_names_no_latest_image(path: Path) -> None:
    found = documents(path.name)
    assert not any(document["kind"] == "Secret" for document in found)
    if path.name == "cronjob.yaml":
        found = [*found, rayjob_of(found)]
    for part in parts(found):
        if re.search("KEY|TOKEN|SECRET|PASSWORD", str(part.get("name", ""))):
            assert "value" not in part
            assert part["valueFrom"]["secretKeyRef"]["name"] == "label-corpus-credentials"
        if isinstance(part.get("image"), str):
            assert re.search(r":\d", part["image"])


@pytest.mark.parametrize("name", ["rayjob", "kueue", "cronjob"])
def test_rayjob_ends_its_cluster_and_is_tried_again(name: str) -> None:
    rayjob = ray_objects()[name]
    spec = rayjob["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0
    assert spec["backoffLimit"] > 0
    assert spec["activeDeadlineSeconds"] > 0
    assert "deletionStrategy" not in spec  # KubeRay refuses it together with shutdownAfterJobFinishes
    assert spec["entrypointNumCpus"] == 0  # else Ray puts the driver on a worker


def test_rayjob_entrypoint_runs_the_mounted_job_file(tmp_path: Path) -> None:
    spec = ray_objects()["rayjob"]["spec"]
    [entrypoint] = {ray_objects()[name]["spec"]["entrypoint"] for name in ("rayjob", "kueue", "cronjob")}
    program, *arguments = shlex.split(entrypoint)
    assert program == "label-corpus"
    pod = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    [volume] = [volume for volume in pod["volumes"] if "configMap" in volume]
    [mount] = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == volume["name"]]
    [item] = volume["configMap"]["items"]
    mounted = f"{mount['mountPath']}/{item['path']}"
    assert mounted in arguments
    (tmp_path / "job.yaml").write_text("input: 1\n")
    finished = command(*[str(tmp_path / "job.yaml") if argument == mounted else argument for argument in arguments])
    assert (finished.code, finished.error_lines[-1].startswith("label-corpus: input")) == (2, True)


def test_raycluster_starts_without_workers_and_without_a_job() -> None:
    cluster = ray_objects()["raycluster"]
    assert cluster["kind"] == "RayCluster"
    assert [group["replicas"] for group in groups_of(cluster).values()] == [0, 0]
    assert not any("configMap" in volume for pod in pods_of(cluster) for volume in pod["volumes"])


def test_rayjob_for_kueue_has_a_fixed_size_that_its_queue_has_room_for() -> None:
    rayjob = ray_objects()["kueue"]
    queues = documents("kueue-queues.yaml")
    local, cluster_queue = of_kind(queues, "LocalQueue"), of_kind(queues, "ClusterQueue")
    assert rayjob["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == local["metadata"]["name"]
    assert local["spec"]["clusterQueue"] == cluster_queue["metadata"]["name"]
    assert rayjob["spec"]["suspend"] is True
    assert cluster_of(rayjob)["enableInTreeAutoscaling"] is False
    groups = groups_of(rayjob)
    assert all(group["minReplicas"] == group["replicas"] == group["maxReplicas"] > 0 for group in groups.values())

    [resources] = cluster_queue["spec"]["resourceGroups"]
    flavors = [document["metadata"]["name"] for document in queues if document["kind"] == "ResourceFlavor"]
    assert [flavor["name"] for flavor in resources["flavors"]] == flavors
    quotas = [{entry["name"]: quantity(entry["nominalQuota"]) for entry in f["resources"]} for f in resources["flavors"]]
    needed = [dict.fromkeys(resources["coveredResources"], 0.0) for _ in flavors]
    counts = [1, *(group["replicas"] for group in groups.values()), 1]  # head, groups, submitter
    for pod, count in zip(pods_of(rayjob), counts, strict=True):
        for container in pod["containers"]:
            with_gpu = "nvidia.com/gpu" in container["resources"]["requests"]
            for name, amount in container["resources"]["requests"].items():
                needed[with_gpu][name] += count * quantity(amount)
    assert [name for need, quota in zip(needed, quotas, strict=True) for name in need if need[name] > quota[name]] == []
    assert quotas[0]["nvidia.com/gpu"] == 0


def test_schedule_keeps_ticks_apart_and_catches_up_one_at_most() -> None:
    schedule = read(cronjob("it", "a: 1\n", *WHEN))
    spec = of_kind(schedule, "CronJob")["spec"]
    assert (spec["schedule"], spec["timeZone"]) == WHEN[:2]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert 0 < spec["startingDeadlineSeconds"] <= 86400
    job = spec["jobTemplate"]["spec"]
    # exit code 1: the RayJob has failed, which the next tick takes up
    assert {"action": "FailJob", "onExitCodes": {"containerName": "tick", "operator": "In", "values": [1]}} in job[
        "podFailurePolicy"
    ]["rules"]
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # which a podFailurePolicy needs
    run = rayjob_of(schedule)["spec"]
    assert job["activeDeadlineSeconds"] > run["activeDeadlineSeconds"] * (run["backoffLimit"] + 1)


def test_schedule_may_create_rayjobs_in_its_namespace_and_nothing_else() -> None:
    schedule = read(cronjob("it", "a: 1\n", *WHEN, namespace="labeling"))
    assert {document["metadata"]["namespace"] for document in schedule} == {"labeling"}
    assert rayjob_of(schedule)["metadata"]["namespace"] == "labeling"
    account, role, binding = (of_kind(schedule, kind) for kind in ("ServiceAccount", "Role", "RoleBinding"))
    assert role["rules"] == [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["get", "list", "create"]}]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account["metadata"]["name"], "namespace": "labeling"}]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    pod = of_kind(schedule, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == account["metadata"]["name"]


def test_schedule_of_a_job_runs_it_with_its_overrides_in_the_given_image(tmp_path: Path) -> None:
    text = kubernetes_manifests(str(SST2), ["compute.batch_tokens=4096", "output.path=s3://other/labels"], *WHEN)
    schedule = read(text)
    job_file = tmp_path / "job.yaml"
    job_file.write_text(of_kind(schedule, "ConfigMap")["data"]["job.yaml"])
    expected = load_job(str(SST2), ["compute.batch_tokens=4096", "output.path=s3://other/labels"])
    assert load_job(str(job_file)) == expected
    rayjob = rayjob_of(schedule)
    assert {container["image"] for pod in pods_of(rayjob) for container in pod["containers"]} == {WHEN[2]}
    [volume] = [v for v in next(pods_of(rayjob))["volumes"] if "configMap" in v]
    assert volume["configMap"]["name"] == of_kind(schedule, "ConfigMap")["metadata"]["name"] == "label-corpus-sst2"
    assert "job.yaml" in [item["key"] for item in volume["configMap"]["items"]]


def test_schedule_from_a_rayjob_of_ones_own_keeps_what_it_says(tmp_path: Path) -> None:
    text = kubernetes_manifests(str(SST2), None, *WHEN, rayjob_file=str(MANIFESTS / "rayjob-kueue.yaml"))
    rayjob = rayjob_of(read(text))
    assert rayjob["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "label-corpus"
    assert cluster_of(rayjob)["enableInTreeAutoscaling"] is False


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid YAML"),
        ("kind: RayJob", "begin with a copy"),
        ((MANIFESTS / "raycluster.yaml").read_text(), "begin with a copy"),
        ((MANIFESTS / "rayjob.yaml").read_text().replace("name: job\n", "name: jobs\n"), "ConfigMap volume"),
        (None, "cannot be read"),
    ],
    ids=["yaml", "empty", "cluster", "no job", "no file"],
)
def test_schedule_from_what_is_no_rayjob_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "rayjob.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        kubernetes_manifests(str(SST2), None, *WHEN, rayjob_file=str(path))


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("input.path=/data/reviews", "input.path"),
        ("input.path=reviews/*.parquet", "input.path"),
        ("output.path=file:///data/labels", "output.path"),
        ("model.path=/models/bert", "model.path"),
        ("model.path=./bert", "model.path"),
        ("model.path=~/bert", "model.path"),
        ("model.path=jobs", "model.path"),  # a folder that there is
    ],
)
def test_schedule_of_a_job_with_a_local_path_is_refused_by_its_key(
    override: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(MANIFESTS.parents[1])
    with pytest.raises(UserError, match=f"^{key}: .*object storage"):
        kubernetes_manifests(str(SST2), [override], *WHEN)


def test_schedule_of_several_models_names_the_local_one() -> None:
    models = "[{name: a, path: user/model}, {name: b, path: /models/b}]"
    with pytest.raises(UserError, match=r"^models\.b\.path: "):
        kubernetes_manifests(str(SST2), ["model=null", f"models={models}", "output.partition_by=[]"], *WHEN)


@pytest.mark.parametrize("path", ["user/model", "model", "s3://bucket/model", "gs://bucket/model"])
def test_schedule_of_a_model_that_pods_can_fetch_is_accepted(path: str) -> None:
    assert path in kubernetes_manifests(str(SST2), [f"model.path={path}"], *WHEN)


def test_schedule_of_a_bad_job_is_refused_before_anything_else() -> None:
    with pytest.raises(UserError, match=r"^output\.paths: unknown key; did you mean output\.path\?"):
        kubernetes_manifests(str(SST2), ["output.paths=x"], "no cron", "Nowhere", "it")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Reviews"}, "^name: 'Reviews'.*give lower-case"),
        ({"name": "1reviews"}, "^name: .*beginning with a letter"),
        ({"name": "reviews-"}, "^name: .*hyphen"),
        ({"name": "reviews.v2"}, "^name: "),
        ({"name": "r" * (NAME_LENGTH + 1)}, "^name: .*42 characters; give at most 41"),
        ({"namespace": "a_b"}, "^namespace: "),
        ({"image": "it"}, "^image: .*with its tag"),
        ({"image": "it:latest"}, "^image: .*with its tag"),
        ({"image": "registry.example.com:5000/it"}, "^image: .*with its tag"),
        ({"image": ""}, "^image: "),
        ({"kubectl_image": "alpine/kubectl"}, "^kubectl image: "),
        ({"cron": "0 2 * *"}, "^cron: .*4 fields of 5; give minute"),
        ({"timezone": "Berlin"}, "^timezone: there is no 'Berlin'; give"),
    ],
)
def test_schedule_that_kubernetes_would_refuse_is_refused_with_a_remedy(changes: dict[str, str], message: str) -> None:
    arguments = {"cron": WHEN[0], "timezone": WHEN[1], "image": WHEN[2]} | changes
    with pytest.raises(UserError, match=message):
        kubernetes_manifests(str(SST2), None, **arguments)


@pytest.mark.parametrize("image", ["it:0.1", "registry.example.com:5000/it:0.1", "it@sha256:" + "a" * 64])
def test_schedule_with_a_pinned_image_is_accepted(image: str) -> None:
    assert image in cronjob("r" * NAME_LENGTH, "a: 1\n", "@daily", "Etc/UTC", image)


@pytest.mark.parametrize(
    ("job_file", "name"),
    [
        ("jobs/sst2.yaml", "label-corpus-sst2"),
        ("/x/SST_2 (new).yaml", "label-corpus-sst-2-new"),
        ("a" * 99 + ".yaml", "label-corpus-" + "a" * 28),
    ],
)
def test_schedule_is_called_as_its_job_file(job_file: str, name: str) -> None:
    assert name_of(job_file) == name
    cronjob(name, "a: 1\n", *WHEN)


def test_kuberay_accepts_every_manifest(tmp_path: Path) -> None:
    """By the script that KUBERAY_VALIDATOR names: it takes manifest files, and exits 1 where KubeRay's CRDs refuse one."""
    script = os.environ.get("KUBERAY_VALIDATOR")
    if not script:
        pytest.skip("KUBERAY_VALIDATOR names no script that checks manifests against KubeRay's CRDs")
    tick = tmp_path / "tick.yaml"
    tick.write_text(of_kind(documents("cronjob.yaml"), "ConfigMap")["data"]["rayjob.yaml"])
    files = [*sorted(MANIFESTS.glob("*.yaml")), tick]
    result = subprocess.run([sys.executable, script, *files], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    tick.write_text(tick.read_text().replace("entrypointNumCpus", "entrypointCpus"))
    assert subprocess.run([sys.executable, script, tick], capture_output=True).returncode == 1
