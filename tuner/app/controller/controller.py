"""The controller: mirrors of what is asked for and of what serves, a queue of what is to be looked at, and threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

from deploy.controller.asking import Read, Runs
from deploy.controller.names import API_VERSION, OWNER, Key, studies_of
from deploy.controller.observed import Resource
from tuner.app.controller.kube import LAYOUT_REQUEST, RAY_CLUSTER, RAY_SERVICE, Kube, KubeError, Object
from tuner.app.controller.leader import Leader
from tuner.app.controller.measures import Measures
from tuner.app.controller.mirror import Mirror, key_of
from tuner.app.controller.room import Room
from tuner.app.controller.steps import Reconciler, View
from tuner.app.controller.studies import Studies, StudyWatch
from tuner.app.controller.watching import KubeWatch
from tuner.app.controller.work_queue import WorkQueue
from tuner.errors import StoreError
from tuner.study.store import Store

RESYNC_S = 600.0  # whatever was missed is seen by then
READ_S = 0.5  # until that is looked at which was told before all is read that is there
ALL = ""  # the name of all namespaces


@dataclass(frozen=True, slots=True)
class Place:
    """Which namespaces are looked after (``ALL`` alone: all of them), where the Lease is and what it is called, and as
    whom; ``threads`` work on requests at once."""

    namespaces: tuple[str, ...]
    lease_namespace: str
    identity: str
    lease: str = "parlay-controller"
    threads: int = 8


class Controller:
    """Runs from ``start`` to ``stop``."""

    def __init__(self, kube: Kube, store: Store, place: Place, read: Read, runs: Runs, measures: Measures) -> None:
        self.queue, self._place, self._measures = WorkQueue(), place, measures
        self._requests = {ns: Mirror(kube, LAYOUT_REQUEST, ns, self._request_changed) for ns in place.namespaces}
        self._services = {
            ns: Mirror(kube, RAY_SERVICE, ns, self._service_changed, self._all) for ns in place.namespaces
        }
        made = () if runs.trials is None else place.namespaces
        self._clusters = {ns: Mirror(kube, RAY_CLUSTER, ns, self._cluster_changed, self._all) for ns in made}
        self._room = Room(0 if runs.trials is None else runs.trials.max_gpus, self._all_clusters)
        self._watch = StudyWatch(store, OWNER, self._studies_changed)
        self.leader = Leader(kube, place.lease_namespace, place.lease, place.identity, self._leads)
        seen = (self._request, self._service, self._all_services, self._kuberay, self._written)
        view = View(*seen, self._clusters_of, self._room)
        self._reconciler = Reconciler(kube, Studies(store), view, read, runs, lambda: self.leader.leading)
        looked_at = self._reconciler.platforms.get
        self.watching = KubeWatch(kube, store, looked_at, self._studies_changed, lambda: self.leader.leading)
        self._stopped = threading.Event()
        names = [f"reconcile {number}" for number in range(place.threads)]
        self._threads = [threading.Thread(target=self._work, name=name, daemon=True) for name in names]
        self._threads.append(threading.Thread(target=self._resync, name="resync", daemon=True))

    def start(self) -> None:
        """Begin; it works once it leads."""
        for mirror in self._mirrors():
            mirror.start()
        for thread in self._threads:
            thread.start()
        self._watch.start()
        self.leader.start()
        self.watching.start()

    def stop(self) -> None:
        """End: what is being done is finished, then the Lease is given back."""
        self._stopped.set()
        self.queue.close()
        for mirror in self._mirrors():
            mirror.stop()
        self._watch.stop()
        self.watching.stop()
        for thread in self._threads:
            thread.join()
        self.leader.stop()

    @property
    def ready(self) -> bool:
        """Whether it has read what is there."""
        return all(mirror.synced.is_set() for mirror in self._mirrors())

    @property
    def alive(self) -> bool:
        """Whether all of its threads are."""
        mirrors = all(mirror.alive for mirror in self._mirrors())
        watching = self._watch.alive and self.watching.alive
        return mirrors and watching and self.leader.alive and all(one.is_alive() for one in self._threads)

    def _mirrors(self) -> Iterable[Mirror]:
        return (*self._requests.values(), *self._services.values(), *self._clusters.values())

    def _work(self) -> None:
        while (taken := self.queue.take()) is not None:
            key, waited_s = taken
            began, well = time.perf_counter(), True
            try:
                if not self.ready:
                    self.queue.add_after(key, READ_S)
                elif self.leader.leading:
                    looked = self._reconciler.reconcile(key)
                    self._measures.phase(key, None if looked is None else looked.phase)
                    if looked is not None and looked.again_s is not None:
                        self.queue.add_after(key, looked.again_s)
            except KubeError as error:
                well = False
                if error.code != 409:  # what it was based on is old: the mirror will have the new one
                    self._measures.failed("kubernetes", key, error)
            except StoreError as error:
                well = False
                self._measures.failed("store", key, error)
            except Exception as error:  # a fault of ours must not end the others
                well = False
                self._measures.failed("fault", key, error)
            self._measures.reconciled(time.perf_counter() - began, waited_s, well)
            self.queue.done(key, well)

    def _resync(self) -> None:
        while not self._stopped.wait(RESYNC_S):
            self._all()

    def _all(self) -> None:
        for mirror in self._requests.values():
            for document in mirror.all():
                self.queue.add(key_of(document))

    def _leads(self, leading: bool) -> None:
        self._measures.leads(leading)
        if leading:
            self._all()

    def _request_changed(self, document: Object) -> None:
        self.queue.add(key_of(document))

    def _service_changed(self, document: Object) -> None:
        for owner in document["metadata"].get("ownerReferences", ()):
            if owner.get("apiVersion") == API_VERSION:
                self.queue.add(Key(document["metadata"]["namespace"], owner["name"]))
                return
        self._all_of(document)

    def _cluster_changed(self, document: Object) -> None:
        self._room.let(key_of(document))
        for owner in document["metadata"].get("ownerReferences", ()):
            if owner.get("apiVersion") == API_VERSION:
                self.queue.add(Key(document["metadata"]["namespace"], owner["name"]))
                self._all_with("WaitingForGpus", self._requests.values())

    def _all_of(self, document: Object) -> None:
        """Somebody else's RayService may stand, or have stood, in the way of one of ours."""
        self._all_with("NotOwned", [self._of(self._requests, document["metadata"]["namespace"])])

    def _all_with(self, reason: str, mirrors: Iterable[Mirror]) -> None:
        for request in (one for mirror in mirrors for one in mirror.all()):
            said = (request.get("status") or {}).get("conditions", ())
            if any(condition["reason"] == reason for condition in said):
                self.queue.add(key_of(request))

    def _studies_changed(self, names: set[str]) -> None:
        prefixes = {name.rpartition(".")[0] for name in names}
        for mirror in self._requests.values():
            for document in mirror.all():
                resource = Resource(document)
                if studies_of(resource.key, resource.uid).rstrip(".") in prefixes:
                    self.queue.add(resource.key, hurry=False)

    def _of(self, mirrors: dict[str, Mirror], namespace: str) -> Mirror:
        return mirrors[ALL] if ALL in mirrors else mirrors[namespace]

    def _request(self, key: Key) -> Object | None:
        return self._of(self._requests, key.namespace).get(key)

    def _service(self, key: Key) -> Object | None:
        return self._of(self._services, key.namespace).get(key)

    def _all_services(self, namespace: str) -> list[Object]:
        return [one for one in self._of(self._services, namespace).all() if one["metadata"]["namespace"] == namespace]

    def _clusters_of(self, namespace: str) -> list[Object]:
        return [one for one in self._all_clusters() if one["metadata"]["namespace"] == namespace]

    def _all_clusters(self) -> list[Object]:
        return [one for mirror in self._clusters.values() for one in mirror.all()]

    def _kuberay(self) -> bool:
        return not any(mirror.missing for mirror in self._services.values())

    def _written(self, document: Object) -> None:
        mirrors = {"LayoutRequest": self._requests, "RayService": self._services, "RayCluster": self._clusters}
        self._of(mirrors[document["kind"]], document["metadata"]["namespace"]).put(document)
