"""Which GPUs a Kubernetes cluster has, as its nodes say: their labels, what of them can be given out, and whether they
serve.

Labels are those of NVIDIA's GPU feature discovery
(https://github.com/NVIDIA/k8s-device-plugin/blob/main/docs/gpu-feature-discovery/README.md) and of AMD's node labeller.
A device that is shared in time, or a slice of one (MIG), is none that a layout was measured on: its type is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from deploy.rollout.kuberay.words import Document
from tuner.ask.gpu_names import profile_named
from tuner.retune.seen import NodeSeen

_PRODUCTS = ("nvidia.com/gpu.product", "amd.com/gpu.product-name")
_COUNT = "nvidia.com/gpu.count"
_DRIVER = "nvidia.com/cuda.driver-version.full"
_DRIVER_PARTS = tuple(f"nvidia.com/cuda.driver.{part}" for part in ("major", "minor", "rev"))
_CORDONED = "node.kubernetes.io/unschedulable"


def gpu_of(product: str | None) -> str | None:
    """Parlay's name of a product label's GPU; None where it has none: an H100 with PCIe is no ``h100_sxm``."""
    return None if product is None else profile_named(product)


def node_seen(node: Document, gpu_resource: str = "nvidia.com/gpu") -> NodeSeen:
    """One node. GPUs are those that can be given out: the device plugin takes sick ones out of ``allocatable``; without
    a plugin there are none, whatever a label says."""
    labels, status = node["metadata"].get("labels") or {}, node.get("status") or {}
    found = (status.get("allocatable") or {}).get(gpu_resource)
    gpus = int(found) if found is not None else 0
    return NodeSeen(
        node["metadata"]["name"],
        gpu_of(next((labels[key] for key in _PRODUCTS if key in labels), None)),
        gpus,
        _driver(labels),
    )


def nodes_seen(
    nodes: Iterable[Document],
    tolerations: Iterable[Mapping[str, Any]] = (),
    gpu_resource: str = "nvidia.com/gpu",
    selector: Mapping[str, str] | None = None,
) -> tuple[NodeSeen, ...]:
    """The nodes on which pods with these tolerations, and this selector, run or may go on running, by name. One that is
    not ready is lost; one that is cordoned goes on serving what it serves, and is there. Those without GPUs are left
    out."""
    own = {"key": gpu_resource, "operator": "Exists", "effect": "NoSchedule"}
    tolerated = [*tolerations, own]
    asked = [one for one in nodes if selects(selector or {}, one)]
    there = [one for one in asked if _ready(one) and not _keeps_out(one, tolerated)]
    return tuple(sorted((s for s in (node_seen(one, gpu_resource) for one in there) if s.gpus), key=lambda s: s.name))


def cordoned(nodes: Iterable[Document]) -> frozenset[str]:
    """Names of those where no new pod goes, though what is there may go on."""
    return frozenset(one["metadata"]["name"] for one in nodes if (one.get("spec") or {}).get("unschedulable"))


def selects(selector: Mapping[str, str], node: Document) -> bool:
    """Whether pods with this ``nodeSelector`` may go there."""
    labels = node["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in selector.items())


def _ready(node: Document) -> bool:
    said = (node.get("status") or {}).get("conditions") or ()
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in said)


def _keeps_out(node: Document, tolerations: Iterable[Mapping[str, Any]]) -> bool:
    taints = (node.get("spec") or {}).get("taints") or ()
    hard = [one for one in taints if one.get("effect") in ("NoSchedule", "NoExecute") and one["key"] != _CORDONED]
    return any(not any(_tolerates(one, taint) for one in tolerations) for taint in hard)


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    """https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/ : an empty effect, or an empty key
    with ``Exists``, is any."""
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    return bool(toleration.get("key") == taint["key"] and toleration.get("value", "") == taint.get("value", ""))


def _driver(labels: Mapping[str, str]) -> str | None:
    if (whole := labels.get(_DRIVER)) is not None:
        return whole
    parts = [labels.get(name) for name in _DRIVER_PARTS]
    return ".".join(part for part in parts if part) if parts[0] else None
