"""RayClusters that are made for single studies: which is to be made, which has done its work, and how one stands.

One is there as long as its study waits or runs. A study that was paused, ended or deleted needs its devices no more;
one that is resumed gets a new one.
"""

from __future__ import annotations

from typing import Any

from deploy.controller.manifests import owned
from deploy.controller.names import STUDY
from deploy.controller.observed import ClusterAsked, Document, Observed, Refused, StudySeen

LOOK_AGAIN_S = 5.0


def name_of(document: Document) -> str:
    """What it is called."""
    return str(document["metadata"]["name"])


def going(document: Document) -> bool:
    """Whether it was deleted, and is being taken down."""
    return "deletionTimestamp" in document["metadata"]


def asked_for(seen: Observed) -> ClusterAsked | None:
    """What the study of what is asked needs now, whether or not it is there."""
    if isinstance(seen.asked, Refused) or seen.study is None or seen.study.ending or not seen.study.needs_cluster:
        return None
    return seen.asked.cluster


def found(seen: Observed) -> Document | None:
    """Whatever has the name of the one that is asked for."""
    asked = asked_for(seen)
    return next((one for one in seen.clusters if asked is not None and name_of(one) == asked.name), None)


def to_be_made(seen: Observed) -> dict[str, Any] | None:
    """The RayCluster that is missing, where there is room for it."""
    asked = asked_for(seen)
    if asked is None or seen.study is None or found(seen) is not None or "cluster" in seen.refused:
        return None
    if asked.gpus > seen.room:
        return None
    place = {"name": asked.name, "namespace": seen.resource.key.namespace}
    plain = {**asked.manifest, "metadata": {**asked.manifest["metadata"], **place}}
    return owned(seen.resource, plain, {STUDY: seen.study.name})


def waits_for_room(seen: Observed) -> bool:
    """Whether a RayCluster is missing that would be too much beside all others."""
    asked = asked_for(seen)
    return asked is not None and found(seen) is None and "cluster" not in seen.refused and asked.gpus > seen.room


def done_with(seen: Observed, *, all_of_them: bool = False) -> Document | None:
    """One of its own whose study needs it no more."""
    needed = set() if all_of_them else {study.cluster for study in seen.studies if study.needs_cluster}
    mine = (one for one in seen.clusters if seen.resource.owns(one) and not going(one))
    return next((one for one in mine if name_of(one) not in needed), None)


def orphans(seen: Observed) -> tuple[StudySeen, ...]:
    """Studies that were told to end and whose cluster is gone: no worker will come that could end them."""
    there = {name_of(one) for one in seen.clusters if not going(one)}
    return tuple(one for one in seen.studies if one.ending and one.cluster is not None and one.cluster not in there)


def ready(cluster: Document) -> bool:
    """Whether KubeRay says that all of its pods are there.

    ``state`` stays ready once it was so, and of older KubeRays it may be so before all workers are there, which
    ``readyWorkerReplicas`` tell.
    """
    status = cluster.get("status") or {}
    if status.get("observedGeneration", 0) < cluster["metadata"].get("generation", 0):
        return False
    workers = status.get("readyWorkerReplicas", 0) >= status.get("desiredWorkerReplicas", 0)
    return bool(status.get("state") == "ready" and workers)


def words(seen: Observed) -> tuple[str, str, str] | None:
    """What is to be said of a study that waits for its RayCluster, as a condition; None where it does not."""
    asked, cluster = asked_for(seen), found(seen)
    if asked is None:
        return None
    if cluster is None:
        if (problem := seen.refused.get("cluster")) is not None:
            return "False", problem.reason, problem.message
        return (
            "True",
            "WaitingForGpus",
            f"the study waits for {asked.gpus} GPUs: RayClusters for studies may take {seen.room} more for now",
        )
    if not seen.resource.owns(cluster):
        return "False", "NotOwned", f"RayCluster {asked.name} was not made for this LayoutRequest, and stays as it is"
    if not ready(cluster):
        said = cluster.get("status") or {}
        has, wants = said.get("readyWorkerReplicas", 0), said.get("desiredWorkerReplicas", "?")
        why = f": {said['reason']}" if said.get("reason") else ""
        return "True", "RayClusterStarting", f"RayCluster {asked.name} has {has} of {wants} worker pods ready{why}"
    return None
