"""The clusters as the workers see them, and a request that asks for the one that is there."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from tuner.app.answers.cluster import ClusterAnswer, cluster_answer
from tuner.app.service.access import Guarded, Reader
from tuner.app.service.service import Here, Service
from tuner.errors import BadInput

routes = APIRouter(route_class=Guarded, prefix="/v1", tags=["cluster"])


@routes.get("/cluster", summary="The clusters as the workers see them")
def cluster(service: Here, caller: Reader) -> ClusterAnswer:
    """Each worker with what it sees; of clusters that studies share, who holds which devices, and who waits."""
    return cluster_answer(service.store.workers.all(), service.store.devices.all())


def discovers(document: dict[str, Any]) -> bool:
    """Whether a request asks for whatever cluster is there."""
    return document.get("cluster") == "ray"


def with_cluster(service: Service, document: dict[str, Any]) -> dict[str, Any]:
    """The request with the cluster that a worker sees, where it asks for that; raises BadInput where none sees one."""
    if not discovers(document):
        return document
    groups = service.store.workers.ray_groups()
    if groups is None:
        seen = [one for worker in service.store.workers.all() if worker.alive for one in worker.clusters]
        why = next((one.problem for one in seen if one.launcher == "ray" and one.problem), "there is none on ray")
        allowed = "gpu, nodes and gpus_per_node; ray where a worker sees a running Ray cluster (--ray-address): "
        raise BadInput("request: cluster", "ray", f"{allowed}{why}")
    return {**document, "cluster": list(groups) if len(groups) > 1 else groups[0]}
