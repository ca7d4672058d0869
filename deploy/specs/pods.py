"""The Ray cluster that serves a layout, pod by pod: said here alone, for the emitted manifest and for the chart.

Holes are named by the values of the Helm chart: those of the layout (``Serving.values``), and those of the site
(``SITE_DEFAULTS``). ``group`` is one of its ``workerGroups``, ``kind`` what the site says of its type of GPU. Field
names follow KubeRay's RayService v1.

Ray would run engines, proxies and ingress replicas at niceness 15 (``serve.launch.niceness``), behind its own raylet
and agents. A pod's cores are its own, so nothing else would be given way to; trials on a Ray of our own are at 0.
"""

from __future__ import annotations

from typing import Any

from deploy.specs.holes import Each, Hole, Kind, Merged, When, helm_template
from deploy.specs.site_values import SITE_KEYS
from serve.launch.niceness import VARIABLE as NICENESS

CACHE_PATH = "/hf-cache"

_PORTS = {"gcs": 6379, "dashboard": 8265, "client": 10001, "metrics": 8080, "serve": 8000}
_RAYLET_HEALTH = "wget --tries 1 -T 2 -q -O- http://localhost:52365/api/local_raylet_healthz | grep success"
_GCS_HEALTH = "wget --tries 1 -T 10 -q -O- http://localhost:8265/api/gcs_healthz | grep success"
_PROXY_HEALTH = "wget --tries 1 -T 10 -q -O- http://localhost:8000/-/healthz | grep success"
_HEADING = """{{- /* Written from deploy/specs/pods.py, the one place where the pods are said: change it there. */ -}}
{{- define "parlay.cluster" -}}
{{- $serving := merge (dict "name" (include "parlay.name" .)) .Values.serving -}}
"""
_END = "{{- end -}}\n"
_KIND = Kind("kind", "serving.gpuTypes", "group.gpuType", ("nodeSelector", "tolerations", "runtimeClassName"))


def _probe(command: str, failures: int) -> dict[str, Any]:
    """One of KubeRay's own health checks, written out so that it does not depend on the operator's version."""
    return {
        "exec": {"command": ["bash", "-c", command]},
        "timeoutSeconds": 13,
        "periodSeconds": 10,
        "failureThreshold": failures,
    }


def _container(
    name: str, size: dict[Any, Any], ports: tuple[str, ...], alive: str, ready: str, capabilities: dict[str, Any]
) -> dict[str, Any]:
    token = {"name": Hole("serving.tokenSecret"), "key": "token", "optional": True}
    model = {"name": "model", "mountPath": Hole("serving.modelVolume.path"), "readOnly": True}
    return {
        "name": name,
        "image": Hole("serving.image"),
        "imagePullPolicy": Hole("serving.imagePullPolicy"),
        "env": [
            {"name": "HF_HOME", "value": CACHE_PATH},
            {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": token}},
            {"name": NICENESS, "value": "0"},
            Each("serving.rayEnv", "entry", Hole("entry")),
            Each("serving.extraEnv", "entry", Hole("entry")),
        ],
        "resources": {"requests": size, "limits": size},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"], **capabilities}},
        "volumeMounts": [
            {"name": "shared-memory", "mountPath": "/dev/shm"},
            {"name": "hf-cache", "mountPath": CACHE_PATH},
            When("serving.modelVolume", model),
            Each("serving.extraVolumeMounts", "entry", Hole("entry")),
        ],
        "ports": [{"name": port, "containerPort": _PORTS[port], "protocol": "TCP"} for port in ports],
        # A big image is unpacked, a runtime environment is made: ten minutes, in which nothing else is asked.
        "startupProbe": _probe(alive, 60),
        "livenessProbe": _probe(alive, 12),
        "readinessProbe": _probe(ready, 12),
    }


def _metadata(**labels: str | Hole) -> dict[str, Any]:
    own = {f"parlay.dev/{name}": value for name, value in labels.items()}
    return {
        "labels": Merged((own, "serving.podLabels")),
        "annotations": _set("serving.podAnnotations"),
    }


def _pod(container: dict[str, Any]) -> dict[str, Any]:
    claim = {"claimName": Hole("serving.cacheClaim")}
    model = {"claimName": Hole("serving.modelVolume.claim"), "readOnly": True}
    return {
        # Nothing in the pods asks Kubernetes. Links to services would be variables such as VLLM_PORT, which vLLM reads.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # Ray's node drains for up to 30 s before it ends, so that answers under way are finished.
        "terminationGracePeriodSeconds": 60,
        "serviceAccountName": _set("serving.serviceAccountName"),
        "imagePullSecrets": _set("serving.imagePullSecrets"),
        "priorityClassName": _set("serving.priorityClassName"),
        # The user and group of the Ray images.
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 100,
            "fsGroup": 100,
            "fsGroupChangePolicy": "OnRootMismatch",  # a cache of weights has many files
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": Hole("serving.sharedMemory")}},
            When(
                "serving.cacheClaim",
                {"name": "hf-cache", "persistentVolumeClaim": claim},
                {"name": "hf-cache", "emptyDir": {}},
            ),
            When("serving.modelVolume", {"name": "model", "persistentVolumeClaim": model}),
            Each("serving.extraVolumes", "entry", Hole("entry")),
        ],
    }


def _head() -> dict[str, Any]:
    """No engine rank is placed on the head: it has no device, and its failure would take a replica with it."""
    size = {"cpu": Hole("serving.head.cpu"), "memory": Hole("serving.head.memory")}
    healthy = f"{_RAYLET_HEALTH} && {_GCS_HEALTH}"
    container = _container("ray-head", size, tuple(_PORTS), healthy, healthy, {})
    tolerations = {"tolerations": _set("serving.tolerations")}
    return {
        "rayStartParams": {"dashboard-host": "0.0.0.0", "num-cpus": "0"},
        "template": {
            "metadata": _metadata(serving=Hole("serving.name"), group="head"),
            "spec": _pod(container) | tolerations,
        },
    }


def _workers(ready: str) -> dict[str, Any]:
    """Pods of one group, and when they are ready; ``logicalGpus`` is what Ray counts where its executor places ranks on
    CPU cores."""
    gpus = When("group.gpus", Hole("group.gpus", text=True))
    rdma = When("group.gpus", When("serving.rdma.resource", Hole("serving.rdma.count", text=True)))
    size = {
        "cpu": Hole("group.cpu"),
        "memory": Hole("group.memory"),
        Hole("serving.gpuResource"): gpus,
        Hole("serving.rdma.resource"): rdma,
    }
    locked = {"add": When("group.gpus", When("serving.rdma.resource", ["IPC_LOCK"]))}  # RDMA pins memory
    container = _container("ray-worker", size, ("metrics", "serve"), _RAYLET_HEALTH, ready, locked)
    metadata = _metadata(serving=Hole("serving.name"), group=Hole("group.name"))
    return {
        "groupName": Hole("group.name"),
        "replicas": Hole("group.replicas"),
        "minReplicas": Hole("group.replicas"),
        "maxReplicas": Hole("group.replicas"),
        # Ray's own labels: an application with two pools asks for its nodes by them.
        "labels": When("group.pool", {"parlay.dev/pool": Hole("group.pool")}),
        "rayStartParams": When("group.logicalGpus", {"num-gpus": Hole("group.logicalGpus", text=True)}, {}),
        "template": {"metadata": metadata, "spec": _pod(container) | _nodes()},
    }


def _nodes() -> dict[str, Any]:
    """Where the pods of a group go: what its type of GPU says comes before what is said for all."""
    selector = Merged(("kind.nodeSelector", "serving.nodeSelector"))
    runtime = When("kind.runtimeClassName", Hole("kind.runtimeClassName"), _set("serving.runtimeClassName"))
    own = {"key": Hole("serving.gpuResource"), "operator": "Exists", "effect": "NoSchedule"}
    tolerations = [
        When("group.gpus", own),
        Each("serving.tolerations", "entry", Hole("entry")),
        Each("kind.tolerations", "entry", Hole("entry")),
    ]
    spread = {
        "maxSkew": Hole("serving.topologySpread.maxSkew"),
        "topologyKey": Hole("serving.topologySpread.topologyKey"),
        "whenUnsatisfiable": Hole("serving.topologySpread.whenUnsatisfiable"),
        "labelSelector": {"matchLabels": {"parlay.dev/serving": Hole("serving.name")}},
    }
    return {
        "nodeSelector": When("group.gpus", When(("kind.nodeSelector", "serving.nodeSelector"), selector)),
        "tolerations": When(("group.gpus", "serving.tolerations", "kind.tolerations"), tolerations),
        "runtimeClassName": When("group.gpus", runtime),
        "affinity": _set("serving.affinity"),
        "topologySpreadConstraints": When("serving.topologySpread.topologyKey", [spread]),
        "hostNetwork": When("serving.rdma.hostNetwork", True),
        "dnsPolicy": When("serving.rdma.hostNetwork", "ClusterFirstWithHostNet"),
    }


def _set(path: str) -> When:
    return When(path, Hole(path))


def _cluster(ready: str) -> dict[str, Any]:
    return {
        "rayVersion": Hole("serving.rayVersion"),
        "enableInTreeAutoscaling": False,
        "headGroupSpec": _head(),
        "workerGroupSpecs": [Each("serving.workerGroups", "group", _workers(ready), ("gpuType", "pool"), _KIND)],
    }


RAY_CLUSTER = _cluster(f"{_RAYLET_HEALTH} && {_PROXY_HEALTH}")
TRIAL_CLUSTER = _cluster(_RAYLET_HEALTH)  # nothing is served there but by trials, one after the other

# Labels of the RayService, or of a RayCluster, by which its pods start together. Kueue finds its queue by one, which
# KubeRay hands on; of Volcano KubeRay's operator has to be told.
GANG_LABELS: dict[str, Any] = {
    "kueue.x-k8s.io/queue-name": When("serving.gang.scheduler", Hole("serving.gang.queue"), word="kueue"),
    "ray.io/scheduler-name": When("serving.gang.scheduler", "volcano", word="volcano"),
    "volcano.sh/queue-name": When("serving.gang.scheduler", Hole("serving.gang.queue"), word="volcano"),
}
UPGRADE: dict[str, Any] = {"upgradeStrategy": When("serving.upgrade", {"type": Hole("serving.upgrade")})}


def chart_template() -> str:
    """The text of the chart's ``templates/_cluster.tpl``: the cluster as a named template of Helm, and what a site says
    of the whole; which values are a site's, a controller of the same release is told."""
    parts = [f"{_HEADING}{helm_template(RAY_CLUSTER)}{_END}"]
    for name, document in (("gang", GANG_LABELS), ("upgrade", UPGRADE)):
        parts.append(f"{_define(name)}{{{{- $serving := .Values.serving -}}}}\n{helm_template(document)}{_END}")
    keys = " ".join(f'"{key}"' for key in SITE_KEYS)
    parts.append(f"{_define('site')}{{{{- pick .Values.serving {keys} | toYaml -}}}}\n{_END}")
    return "\n".join(parts)


def _define(name: str) -> str:
    return f'{{{{- define "parlay.{name}" -}}}}\n'
