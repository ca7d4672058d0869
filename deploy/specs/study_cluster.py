"""The RayCluster that is made for one study: pods of the site, one for each node of the request's cluster, and beside
the head a worker of the store, which runs that study alone.

A driver of Ray needs a node of the cluster beside it, and the head is one. KubeRay takes a pod's first container for
Ray's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from deploy.specs.holes import filled
from deploy.specs.pods import GANG_LABELS, TRIAL_CLUSTER
from deploy.specs.rayservice import Platform
from serve.launch.device import devices_of
from tuner.ask.profile import load_profile
from tuner.ask.request import ClusterSpec
from tuner.errors import BadInput

GPUS = "parlay.dev/gpus"  # annotation: how many GPUs it has, or nodes without any
_METRICS = 9101  # the worker's port
_GRACE_S = 300  # a trial is torn down, and the study given back


class Trials(BaseModel):
    """What a controller needs to make such clusters. ``image`` is that of the workers, which holds Parlay and Ray of
    ``rayVersion``; ``storeSecret`` is a Secret of the LayoutRequest's namespace with the store's URL; all clusters
    together have at most ``maxGpus``, of which a node without GPUs is one."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)

    max_gpus: Annotated[int, Field(ge=1)]
    image: Annotated[str, Field(min_length=1)]
    ray_version: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+([.+a-z0-9]*)$")]
    store_secret: Annotated[str, Field(min_length=1)]
    store_key: Annotated[str, Field(min_length=1)] = "url"
    cpu: str = "2"
    memory: str = "4Gi"
    roots: list[str] = []


def read_trials(path: Path) -> Trials:
    """The file of a controller; raises BadInput where it cannot be read, or says what cannot work."""
    try:
        return Trials.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput("--trials", str(path), f"a YAML file ({error})") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadInput(f"--trials {path}: {where}", first.get("input"), str(first["msg"])) from None


def gpus_of(groups: Sequence[ClusterSpec]) -> int:
    """How many GPUs such a cluster takes of what all may have; a node without any counts as one."""
    return sum(group.devices if devices_of(group).pods.plugin_devices else group.nodes for group in groups)


def study_cluster(
    name: str, groups: Sequence[ClusterSpec], platform: Platform, trials: Trials, model: str
) -> dict[str, Any]:
    """The manifest of the cluster that a request's ``groups`` are; ``model`` is mounted where it is a path."""
    pods = [devices_of(group).pods for group in groups]
    memory = platform.site.shared_memory if pods[0].plugin_devices else f"{pods[0].shared_memory_gib}Gi"
    serving = platform.site.values() | {
        "name": name,
        "image": platform.image or pods[0].image.format(ray_version=trials.ray_version),
        "rayVersion": trials.ray_version,
        "head": platform.site.head.model_dump(),
        "workerGroups": [_group(number, group, platform) for number, group in enumerate(groups)],
        "rayEnv": [],
        "gpuResource": platform.gpu_resource,
        "sharedMemory": memory,
        "cacheClaim": platform.cache_claim or "",
        "modelVolume": {"claim": platform.model_claim, "path": model} if model.startswith("/") else {},
        "tokenSecret": platform.token_secret,
        "nodeSelector": dict(platform.node_selector),
    }
    serving["gpuTypes"] = _types(groups, serving["gpuTypes"])
    spec = filled(TRIAL_CLUSTER, {"serving": serving})
    devices = sum(group.devices for group in groups)
    _add_worker(spec["headGroupSpec"]["template"]["spec"], name, devices, trials)
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {
            "name": name,
            "labels": {"app.kubernetes.io/part-of": "parlay", **filled(GANG_LABELS, {"serving": serving})},
            "annotations": {GPUS: str(gpus_of(groups))},
        },
        "spec": spec,
    }


def _group(number: int, group: ClusterSpec, platform: Platform) -> dict[str, Any]:
    """Of a node group: a pod holds all that a node has, so that trials find the links of a node."""
    pods, devices = devices_of(group).pods, group.gpus_per_node
    cpus = (platform.cpus_per_gpu if pods.plugin_devices else 1) * devices + platform.spare_cpus
    memory_gib = (platform.memory_gib_per_device or pods.memory_gib_per_device) * devices
    # Cores count as logical GPUs where there are as many of both (``ray_nodes``).
    counts = {"gpus": devices, "logicalGpus": 0} if pods.plugin_devices else {"gpus": 0, "logicalGpus": cpus}
    kind = {"gpuType": load_profile(group.gpu).name} if pods.plugin_devices else {}
    size = {"cpu": str(cpus), "memory": f"{memory_gib}Gi"}
    return {
        "name": "workers" if number == 0 else f"workers-{number}",
        **kind,
        "replicas": group.nodes,
        **counts,
        **size,
    }


def _types(groups: Sequence[ClusterSpec], said: dict[str, Any]) -> dict[str, Any]:
    """What the site says of types of GPUs, and the request of its nodes."""
    found = dict(said)
    for group in groups:
        if group.node_selector and devices_of(group).pods.plugin_devices:
            name = load_profile(group.gpu).name
            kind = found.get(name, {})
            found[name] = {**kind, "nodeSelector": {**kind.get("nodeSelector", {}), **group.node_selector}}
    return found


def _add_worker(pod: dict[str, Any], name: str, devices: int, trials: Trials) -> None:
    """The second container of the head, which shares Ray's files and memory with the first."""
    (head,) = pod["containers"]
    ray = {"name": "ray", "mountPath": "/tmp/ray"}
    size = {"cpu": trials.cpu, "memory": trials.memory}
    store = {"secretKeyRef": {"name": trials.store_secret, "key": trials.store_key}}
    own = [
        {"name": "HOME", "value": "/tmp"},
        {"name": "NUMBA_CACHE_DIR", "value": "/tmp/numba"},
        {"name": "PARLAY_STORE", "valueFrom": store},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    words = ["worker", "--launchers=ray", "--ray-address=$(POD_IP):6379", f"--cluster={name}"]
    words += [f"--ray-devices={devices}", "--out=/var/lib/parlay", *(f"--root={root}" for root in trials.roots)]
    words += ["--metrics-host=0.0.0.0", f"--metrics-port={_METRICS}"]
    answers = {"httpGet": {"path": "/metrics", "port": _METRICS}, "timeoutSeconds": 10}
    worker = {
        "name": "worker",
        "image": trials.image,
        "imagePullPolicy": head["imagePullPolicy"],
        "args": words,
        "env": [*own, *head["env"]],
        "ports": [{"name": "parlay", "containerPort": _METRICS, "protocol": "TCP"}],
        "startupProbe": {**answers, "periodSeconds": 10, "failureThreshold": 60},
        "livenessProbe": {**answers, "periodSeconds": 20, "failureThreshold": 6},
        "readinessProbe": {**answers, "periodSeconds": 20},
        "resources": {"requests": size, "limits": size},
        "securityContext": head["securityContext"] | {"readOnlyRootFilesystem": True},
        "volumeMounts": [
            {"name": "scratch", "mountPath": "/tmp"},
            {"name": "data", "mountPath": "/var/lib/parlay"},
            *head["volumeMounts"],
            ray,
        ],
    }
    head["volumeMounts"] = [*head["volumeMounts"], ray]
    pod["containers"] = [head, worker]
    pod["volumes"] = [*pod["volumes"], *({"name": name, "emptyDir": {}} for name in ("ray", "scratch", "data"))]
    pod["terminationGracePeriodSeconds"] = _GRACE_S
