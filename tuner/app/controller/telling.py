"""What a LayoutRequest's people are told: Events of Kubernetes, which `kubectl describe` shows."""

from __future__ import annotations

from deploy.controller.names import API_VERSION, KIND
from deploy.controller.observed import Resource
from deploy.controller.status import Told
from tuner.app.controller.kube import EVENT, Kube, KubeError, Object

_UNHEARD = (409, 403, 404)  # it was told already; or nobody is to be told


def tell(kube: Kube, resource: Resource, event: Told, at: str) -> None:
    """Make the event, with the time ``at`` as RFC 3339 has it."""
    key = resource.key
    of = {"apiVersion": API_VERSION, "kind": KIND, "namespace": key.namespace, "name": key.name}
    document: Object = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": event.name, "namespace": key.namespace},
        "involvedObject": of | {"uid": resource.uid, "resourceVersion": resource.version},
        "type": event.kind,
        "reason": event.reason,
        "message": event.message,
        "source": {"component": "parlay-controller"},
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }
    try:
        kube.create(EVENT, key.namespace, document)
    except KubeError as error:
        if error.code not in _UNHEARD:
            raise
