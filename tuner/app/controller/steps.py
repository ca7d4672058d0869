"""One look at a LayoutRequest, and the steps that follow from it: all that the controller does goes through here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from deploy.controller.asking import Order, Read, Runs, order_of
from deploy.controller.manifests import config_map_of
from deploy.controller.names import FINALIZER, Key, owner_of, studies_of
from deploy.controller.observed import Asked, Document, Observed, Refused, Resource, StudySeen
from deploy.controller.reconcile import (
    Action,
    ApplyConfigMap,
    ApplyService,
    Cancel,
    EndOrphan,
    Hold,
    Keep,
    Let,
    MakeCluster,
    Release,
    RemoveCluster,
    Resume,
    Say,
    Submit,
    Unwatch,
    Watch,
    again_s,
    next_action,
)
from deploy.controller.status import told
from deploy.specs.rayservice import Platform
from tuner.app.controller.kube import (
    CONFIG_MAP,
    LAYOUT_REQUEST,
    RAY_CLUSTER,
    RAY_SERVICE,
    Kind,
    Kube,
    KubeError,
    Object,
)
from tuner.app.controller.room import Room
from tuner.app.controller.studies import Studies
from tuner.app.controller.telling import tell

MOST_STEPS = 30
_CONFLICT, _FORBIDDEN, _NOT_FOUND = 409, 403, 404
_UNAVAILABLE = (0, 401, 408, 429)  # and all from 500 on: it may be otherwise the next time, with a newer token too


@dataclass(frozen=True, slots=True)
class Looked:
    """The phase of a LayoutRequest, and in how many seconds it has to be looked at again whatever happens, if so."""

    phase: str
    again_s: float | None


@dataclass(frozen=True, slots=True)
class View:
    """Where the controller looks: its mirrors of LayoutRequests, RayServices (``kuberay``: the cluster has these) and
    RayClusters, and how many GPUs these may take."""

    resource: Callable[[Key], Object | None]
    service: Callable[[Key], Object | None]
    services: Callable[[str], list[Object]]
    kuberay: Callable[[], bool]
    written: Callable[[Object], None]
    clusters: Callable[[str], list[Object]] = lambda _: []
    room: Room = field(default_factory=lambda: Room(0, list))


def now() -> str:
    """As RFC 3339 has it, in whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Reconciler:
    """Brings a LayoutRequest nearer to what it asks for. Any thread may, each key one at a time."""

    def __init__(
        self, kube: Kube, studies: Studies, view: View, read: Read, runs: Runs, may_go_on: Callable[[], bool]
    ) -> None:
        self._kube, self._studies, self._view, self._read, self._runs = kube, studies, view, read, runs
        self._may_go_on = may_go_on
        self.platforms: dict[str, Platform] = {}  # of the studies that were looked at, and are or will be watched

    def reconcile(self, key: Key) -> Looked | None:
        """Look, and step by step do what follows; how it stands then, None where it is gone.

        Raises KubeError or StoreError where something did not answer, or was changed in between: look again.
        """
        document = self._view.resource(key)
        if document is None:
            return None
        seen, order = self._look(Resource(document))
        for _ in range(MOST_STEPS):
            action = next_action(seen, now())
            if action is None or not self._may_go_on():
                break
            seen = self._do(action, seen, order)
        return Looked(str(seen.resource.status.get("phase", "Pending")), again_s(seen))

    def _look(self, resource: Resource) -> tuple[Observed, Order | None]:
        order = order_of(resource, self._read, self._runs)
        known = None if isinstance(order, Refused) else order
        study, others = self._studies.of(studies_of(resource.key, resource.uid), owner_of(resource.key), known)
        asked = order if isinstance(order, Refused) else order.asked
        seen = Observed(resource, asked, study, others, kuberay=self._view.kuberay(), deleted_s=_deleted_s(resource))
        seen = replace(seen, watched=self._studies.watched(studies_of(resource.key, resource.uid)))
        self._remember(seen, known)
        seen = replace(seen, clusters=self._clusters(resource, asked), room=self._view.room.left(_cluster_key(seen)))
        if known is None or resource.deleting:
            return seen, known
        namespace, service = resource.key.namespace, known.asked.service
        owned = [one["metadata"]["name"] for one in self._view.services(namespace) if resource.owns(one)]
        left = tuple(sorted(name for name in owned if name != service))
        seen = replace(seen, rayservice=self._view.service(Key(namespace, service)), left=left)
        if study is not None and study.verdict is not None and study.verdict.layout is not None:
            mapped = self._kube.get(CONFIG_MAP, namespace, config_map_of(service))
            seen = replace(seen, config_map=mapped)
        return seen, known

    def _clusters(self, resource: Resource, asked: Asked | Refused) -> tuple[Object, ...]:
        named = "" if isinstance(asked, Refused) or asked.cluster is None else asked.cluster.name
        there = self._view.clusters(resource.key.namespace)
        return tuple(one for one in there if resource.owns(one) or one["metadata"]["name"] == named)

    def _do(self, action: Action, seen: Observed, order: Order | None) -> Observed:
        if isinstance(action, Say):
            return self._say(seen, action.status)
        if isinstance(action, Hold | Release):
            return self._finalizer(seen, isinstance(action, Hold))
        if isinstance(action, ApplyConfigMap):
            return self._apply(seen, CONFIG_MAP, "config-map", action.document)
        if isinstance(action, ApplyService):
            return self._apply(seen, RAY_SERVICE, "rayservice", action.document)
        if isinstance(action, MakeCluster):
            return self._make_cluster(seen, action)
        if isinstance(action, RemoveCluster):
            return self._remove_cluster(seen, action.document)
        if isinstance(action, EndOrphan):
            return self._end_orphan(seen, action.study)
        if isinstance(action, Cancel):
            return _with(seen, action.study, self._studies.cancel)
        if isinstance(action, Let):
            return _with(seen, action.study, self._studies.let)
        if isinstance(action, Watch):
            found = self._studies.watch(_study(seen), action.policy, action.site)
            refused = {"watch": found} if isinstance(found, Refused) else {}
            watched = seen.watched if isinstance(found, Refused) else found
            return replace(seen, refused={**seen.refused, **refused}, watched=watched)
        if isinstance(action, Unwatch):
            self._studies.unwatch(action.study)
            return replace(seen, watched=tuple(one for one in seen.watched if one.study != action.study))
        if isinstance(action, Keep):
            return _begun(seen, "keep", self._studies.keep(_study(seen)))
        assert order is not None, "what was refused asks for no study"
        if isinstance(action, Submit):
            return _begun(seen, "submit", self._studies.submit(order))
        assert isinstance(action, Resume)
        return _begun(seen, "resume", self._studies.resume(_study(seen), order.terms.owner))

    def _remember(self, seen: Observed, order: Order | None) -> None:
        """The platform of what is asked for, and of what is watched until that is."""
        going = seen.resource.deleting
        needed = set() if going else {one.study for one in seen.watched}
        if order is not None and order.asked.retune is not None and not going:
            self.platforms[order.asked.study] = order.platform
            needed.add(order.asked.study)
        prefix = studies_of(seen.resource.key, seen.resource.uid)
        for study in [one for one in list(self.platforms) if one.startswith(prefix) and one not in needed]:
            self.platforms.pop(study, None)

    def _finalizer(self, seen: Observed, hold: bool) -> Observed:
        resource = seen.resource
        others = [name for name in resource.finalizers if name != FINALIZER]
        wanted = [*others, FINALIZER] if hold else others
        patch: dict[str, Any] = {"metadata": {"finalizers": wanted, "resourceVersion": resource.version}}
        try:
            found = self._kube.merge(LAYOUT_REQUEST, resource.key.namespace, resource.key.name, patch)
        except KubeError as error:
            if error.code == _NOT_FOUND and not hold:  # it is gone
                found = {**resource.document, "metadata": {**resource.document["metadata"], "finalizers": others}}
                return replace(seen, resource=Resource(found))
            raise
        self._view.written(found)
        return replace(seen, resource=Resource(found))

    def _apply(self, seen: Observed, kind: Kind, what: str, document: Object) -> Observed:
        meta = document["metadata"]
        try:
            found = self._kube.apply(kind, meta["namespace"], meta["name"], document)
        except KubeError as error:
            if error.code in _UNAVAILABLE or error.code >= 500:
                raise
            return replace(seen, refused={**seen.refused, what: _why(error, f"{document['kind']} {meta['name']}")})
        if kind is CONFIG_MAP:
            return replace(seen, config_map=found)
        self._view.written(found)
        if kind is RAY_CLUSTER:
            return replace(seen, clusters=(*seen.clusters, found))
        return replace(seen, rayservice=found)

    def _make_cluster(self, seen: Observed, action: MakeCluster) -> Observed:
        """The room is taken first: of several threads one gets what is left."""
        meta, room = action.document["metadata"], self._view.room
        key = Key(meta["namespace"], meta["name"])
        if not room.take(key, action.gpus):
            return replace(seen, room=min(room.left(key), action.gpus - 1))
        try:
            made = self._apply(seen, RAY_CLUSTER, "cluster", action.document)
        except KubeError:
            room.doubt(key)
            raise
        if "cluster" in made.refused:
            room.let(key)
        return made

    def _remove_cluster(self, seen: Observed, document: Document) -> Observed:
        meta = document["metadata"]
        try:
            self._kube.remove(RAY_CLUSTER, meta["namespace"], meta["name"], meta["uid"])
        except KubeError as error:
            if error.code == _FORBIDDEN:
                refused = _why(error, f"RayCluster {meta['name']}")
                return replace(seen, refused={**seen.refused, "remove": refused})
            if error.code not in (_NOT_FOUND, _CONFLICT):  # it is gone, or another has its name
                raise
        return replace(seen, clusters=tuple(one for one in seen.clusters if one["metadata"]["uid"] != meta["uid"]))

    def _end_orphan(self, seen: Observed, name: str) -> Observed:
        found = self._studies.end_orphan(next(one for one in seen.studies if one.name == name))
        if isinstance(found, Refused):
            return replace(seen, refused={**seen.refused, name: found})
        return _with(seen, name, lambda _: found)

    def _say(self, seen: Observed, status: dict[str, Any]) -> Observed:
        """Events first: a controller that is killed between the two tells them again, under the same names."""
        resource = seen.resource
        for event in told(seen, status):
            tell(self._kube, resource, event, now())
        document = {**resource.document, "status": status}
        found = self._kube.replace(LAYOUT_REQUEST, resource.key.namespace, resource.key.name, document, "status")
        self._view.written(found)
        return replace(seen, resource=Resource(found))


def _cluster_key(seen: Observed) -> Key | None:
    """Where the RayCluster of its study is found, if one is asked for."""
    asked = None if isinstance(seen.asked, Refused) else seen.asked.cluster
    return None if asked is None else Key(seen.resource.key.namespace, asked.name)


def _study(seen: Observed) -> StudySeen:
    assert seen.study is not None, "what is done with a study needs one"
    return seen.study


def _with(seen: Observed, name: str, do: Callable[[StudySeen], StudySeen]) -> Observed:
    """What is seen once that is done to the study of that name."""
    if seen.study is not None and seen.study.name == name:
        return replace(seen, study=do(seen.study))
    return replace(seen, others=tuple(do(one) if one.name == name else one for one in seen.others))


def _begun(seen: Observed, what: str, found: StudySeen | Refused) -> Observed:
    if isinstance(found, Refused):
        return replace(seen, refused={**seen.refused, what: found})
    return replace(seen, study=found)


def _why(error: KubeError, what: str) -> Refused:
    if error.code == _CONFLICT:
        fields = "; ".join(error.causes) or str(error)
        return Refused("FieldConflict", f"{what}: another manager has fields of it, and keeps them: {fields}")
    reasons = {_FORBIDDEN: "Forbidden", _NOT_FOUND: "NotFound"}
    return Refused(reasons.get(error.code, "Rejected"), f"{what}: {error}")


def _deleted_s(resource: Resource) -> float:
    """Seconds since somebody deleted it, by the API server's clock and this machine's."""
    at = resource.document["metadata"].get("deletionTimestamp")
    return 0.0 if at is None else max(0.0, (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds())
