"""From the ``spec`` of a LayoutRequest to the study that it asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from deploy.controller.names import cluster_of, digest, label_of, owner_of, study_of
from deploy.controller.observed import Asked, ClusterAsked, Refused, Resource
from deploy.controller.resource import CreatedRayCluster, Spec, Target
from deploy.specs.rayservice import Platform
from deploy.specs.study_cluster import Trials, gpus_of, study_cluster
from tuner.ask.request import TuneRequest
from tuner.errors import BadInput
from tuner.study.orders import Terms

Read = Callable[[dict[str, Any]], TuneRequest]  # a document as a request; raises BadInput


@dataclass(frozen=True, slots=True)
class Runs:
    """What the workers behind a controller run on: launchers, the first by default, and their RayCluster's name, if
    they have one. ``platform`` holds where a LayoutRequest does not say otherwise. ``trials`` is what RayClusters for
    single studies are made of; None: none are made."""

    launchers: tuple[str, ...]
    ray_cluster: str | None = None
    platform: Platform = field(default_factory=Platform)
    trials: Trials | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """A spec that was accepted: what the controller goes by, and what is queued for it."""

    asked: Asked
    request: TuneRequest
    terms: Terms
    platform: Platform


def order_of(resource: Resource, read: Read, runs: Runs) -> Order | Refused:
    """What a LayoutRequest asks for; Refused says why that cannot be."""
    try:
        spec = Spec.model_validate(_without_nulls(resource.document.get("spec", {})))
        request = read(dict(spec.request))
    except ValidationError as error:
        first = error.errors()[0]
        return Refused("InvalidSpec", f"spec.{'.'.join(map(str, first['loc']))}: {first['msg']}")
    except BadInput as error:
        return Refused("InvalidRequest", f"spec.{error}")
    launcher = "ray" if _created(spec) else runs.launchers[0]
    launcher = spec.launcher or launcher
    if (problem := _runs_nowhere(spec, launcher, runs)) is not None:
        return problem
    seed = (spec.simulated_seed or 0) if launcher == "simulated" else None
    # Without what is as it is by default: a key that a later Parlay adds must not make all studies others.
    given = request.model_dump(mode="json", exclude_defaults=True)
    anew = ["created"] if _created(spec) else []
    study = study_of(resource.key, resource.uid, [given, launcher, seed, *anew])
    service = spec.target.name or label_of(resource.key.name)
    try:
        platform = _platform(spec.target, runs.platform)
        cluster = _cluster(spec, cluster_of(resource.key.name, study), request, platform, runs.trials)
    except BadInput as error:
        return Refused("InvalidSpec", f"spec.target: {error}")
    if isinstance(cluster, Refused):
        return cluster
    asked = Asked(study, spec.deploy == "auto", service, _stands_for(spec.target, runs.platform), cluster)
    asked = replace(asked, retune=spec.retune)
    named = None if cluster is None else cluster.name
    return Order(asked, request, Terms(owner_of(resource.key), launcher, seed, spec.priority, named), platform)


def _created(spec: Spec) -> CreatedRayCluster | None:
    return None if spec.trials.ray_cluster is None else spec.trials.ray_cluster.create


def _runs_nowhere(spec: Spec, launcher: str, runs: Runs) -> Refused | None:
    """Why no worker can run it, if so."""
    named = None if spec.trials.ray_cluster is None else spec.trials.ray_cluster.name
    if _created(spec) is not None and launcher != "ray":
        return Refused("InvalidSpec", "spec.trials.rayCluster.create: with launcher ray only")
    if _created(spec) is None and launcher not in runs.launchers:
        known = ", ".join(runs.launchers)
        return Refused("NoSuchLauncher", f"spec.launcher: {launcher!r}; the workers here have: {known}")
    if spec.simulated_seed is not None and launcher != "simulated":
        return Refused("InvalidSpec", "spec.simulatedSeed: with launcher simulated only")
    if named is not None and named != runs.ray_cluster:
        here = f"RayCluster {runs.ray_cluster}" if runs.ray_cluster else "no named RayCluster"
        return Refused("NoSuchRayCluster", f"spec.trials.rayCluster.name: {named!r}; the workers here use {here}")
    return None


def _cluster(
    spec: Spec, name: str, request: TuneRequest, platform: Platform, trials: Trials | None
) -> ClusterAsked | Refused | None:
    """The RayCluster to be made for the study; Refused where this controller makes none such, None where none is
    asked for."""
    asked, where = _created(spec), "spec.trials.rayCluster.create"
    if asked is None:
        return None
    if trials is None:
        return Refused("NoSuchRayCluster", f"{where}: this controller makes none (controller.trials in the chart)")
    if not request.groups:
        return Refused("InvalidRequest", "spec.request.cluster: 'ray'; name the nodes that are to be made")
    if spec.target.ray_version not in (None, trials.ray_version):
        return Refused("InvalidSpec", f"spec.target.rayVersion: workers of such clusters have {trials.ray_version}")
    gpus = gpus_of(request.groups)
    if asked.max_gpus is not None and gpus > asked.max_gpus:
        return Refused("TooManyGpus", f"{where}.maxGpus: {asked.max_gpus}; the request's cluster has {gpus}")
    if gpus > trials.max_gpus:
        return Refused("TooManyGpus", f"{where}: {gpus} GPUs; all such clusters together may have {trials.max_gpus}")
    return ClusterAsked(name, gpus, study_cluster(name, request.groups, platform, trials, str(request.model)))


def _platform(target: Target, otherwise: Platform) -> Platform:
    given = target.model_dump(exclude={"name"}, exclude_none=True)
    return replace(otherwise, **given)


def _stands_for(target: Target, otherwise: Platform) -> str:
    """Of what was said of the platform, by whomever; not of what this Parlay makes of it."""
    given = target.model_dump(mode="json", exclude={"name"}, exclude_none=True)
    site = otherwise.site.said
    return digest([given, otherwise.ray_version, otherwise.image, *([site] if site else [])])


def _without_nulls(value: Any) -> Any:
    """An absent key and one that is null are the same to Kubernetes."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value
