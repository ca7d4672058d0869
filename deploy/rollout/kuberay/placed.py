"""Where a watched study serves on Kubernetes, and the RayService of one deployment there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from deploy.controller.names import label_of
from deploy.rollout.kuberay.words import DEPLOYMENT, WATCHED, label_for
from deploy.specs.rayservice import Platform
from deploy.specs.shipment import Shipment
from deploy.specs.writing import emit
from tuner.ask.request import TuneRequest
from tuner.retune.live import LiveDeployment

SERVING = "parlay.dev/serving"  # the label of pods, with the name of their RayService


@dataclass(frozen=True, slots=True)
class Placed:
    """``service`` is the name that clients know, in ``namespace``. ``metadata`` are labels, annotations and owners that
    all objects carry beside those of a rollout; what is left out of it, and was applied before, goes."""

    watched: str
    namespace: str
    service: str
    platform: Platform = field(default_factory=Platform)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def meta(self, name: str, notes: Mapping[str, str], labels: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The metadata of an object of that name; ``notes`` are annotations."""
        ours = {"app.kubernetes.io/managed-by": "parlay", WATCHED: label_for(self.watched)}
        return {
            **self.metadata,
            "name": name,
            "namespace": self.namespace,
            "labels": {**(labels or {}), **self.metadata.get("labels", {}), **ours},
            "annotations": {**self.metadata.get("annotations", {}), WATCHED: self.watched, **notes},
        }


def object_of(name: str) -> str:
    """The name of the RayService of a deployment that has one of its own."""
    return label_of(name)


def manifest(placed: Placed, live: LiveDeployment, request: TuneRequest, name: str) -> dict[str, Any]:
    """The RayService of that name for a deployment, its application named like the deployment. Raises BadInput for what
    cannot be written as one."""
    shipment = Shipment(live.name, live.deployment, request, live.launched)
    document: dict[str, Any] = yaml.safe_load(emit("rayservice", shipment, placed.platform))
    for group in (document["spec"]["rayClusterConfig"]["headGroupSpec"], *worker_groups(document)):
        group["template"]["metadata"]["labels"][SERVING] = name
        for spread in group["template"]["spec"].get("topologySpreadConstraints", ()):
            spread["labelSelector"]["matchLabels"][SERVING] = name
    document["spec"].pop("upgradeStrategy", None)
    said = document["metadata"]
    labels = said.get("labels", {}) | {"app.kubernetes.io/name": name}
    document["metadata"] = placed.meta(name, {**said.get("annotations", {}), DEPLOYMENT: live.name}, labels)
    return document


def beside(placed: Placed, live: LiveDeployment, request: TuneRequest) -> dict[str, Any]:
    """The same as an object of its own, which comes and goes with the deployment: nothing of it ever changes, so that
    KubeRay never upgrades it."""
    return manifest(placed, live, request, object_of(live.name))


def worker_groups(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The groups of worker pods of a RayService."""
    return list(document["spec"]["rayClusterConfig"]["workerGroupSpecs"])
