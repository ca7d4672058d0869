"""Where the engines behind Ray Serve tell what they count: pure, from what Ray and Serve say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from serve.launch.ray_seen import RayNode
from serve.measure.live_ingress import Answered
from serve.measure.live_reader import Places


def places_of(
    nodes: Iterable[RayNode],
    details: Mapping[str, Any],
    names: Iterable[str],
    front: Mapping[str, Answered] | None = None,
) -> Places:
    """Where the applications of these ``names`` tell what they count: at the agents of all nodes. ``details`` are
    Serve's."""
    wanted = set(names)
    agents = [f"http://{_host(node.address)}:{node.metrics_port}/metrics" for node in nodes if node.metrics_port > 0]
    replicas = {
        str(replica["replica_id"]): name
        for name, application in details.get("applications", {}).items()
        if name in wanted
        for deployment in application.get("deployments", {}).values()
        for replica in deployment.get("replicas", ())
    }
    return Places(tuple(sorted(agents)), replicas, front=dict(front or {}))


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
