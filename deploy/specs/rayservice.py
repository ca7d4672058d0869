"""The pods that a layout needs: sizes of head and workers, and the KubeRay RayService that asks for them.

``Serving`` holds everything that the manifest says. Its ``values`` are what the Helm chart is given; the chart and
``rayservice`` fill the same pods with them, those of ``deploy.specs.pods``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deploy.specs.holes import filled
from deploy.specs.pods import GANG_LABELS, RAY_CLUSTER, UPGRADE
from deploy.specs.shipment import Shipment
from deploy.specs.site_values import Site
from serve.launch.device import PodNeeds, cluster_of, device_of
from serve.launch.engine import attention_dp
from tuner.ask.front import INGRESS_PER_ENGINE
from tuner.ask.layout import ParallelLayout
from tuner.ask.packing import Footprint, footprint
from tuner.ask.profile import load_profile
from tuner.errors import BadInput

_VERSION = r"[0-9]+\.[0-9]+\.[0-9]+([.+a-z0-9]*)"  # as in the chart's schema


@dataclass(frozen=True, slots=True)
class Platform:
    """What a Kubernetes cluster calls things, and how much host memory and CPU a device gets.

    ``ray_version`` is that of the measurement where it is left out. ``image`` must hold that Ray, and vLLM; left out,
    it is Ray's own GPU image of that version, or its plain one for a CPU layout (to which vLLM for CPU must be added).
    ``cache_claim`` names a shared volume for downloaded weights (left out: each pod downloads its own), ``model_claim``
    the volume behind a model that is a path. ``token_secret`` names the Secret whose key ``token`` holds the Hugging
    Face token; it may be absent. A worker pod gets ``cpus_per_gpu`` cores a GPU (or one a CPU device) and
    ``spare_cpus`` for Ray Serve. ``site`` is what it says of pods beside that (``Platform.at``).
    """

    image: str | None = None
    ray_version: str | None = None
    gpu_resource: str = "nvidia.com/gpu"
    cpus_per_gpu: int = 4
    spare_cpus: int = 4
    memory_gib_per_device: int | None = None
    cache_claim: str | None = None
    model_claim: str = "parlay-models"
    token_secret: str = "hf-token"
    node_selector: Mapping[str, str] = field(default_factory=dict)
    site: Site = field(default_factory=Site)

    @classmethod
    def at(cls, site: Site, **given: Any) -> Platform:
        """What a site calls things, unless it is ``given``."""
        said = {
            "gpu_resource": site.gpu_resource,
            "cache_claim": site.cache_claim or None,
            "model_claim": site.model_volume.claim or None,
            "token_secret": site.token_secret,
            "node_selector": site.node_selector,
        }
        return cls(site=site, **{name: value for name, value in (said | given).items() if value is not None})

    def __post_init__(self) -> None:
        """Raise BadInput for what is no version, or no image's name."""
        if self.ray_version is not None and not re.fullmatch(_VERSION, self.ray_version):
            raise BadInput("--ray-version", self.ray_version, "a version of Ray, such as 2.60.0")
        if self.image is not None and not re.fullmatch(r"[!-~]+", self.image):
            raise BadInput("--image", self.image, "the name of a container image, such as registry/vllm:1")


@dataclass(frozen=True, slots=True)
class WorkerGroup:
    """Equal worker pods: how many, and the devices, cores and memory (GiB) of each.

    ``logical_gpus`` is what Ray is told to count where its executor places ranks on CPU cores, else 0. ``gpu_type`` is
    the name of the devices, by which a site says more of their nodes; empty where they are CPU cores.
    """

    name: str
    replicas: int
    devices: int
    cpus: int
    memory_gib: int
    logical_gpus: int = 0
    gpu_type: str = ""


@dataclass(frozen=True, slots=True)
class Serving:
    """Everything that the RayService says. ``serve_config`` is the Ray Serve config file, unchanged, ``environment``
    what Ray's nodes need for its path from client to engine.

    ``annotations`` say where the configuration, the version of Ray and the image come from.
    """

    name: str
    layout: str
    needs: PodNeeds
    platform: Platform
    ray_version: str
    image: str
    annotations: Mapping[str, str]
    workers: tuple[WorkerGroup, ...]
    shared_memory: str
    model_path: str | None
    serve_config: str
    environment: Mapping[str, str]

    def values(self) -> dict[str, Any]:
        """Values of the Helm chart, under its key ``serving``."""
        platform = self.platform
        return {
            "name": self.name,
            "layout": self.layout,
            "annotations": dict(self.annotations),
            "image": self.image,
            "rayVersion": self.ray_version,
            "head": platform.site.head.model_dump(),
            "workerGroups": [self._group_values(group) for group in self.workers],
            "rayEnv": [{"name": name, "value": value} for name, value in self.environment.items()],
            "gpuResource": platform.gpu_resource,
            "sharedMemory": self.shared_memory,
            "cacheClaim": platform.cache_claim or "",
            "modelVolume": {"claim": platform.model_claim, "path": self.model_path} if self.model_path else {},
            "tokenSecret": platform.token_secret,
            "nodeSelector": dict(platform.node_selector),
            "serveConfigV2": self.serve_config,
        }

    def _group_values(self, group: WorkerGroup) -> dict[str, Any]:
        gpus = group.devices if self.needs.plugin_devices else 0
        size = {"cpu": str(group.cpus), "memory": f"{group.memory_gib}Gi"}
        counts = {"replicas": group.replicas, "gpus": gpus, "logicalGpus": group.logical_gpus}
        kind = {"gpuType": group.gpu_type} if group.gpu_type else {}
        return {"name": group.name, **kind, **counts, **size}


def plan_serving(shipment: Shipment, platform: Platform, serve_config: str) -> Serving:
    """Size the pods for a layout; ``serve_config`` is the text of the Ray Serve config file.

    A worker pod holds what one replica uses of one node, so that a replica finds the same links as when it was
    measured: ``min(devices per replica, devices per node)``; a core more for each ingress replica beyond the usual. A
    replica that does not fill its last node gets a smaller second group. Data-parallel ranks that share their experts
    are one group of devices. Raises BadInput where nobody says which Ray the cluster is to run.
    """
    layout, request, source = shipment.layout, shipment.request, shipment.launched.model_source
    device = device_of(layout, request)
    memory_gib = platform.memory_gib_per_device or device.pods.memory_gib_per_device
    groups = []
    cluster = cluster_of(layout, request)
    plugged = device.pods.plugin_devices
    spare = platform.spare_cpus + device.ingress_cpus * max(0, layout.ingress_replicas - INGRESS_PER_ENGINE)
    gpu_type = load_profile(cluster.gpu).name if plugged else ""
    for name, replicas, devices in _groups(layout, cluster.gpus_per_node):
        cpus = (platform.cpus_per_gpu if plugged else 1) * devices + spare
        logical = devices if device.counts_as_gpus(layout) else 0
        groups.append(WorkerGroup(name, replicas, devices, cpus, memory_gib * devices, logical, gpu_type))
    ray_version = platform.ray_version or shipment.ray_version
    if ray_version is None:
        raise BadInput("--ray-version", None, "the version of Ray; the study does not say on which it was measured")
    return Serving(
        name=kubernetes_name(shipment.name),
        layout=str(layout),
        needs=device.pods,
        platform=platform,
        ray_version=ray_version,
        image=platform.image or device.pods.image.format(ray_version=ray_version),
        annotations=_annotations(shipment, platform),
        workers=tuple(groups),
        shared_memory=platform.site.shared_memory if plugged else f"{device.pods.shared_memory_gib}Gi",
        model_path=source if source.startswith("/") else None,
        serve_config=serve_config,
        environment=shipment.launched.ray_environment,
    )


def _annotations(shipment: Shipment, platform: Platform) -> dict[str, str]:
    measured, given = shipment.ray_version, platform.ray_version
    ray = "from the study" if shipment.recomputed else "measured"
    if given is not None:
        ray = "given by the operator; measured: " + (measured or "unknown")
    image = "Ray's own of rayVersion" if platform.image is None else "given by the operator"
    return {"parlay/origin": shipment.origin, "parlay/ray-version": ray, "parlay/image": image}


def _groups(layout: ParallelLayout, node_devices: int) -> list[tuple[str, int, int]]:
    """(name, pods, devices of a pod) of each worker group."""
    replica = layout.devices_per_replica
    engines, one = layout.dp, footprint(layout, node_devices)
    if attention_dp(layout) and one.on_one_node:
        node_devices -= node_devices % replica  # a rank that fits a node is never split over two
        engines, one = 1, Footprint.of(layout.devices, node_devices)
    groups = [("workers", one.whole * engines, node_devices)] if one.whole else []
    return groups + ([("workers-rest" if groups else "workers", engines, one.rest)] if one.rest else [])


def kubernetes_name(text: str) -> str:
    """A DNS label for Kubernetes objects: lower case, digits and dashes, at most 40 characters.

    KubeRay appends up to 22 characters of its own to a RayService's name, and 63 is the limit of a label.
    """
    words = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    name = words if words[:1].isalpha() else f"parlay-{words}".strip("-")
    return name[:40].rstrip("-")


def rayservice(serving: Serving) -> dict[str, Any]:
    """The RayService manifest, as a document."""
    values = {"serving": serving.platform.site.values() | serving.values()}
    own = {"app.kubernetes.io/name": serving.name, "app.kubernetes.io/part-of": "parlay"}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {
            "name": serving.name,
            "labels": own | filled(GANG_LABELS, values),
            "annotations": {"parlay/layout": serving.layout, **serving.annotations},
        },
        "spec": {
            **filled(UPGRADE, values),
            "serveConfigV2": serving.serve_config,
            "rayClusterConfig": filled(RAY_CLUSTER, values),
        },
    }
