"""Whether another deployment fits beside those that are there, as far as nodes tell."""

from __future__ import annotations

import math
from collections.abc import Iterable

from deploy.rollout.kuberay.nodes import cordoned, node_seen, selects
from deploy.rollout.kuberay.placed import worker_groups
from deploy.rollout.kuberay.words import Document


def devices_of(document: Document, gpu_resource: str) -> int:
    """GPUs that a RayService's pods ask for."""
    return sum(int(group.get("replicas", 1)) * _gpus(group, gpu_resource) for group in worker_groups(document))


def no_room(
    document: Document,
    beside: Iterable[Document],
    nodes: Iterable[Document],
    gpu_resource: str = "nvidia.com/gpu",
    percent: int = 100,
) -> str | None:
    """Why ``percent`` of it, and at least its largest pod, cannot run beside those others on these nodes; None where
    nothing speaks against it. The others may be on any node that they select, on those that are cordoned too. Pods of
    others than these are not seen: what they hold is found out when pods stay pending."""
    found, others = list(nodes), list(beside)
    gpus = {one["metadata"]["name"]: node_seen(one, gpu_resource).gpus for one in found}
    groups = [(_gpus(group, gpu_resource), _selected(group, found)) for group in worker_groups(document)]
    groups = [(pod, names - cordoned(found)) for pod, names in groups if pod]
    own = frozenset[str]().union(*(names for _, names in groups))
    theirs = frozenset[str]().union(*(_selected(group, found) for one in others for group in worker_groups(one)))
    has, all_of_them = sum(gpus[name] for name in own), sum(gpus[name] for name in own | theirs)
    free = max(0, min(has, all_of_them - sum(devices_of(one, gpu_resource) for one in others)))
    largest_pod = max((pod for pod, _ in groups), default=0)
    needs = max(largest_pod, math.ceil(devices_of(document, gpu_resource) * percent / 100))
    name = document["metadata"]["name"]
    if needs > free:
        return f"{name} needs {needs} GPUs, and {free} of {has} are free"
    for pod, names in groups:
        if pod > (largest := max((gpus[one] for one in names), default=0)):
            return f"{name} has pods of {pod} GPUs, and no node has more than {largest}"
    return None


def _selected(group: Document, nodes: Iterable[Document]) -> frozenset[str]:
    selector = group["template"]["spec"].get("nodeSelector") or {}
    return frozenset(one["metadata"]["name"] for one in nodes if selects(selector, one))


def _gpus(group: Document, gpu_resource: str) -> int:
    containers = group["template"]["spec"]["containers"]
    return sum(int(one.get("resources", {}).get("limits", {}).get(gpu_resource, 0)) for one in containers)
