"""What is applied where KubeRay itself replaces one Ray cluster by another: one RayService, on a course."""

from __future__ import annotations

import copy
from typing import Any

from deploy.rollout.kuberay.courses import Course
from deploy.rollout.kuberay.placed import Placed, manifest, worker_groups
from deploy.rollout.kuberay.upgrades import Strategy, Upgrades
from deploy.rollout.kuberay.words import BEFORE, CLOSED, DEPLOYMENT, RETURNING, SHARE, Document, noted
from tuner.ask.request import TuneRequest
from tuner.retune.live import LiveDeployment


def base(placed: Placed, live: LiveDeployment, request: TuneRequest, upgrades: Upgrades) -> dict[str, Any]:
    """The RayService with a deployment, whatever its course. Raises BadInput of what cannot be written as one.

    For an incremental upgrade pods come as Ray Serve's replicas ask for them (KubeRay insists on Ray's autoscaler),
    which the head asks Kubernetes for; and its pods are always others than those before, so that no layout gets its
    traffic without a canary because the pods happen to be the same.
    """
    document = manifest(placed, live, request, placed.service)
    if upgrades.gateway_class is not None:
        _made_movable(document, live.name)
    return document


def _made_movable(document: dict[str, Any], name: str) -> None:
    config = document["spec"]["rayClusterConfig"]
    config["enableInTreeAutoscaling"] = True
    head = config["headGroupSpec"]["template"]
    head["spec"]["automountServiceAccountToken"] = True
    head["metadata"].setdefault("annotations", {})[DEPLOYMENT] = name
    for group in worker_groups(document):
        group["minReplicas"] = 0
        group["template"]["metadata"].setdefault("annotations", {})[DEPLOYMENT] = name


def ordered(document: Document, course: Course, upgrades: Upgrades) -> dict[str, Any]:
    """That RayService on its course: what is applied by the server, with all of our fields."""
    made = copy.deepcopy(dict(document))
    notes = {DEPLOYMENT: course.deployment, SHARE: str(course.share_percent)}
    notes |= {BEFORE: course.before} if course.before is not None else {}
    notes |= {RETURNING: "true"} if course.returning else {}
    notes |= {CLOSED: "true"} if course.closed else {}
    made["metadata"]["annotations"] = {**made["metadata"].get("annotations", {}), **notes}
    made["spec"] = {**_options(course, upgrades), **made["spec"]}
    if course.suspended:
        made["spec"]["suspend"] = True
    return made


def _options(course: Course, upgrades: Upgrades) -> dict[str, Any]:
    if upgrades.gateway_class is None:
        return {"upgradeStrategy": {"type": Strategy.NEW_CLUSTER.value}}
    options = {
        "gatewayClassName": upgrades.gateway_class,
        "maxSurgePercent": course.surge_percent,
        "stepSizePercent": course.step_percent,
        "intervalSeconds": course.interval_s,
    }
    return {"upgradeStrategy": {"type": Strategy.INCREMENTAL.value, "clusterUpgradeOptions": options}}


def course_of(service: Document) -> Course | None:
    """The course that a RayService is on; None where no rollout ever ordered one."""
    deployment = noted(service, DEPLOYMENT)
    if deployment is None:
        return None
    options = (service["spec"].get("upgradeStrategy") or {}).get("clusterUpgradeOptions") or {}
    plain = Course(deployment)
    return Course(
        deployment,
        noted(service, BEFORE),
        noted(service, RETURNING) == "true",
        options.get("maxSurgePercent", plain.surge_percent),
        options.get("stepSizePercent", plain.step_percent),
        options.get("intervalSeconds", plain.interval_s),
        int(noted(service, SHARE) or 0),
        bool(service["spec"].get("suspend")),
        noted(service, CLOSED) == "true",
    )
