"""What deals the traffic to deployments that have a RayService each: an HTTPRoute on a Gateway that is there, or, where
there is none, a Service.

A Gateway deals request by request, by weights (https://gateway-api.sigs.k8s.io/guides/traffic-splitting/). A Service
deals connections to whatever pods its selector finds: it can hold no share, so it has all of one deployment or nothing.
Both keep the name and the address that clients know, and leave requests under way alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deploy.rollout.kuberay.placed import SERVING, Placed, object_of
from deploy.rollout.kuberay.words import SHARES, Document, noted, serve_service
from tuner.errors import ParlayError

PORT, _THOUSANDTHS = 8000, 1000
NO_CANARY = "no Gateway deals the traffic here, and a Service cannot hold a share of it: there is no canary"


@dataclass(frozen=True, slots=True)
class Gateway:
    """A Gateway of the cluster, asked by clients at ``url`` (without ``/v1``); ``namespace`` None: the same."""

    name: str
    url: str
    namespace: str | None = None
    listener: str | None = None
    host: str | None = None


def front(placed: Placed, gateway: Gateway | None, shares: Mapping[str, float]) -> dict[str, Any]:
    """What deals new requests by these shares. Raises ParlayError for shares that it cannot hold."""
    ordered = {name: share for name, share in sorted(shares.items()) if share > 0}
    meta = placed.meta(placed.service, {SHARES: json.dumps(ordered)})
    if gateway is not None:
        return _route(meta, gateway, ordered)
    if len(ordered) > 1:
        raise ParlayError(NO_CANARY)
    return _service(meta, next(iter(ordered), None))


def _route(meta: dict[str, Any], gateway: Gateway, shares: Mapping[str, float]) -> dict[str, Any]:
    parent = {"name": gateway.name, "namespace": gateway.namespace, "sectionName": gateway.listener}
    backends = [
        {"name": serve_service(object_of(name)), "port": PORT, "weight": max(1, round(share * _THOUSANDTHS))}
        for name, share in shares.items()
    ]
    rule: dict[str, Any] = {"matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}
    spec: dict[str, Any] = {"parentRefs": [{key: value for key, value in parent.items() if value is not None}]}
    spec |= {"hostnames": [gateway.host]} if gateway.host else {}
    spec["rules"] = [rule | ({"backendRefs": backends} if backends else {})]
    return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": meta, "spec": spec}


def _service(meta: dict[str, Any], name: str | None) -> dict[str, Any]:
    """KubeRay labels pods whose proxy is healthy; no pod is labelled for nobody."""
    chosen = object_of(name) if name is not None else "nobody"
    ports = [{"name": "serve", "port": PORT, "targetPort": PORT, "protocol": "TCP"}]
    selector = {SERVING: chosen, "ray.io/serve": "true"}
    spec = {"type": "ClusterIP", "selector": selector, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}


def shares_of(found: Document | None) -> dict[str, float]:
    """The shares that were ordered of it."""
    return {} if found is None else dict(json.loads(noted(found, SHARES) or "{}"))
