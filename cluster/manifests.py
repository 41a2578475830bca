"""The manifests that are made from manifests/rayjob.yaml: a schedule (CronJob), a cluster for `submit`, a RayJob for Kueue.

KubeRay has a RayCronJob, but it has no concurrencyPolicy, creates every tick it has missed and is behind a feature gate: so a
plain CronJob creates the RayJobs.
"""

import copy
import re
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Any

import yaml

from cluster.cron_syntax import check_cron, check_timezone

KUBECTL_IMAGE = "alpine/kubectl:1.34.1"  # has a shell; Kubernetes' own image has none
NAME_LENGTH = 41  # KubeRay's limit for RayJobs is 47, and `generateName` adds 6: a hyphen and 5 characters
START_WITHIN_S = 3600  # a tick that comes later than this is left out; of several missed ones, Kubernetes catches up the last
POLL_S = 15
KUEUE_NODES = 4  # of each group, as kueue-queues.yaml has room for


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as such, and nothing by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


_Dumper.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)
)


def manifest(name: str) -> str:
    """The text of a file of cluster/manifests."""
    return resources.files("cluster").joinpath("manifests", name).read_text(encoding="utf-8")


def to_yaml(documents: Iterable[dict[str, Any]], header: str) -> str:
    """Documents of one file, below `header`, whose lines are comments."""
    texts = [yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=120) for document in documents]
    return "".join(f"# {line}".rstrip() + "\n" for line in header.splitlines()) + "---\n".join(texts)


def cronjob(
    name: str,
    job_yaml: str,
    cron: str,
    timezone: str,
    image: str,
    *,
    namespace: str = "default",
    kubectl_image: str = KUBECTL_IMAGE,
    rayjob: str | None = None,
) -> str:
    """All that a schedule needs on Kubernetes, for `kubectl apply -f -`.

    Each tick creates a RayJob, unless the last one is not over yet; a pod waits for it and fails as it does. The RayJobs belong
    to the ticks' Jobs, and go with them when the CronJob's history forgets them.

    Args:
        name: of the objects, and what the RayJobs' names begin with.
        job_yaml: the job file's text.
        cron: five fields, or a macro such as @daily.
        timezone: of `cron`, such as Europe/Berlin.
        image: made from cluster/Dockerfile, with its tag.
        kubectl_image: with kubectl, sh, sed and awk, with its tag.
        rayjob: the RayJob manifest's text; default: that of manifests/rayjob.yaml.

    Raises:
        ValueError: one of them is invalid; the message names the remedy.
    """
    check_name("name", name, NAME_LENGTH)
    check_name("namespace", namespace, 63)
    check_cron(cron)
    check_timezone(timezone)
    check_image("image", image)
    check_image("kubectl image", kubectl_image)
    labels = {"app.kubernetes.io/name": "label-corpus", "app.kubernetes.io/instance": name}
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    run = _read_rayjob(rayjob, image)
    run["metadata"] = {
        "generateName": f"{name}-",
        "namespace": namespace,
        "labels": run["metadata"].get("labels", {}) | labels,
        # filled in by the tick
        "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "TICK_JOB_NAME", "uid": "TICK_JOB_UID"}],
    }
    for volume in _template(run["spec"]["rayClusterSpec"]["headGroupSpec"])["volumes"]:
        if volume["name"] == "job":
            volume["configMap"]["name"] = name
    documents = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": metadata,
            "rules": [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["get", "list", "create"]}],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "data": {
                "job.yaml": job_yaml,
                "rayjob.yaml": to_yaml([run], "What each tick creates"),
                "tick.sh": manifest("tick.sh"),
            },
        },
        _cronjob(metadata, cron, timezone, kubectl_image, _longest(run["spec"])),
    ]
    return to_yaml(
        documents,
        f"A schedule of label-corpus: kubectl apply -f FILE. A first tick by hand:\n"
        f"  kubectl create job --namespace {namespace} --from=cronjob/{name} {name}-now\n"
        f"The pods take the object store's credentials from the Secret label-corpus-credentials, if there is one.",
    )


def raycluster() -> str:
    """The RayJob's cluster alone, that stays: for `label-corpus submit`. Its workers come when a job asks for them."""
    spec = _read_rayjob(None, None)["spec"]["rayClusterSpec"]
    head = _template(spec["headGroupSpec"])
    head["volumes"] = [volume for volume in head["volumes"] if volume["name"] != "job"]
    [container] = head["containers"]
    container["volumeMounts"] = [mount for mount in container["volumeMounts"] if mount["name"] != "job"]
    for group in spec["workerGroupSpecs"]:
        group["replicas"] = 0
    document = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": "label-corpus", "labels": {"app.kubernetes.io/name": "label-corpus"}},
        "spec": spec,
    }
    return to_yaml(
        [document],
        "A Ray cluster that stays, for `label-corpus submit`; its workers come when a job asks for them, and go.\n"
        "Made from rayjob.yaml, which says why each line is there, by jobs.remote.kubernetes.write_manifests().\n\n"
        "  kubectl port-forward service/label-corpus-head-svc 8265 &\n"
        "  export RAY_AUTH_MODE=token\n"
        "  export RAY_AUTH_TOKEN=$(kubectl get secret label-corpus -o jsonpath='{.data.auth_token}' | base64 -d)\n"
        "  label-corpus submit job.yaml --address http://127.0.0.1:8265",
    )


def rayjob_kueue() -> str:
    """The RayJob for a queue of Kueue, which reserves all of its nodes or none: a cluster of fixed size, without autoscaler."""
    run = _read_rayjob(None, None)
    run["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "label-corpus"
    spec = run["spec"]
    spec["suspend"] = True  # Kueue lets it go
    del spec["preRunningDeadlineSeconds"]  # waiting is what the queue is for
    spec["rayClusterSpec"]["enableInTreeAutoscaling"] = False
    del spec["rayClusterSpec"]["autoscalerOptions"]
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
        group |= dict.fromkeys(("replicas", "minReplicas", "maxReplicas"), KUEUE_NODES)
    return to_yaml(
        [run],
        "The RayJob behind a queue of Kueue: kueue-queues.yaml first. Kueue reserves all nodes at once, so there is no\n"
        "autoscaler, and the cluster has to be shut down at the end.\n"
        "Made from rayjob.yaml, which says why each line is there, by jobs.remote.kubernetes.write_manifests().",
    )


def check_name(what: str, name: str, length: int) -> None:
    """Raises ValueError where Kubernetes or KubeRay would refuse the name."""
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        raise ValueError(
            f"{what}: {name!r} is no name for Kubernetes; give lower-case letters, digits and hyphens, beginning with a letter"
            f" and not ending with a hyphen"
        )
    if len(name) > length:
        raise ValueError(f"{what}: {name!r} has {len(name)} characters; give at most {length}")


def check_image(what: str, image: str) -> None:
    """Raises ValueError for images that may be another one tomorrow."""
    _, _, tag = image.rsplit("/", 1)[-1].partition(":")
    if not re.fullmatch(r"[A-Za-z0-9][^\s\"']*", image) or ("@sha256:" not in image and tag in ("", "latest")):
        raise ValueError(f"{what}: {image!r} names no version; give the image with its tag, e.g. registry.example.com/it:0.1.0")


@cache
def _parsed(text: str) -> Any:
    return list(yaml.safe_load_all(text))


def _read_rayjob(text: str | None, image: str | None) -> dict[str, Any]:
    """A RayJob manifest as a dict of its own, with `image` in all of its pods.

    Raises:
        ValueError: it is no RayJob, or its head does not mount the job file.
    """
    try:
        documents = copy.deepcopy(_parsed(manifest("rayjob.yaml") if text is None else text))
    except yaml.YAMLError as error:
        raise ValueError(f"RayJob manifest: not valid YAML: {' '.join(str(error).split())}") from error
    try:
        [run] = documents
        kind, cluster = run["kind"], run["spec"]["rayClusterSpec"]
        pods = [_template(group) for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
        if "submitterPodTemplate" in run["spec"]:
            pods.append(run["spec"]["submitterPodTemplate"]["spec"])
        mounted = any(volume["name"] == "job" and "configMap" in volume for volume in pods[0]["volumes"])
        for pod in pods if image else []:
            pod["containers"][0]["image"] = image
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError("RayJob manifest: not one RayJob with a cluster; begin with a copy of rayjob.yaml") from error
    if kind != "RayJob" or not mounted:
        raise ValueError("RayJob manifest: a RayJob whose head has a ConfigMap volume `job`; begin with a copy of rayjob.yaml")
    return run


def _template(group: dict[str, Any]) -> dict[str, Any]:
    return group["template"]["spec"]


def _longest(spec: dict[str, Any]) -> int:
    """Seconds that a RayJob can take with all of its attempts, and an hour."""
    return (spec.get("backoffLimit", 0) + 1) * spec.get("activeDeadlineSeconds", 7 * 86400) + 3600


def _cronjob(metadata: dict[str, Any], cron: str, timezone: str, kubectl_image: str, longest_s: int) -> dict[str, Any]:
    def from_label(name: str, label: str) -> dict[str, Any]:
        return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['batch.kubernetes.io/{label}']"}}}

    container = {
        "name": "tick",
        "image": kubectl_image,
        "command": ["sh", "/tick/tick.sh"],
        "env": [
            {"name": "SELECTOR", "value": ",".join(f"{key}={value}" for key, value in metadata["labels"].items())},
            {"name": "RAYJOB", "value": "/tick/rayjob.yaml"},
            from_label("JOB_NAME", "job-name"),
            from_label("JOB_UID", "controller-uid"),
            {"name": "POLL_SECONDS", "value": str(POLL_S)},
        ],
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65534,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": "tick", "mountPath": "/tick", "readOnly": True}],
    }
    items = [{"key": file, "path": file} for file in ("rayjob.yaml", "tick.sh")]
    pod = {
        "serviceAccountName": metadata["name"],
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 5,
        "containers": [container],
        "volumes": [{"name": "tick", "configMap": {"name": metadata["name"], "items": items}}],
    }
    job = {
        "backoffLimit": 3,
        # a pod that can never start, as when the image is not there, would block all later ticks
        "activeDeadlineSeconds": longest_s,
        "podFailurePolicy": {
            "rules": [
                # a RayJob that has failed is not tried again before the next tick, and a pod that loses its node is no failure
                {"action": "FailJob", "onExitCodes": {"containerName": "tick", "operator": "In", "values": [1]}},
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            ]
        },
        "template": {"metadata": {"labels": metadata["labels"]}, "spec": pod},
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": metadata,
        "spec": {
            "schedule": cron,
            "timeZone": timezone,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": START_WITHIN_S,
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {"metadata": {"labels": metadata["labels"]}, "spec": job},
        },
    }
