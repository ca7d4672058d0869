"""The Ray cluster that serves a layout, pod by pod: said here alone, for the emitted manifest and for the chart.

Holes are named by the values of the Helm chart (``Serving.values``); ``group`` is one of its ``workerGroups``. Field
names follow KubeRay's RayService v1.
"""

from __future__ import annotations

from typing import Any

from deploy.specs.holes import Each, Hole, When, helm_template

CACHE_PATH = "/hf-cache"

_PORTS = {"gcs": 6379, "dashboard": 8265, "client": 10001, "metrics": 8080, "serve": 8000}
_RAYLET_HEALTH = "wget --tries 1 -T 2 -q -O- http://localhost:52365/api/local_raylet_healthz | grep success"
_GCS_HEALTH = "wget --tries 1 -T 10 -q -O- http://localhost:8265/api/gcs_healthz | grep success"
_PROXY_HEALTH = "wget --tries 1 -T 10 -q -O- http://localhost:8000/-/healthz | grep success"
_HEADING = """{{- /* Written from deploy/specs/pods.py, the one place where the pods are said: change it there. */ -}}
{{- define "parlay.cluster" -}}
{{- $serving := .Values.serving -}}
"""


def _probe(command: str, delay_s: int) -> dict[str, Any]:
    """One of KubeRay's own health checks, written out so that it does not depend on the operator's version."""
    return {
        "exec": {"command": ["bash", "-c", command]},
        "initialDelaySeconds": delay_s,
        "timeoutSeconds": 13,
        "periodSeconds": 10,
        "failureThreshold": 12,
    }


def _container(name: str, size: dict[Any, Any], ports: tuple[str, ...], alive: str, ready: str) -> dict[str, Any]:
    token = {"name": Hole("serving.tokenSecret"), "key": "token", "optional": True}
    model = {"name": "model", "mountPath": Hole("serving.modelVolume.path"), "readOnly": True}
    return {
        "name": name,
        "image": Hole("serving.image"),
        "env": [
            {"name": "HF_HOME", "value": CACHE_PATH},
            {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": token}},
        ],
        "resources": {"requests": size, "limits": size},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [
            {"name": "shared-memory", "mountPath": "/dev/shm"},
            {"name": "hf-cache", "mountPath": CACHE_PATH},
            When("serving.modelVolume", model),
        ],
        "ports": [{"name": port, "containerPort": _PORTS[port]} for port in ports],
        "livenessProbe": _probe(alive, 30),
        "readinessProbe": _probe(ready, 10),
    }


def _pod(container: dict[str, Any]) -> dict[str, Any]:
    claim = {"claimName": Hole("serving.cacheClaim")}
    model = {"claimName": Hole("serving.modelVolume.claim"), "readOnly": True}
    return {
        # The user and group of the Ray images.
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 100,
            "fsGroup": 100,
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
        ],
    }


def _head() -> dict[str, Any]:
    """No engine rank is placed on the head: it has no device, and its failure would take a replica with it."""
    size = {"cpu": Hole("serving.head.cpu"), "memory": Hole("serving.head.memory")}
    healthy = f"{_RAYLET_HEALTH} && {_GCS_HEALTH}"
    container = _container("ray-head", size, tuple(_PORTS), healthy, healthy)
    return {
        "rayStartParams": {"dashboard-host": "0.0.0.0", "num-cpus": "0"},
        "template": {"spec": _pod(container)},
    }


def _workers() -> dict[str, Any]:
    """Pods of one group; ``logicalGpus`` is what Ray counts where its executor places ranks on CPU cores."""
    gpus = When("group.gpus", Hole("group.gpus", text=True))
    size = {"cpu": Hole("group.cpu"), "memory": Hole("group.memory"), Hole("serving.gpuResource"): gpus}
    ready = f"{_RAYLET_HEALTH} && {_PROXY_HEALTH}"
    container = _container("ray-worker", size, ("metrics", "serve"), _RAYLET_HEALTH, ready)
    toleration = {"key": Hole("serving.gpuResource"), "operator": "Exists", "effect": "NoSchedule"}
    on_gpu_nodes = {
        "nodeSelector": When("group.gpus", When("serving.nodeSelector", Hole("serving.nodeSelector"))),
        "tolerations": When("group.gpus", [toleration]),
    }
    return {
        "groupName": Hole("group.name"),
        "replicas": Hole("group.replicas"),
        "minReplicas": Hole("group.replicas"),
        "maxReplicas": Hole("group.replicas"),
        "rayStartParams": When("group.logicalGpus", {"num-gpus": Hole("group.logicalGpus", text=True)}, {}),
        "template": {"spec": _pod(container) | on_gpu_nodes},
    }


RAY_CLUSTER: dict[str, Any] = {
    "rayVersion": Hole("serving.rayVersion"),
    "enableInTreeAutoscaling": False,
    "headGroupSpec": _head(),
    "workerGroupSpecs": [Each("serving.workerGroups", "group", _workers())],
}


def chart_template() -> str:
    """The text of the chart's ``templates/_cluster.tpl``: the cluster as a named template of Helm."""
    return f"{_HEADING}{helm_template(RAY_CLUSTER)}{{{{- end -}}}}\n"
