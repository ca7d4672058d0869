"""Whether another deployment fits beside those that are there, as far as nodes tell."""

from __future__ import annotations

import math
from collections.abc import Iterable

from deploy.rollout.kuberay.nodes import node_seen
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
    """Why ``percent`` of it, and at least its largest pod, cannot run beside those others on these nodes (which take
    new pods); None where nothing speaks against it. Pods of others than these are not seen: what they hold is found out
    when pods stay pending."""
    found = [node_seen(one, gpu_resource) for one in nodes]
    has, taken = sum(one.gpus for one in found), sum(devices_of(one, gpu_resource) for one in beside)
    pod = max((_gpus(group, gpu_resource) for group in worker_groups(document)), default=0)
    needs = max(pod, math.ceil(devices_of(document, gpu_resource) * percent / 100))
    name = document["metadata"]["name"]
    if needs > has - taken:
        return f"{name} needs {needs} GPUs, and {max(0, has - taken)} of {has} are free"
    largest = max((one.gpus for one in found), default=0)
    return f"{name} has pods of {pod} GPUs, and no node has more than {largest}" if pod > largest else None


def _gpus(group: Document, gpu_resource: str) -> int:
    containers = group["template"]["spec"]["containers"]
    return sum(int(one.get("resources", {}).get("limits", {}).get(gpu_resource, 0)) for one in containers)
