"""What is applied for a LayoutRequest, and whether what is there is that already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from deploy.controller.names import API_VERSION, DECISION, DIGEST, KIND, OF, STUDY, digest
from deploy.controller.observed import Document, Observed, Refused, Resource

FILE = "rayservice.yaml"


def config_map_of(service: str) -> str:
    """The name of the ConfigMap with a RayService's manifest."""
    return f"{service}-rayservice"


def wanted(seen: Observed) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """(RayService, ConfigMap with it to be applied by hand) that the decision asks for; None where it asks for none.

    Both are owned by the LayoutRequest; who applies the manifest in the ConfigMap owns what comes of it.
    """
    study, asked = seen.study, seen.asked
    if study is None or study.verdict is None or isinstance(asked, Refused):
        return None
    verdict = study.verdict
    if verdict.manifest is None or isinstance(verdict.manifest, Refused):
        return None
    place = {"name": asked.service, "namespace": seen.resource.key.namespace}
    plain = {**verdict.manifest, "metadata": {**verdict.manifest["metadata"], **place}}
    text = yaml.safe_dump(plain, sort_keys=False, width=10_000, allow_unicode=True)
    mapped = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": place | {"name": config_map_of(asked.service)},
        "data": {FILE: text},
    }
    notes = {STUDY: study.name, DECISION: digest([study.name, verdict.layout, asked.target]), DIGEST: digest(plain)}
    return owned(seen.resource, plain, notes), owned(seen.resource, mapped, notes)


def owned(resource: Resource, document: Document, notes: dict[str, str]) -> dict[str, Any]:
    """The document as one that is the LayoutRequest's, with ``notes`` as annotations."""
    meta = document["metadata"]
    owner = {"apiVersion": API_VERSION, "kind": KIND, "name": resource.key.name, "uid": resource.uid}
    ours = {"app.kubernetes.io/managed-by": "parlay", OF: resource.uid}
    more = {
        "labels": {**meta.get("labels", {}), **ours},
        "annotations": {**meta.get("annotations", {}), **notes},
        "ownerReferences": [owner | {"controller": True}],
    }
    return {**document, "metadata": {**meta, **more}}


def in_place(found: Document, wanted: Document) -> bool:
    """Whether what is there is what is wanted, or was made of the same decision by another release of Parlay: pods that
    serve are not replaced because somebody upgraded the controller."""
    has, should = found["metadata"].get("annotations", {}), wanted["metadata"]["annotations"]
    if has.get(DECISION) == should[DECISION] and has.get(DIGEST) != should[DIGEST]:
        return True
    return holds(found, wanted)


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
