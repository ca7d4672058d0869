"""What is applied for a LayoutRequest, and whether what is there is that already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from deploy.controller.names import API_VERSION, DIGEST, KIND, OF, STUDY, digest
from deploy.controller.observed import Document, Resource

FILE = "rayservice.yaml"


def config_map_of(service: str) -> str:
    """The name of the ConfigMap with a RayService's manifest."""
    return f"{service}-rayservice"


def owned_service(resource: Resource, service: str, study: str, manifest: Document) -> dict[str, Any]:
    """The winner's RayService under its own name, owned by the LayoutRequest."""
    return _owned(resource, service, study, manifest, digest(manifest))


def owned_config_map(resource: Resource, service: str, study: str, manifest: Document) -> dict[str, Any]:
    """The ConfigMap that holds it, to be applied by hand; who does so owns it."""
    meta = manifest["metadata"] | {"name": service, "namespace": resource.key.namespace}
    plain = {**manifest, "metadata": meta}
    text = yaml.safe_dump(plain, sort_keys=False, width=10_000, allow_unicode=True)
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}, "data": {FILE: text}}
    return _owned(resource, config_map_of(service), study, document, digest(manifest))


def _owned(resource: Resource, name: str, study: str, document: Document, stands_for: str) -> dict[str, Any]:
    meta = document["metadata"]
    owner = {"apiVersion": API_VERSION, "kind": KIND, "name": resource.key.name, "uid": resource.uid}
    return {
        **document,
        "metadata": {
            "name": name,
            "namespace": resource.key.namespace,
            "labels": {**meta.get("labels", {}), "app.kubernetes.io/managed-by": "parlay", OF: resource.uid},
            "annotations": {**meta.get("annotations", {}), STUDY: study, DIGEST: stands_for},
            "ownerReferences": [owner | {"controller": True}],
        },
    }


def holds(found: Any, wanted: Any) -> bool:
    """Whether all that is wanted is there; what others have added, and what the API server filled in, is no matter."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(holds(found.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        if not isinstance(found, list):
            return False
        if wanted and all(isinstance(item, Mapping) and "name" in item for item in wanted):
            named = {item.get("name"): item for item in found if isinstance(item, Mapping)}
            return all(holds(named.get(item["name"]), item) for item in wanted)
        return len(found) == len(wanted) and all(map(holds, found, wanted))
    return bool(found == wanted)


def ready(service: Document) -> bool:
    """Whether KubeRay says that a RayService serves what was applied last, and no other cluster is being prepared.

    KubeRay from 1.3 says it with the conditions Ready and UpgradeInProgress; before, with ``serviceStatus`` alone.
    """
    status = service.get("status") or {}
    if status.get("observedGeneration", 0) < service["metadata"].get("generation", 0):
        return False
    said = {condition.get("type"): condition.get("status") for condition in status.get("conditions", ())}
    if "Ready" in said:
        return said["Ready"] == "True" and said.get("UpgradeInProgress") != "True"
    return bool(status.get("serviceStatus") == "Running")
