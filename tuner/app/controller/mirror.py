"""All objects of a kind in a namespace, as the API server tells of them: listed once, and watched from there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from deploy.controller.names import Key
from tuner.app.controller.kube import Change, Kind, Kube, KubeError, Object

WATCH_S = 240.0
AGAIN_S = (0.5, 1.0, 2.0, 5.0, 15.0)
LITTLE_S = 0.2
SHORT_S = 5.0  # of a watch that told nothing: a server in between may end watches as they begin
MISSING_S = 30.0  # a kind that the cluster does not know may come
_GONE, _UNKNOWN_KIND = 410, 404


class Mirror:
    """``changed`` is told of every object that came, changed or went, in the mirror's thread; ``known``, when a kind is
    there that the cluster did not know before."""

    def __init__(
        self,
        kube: Kube,
        kind: Kind,
        namespace: str,
        changed: Callable[[Object], None],
        known: Callable[[], None] = lambda: None,
    ) -> None:
        self._kube, self._kind, self._namespace = kube, kind, namespace
        self._changed, self._known = changed, known
        self._lock, self._objects = threading.Lock(), dict[Key, Object]()
        self._version = ""
        self._stopped = threading.Event()
        self.synced = threading.Event()  # what is there was read, or there is no such kind
        self.missing = False  # the cluster does not know the kind
        self._thread = threading.Thread(target=self._run, name=f"watch {kind.plural} {namespace}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether its thread is."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End with the next line that comes; nobody waits for it."""
        self._stopped.set()

    def get(self, key: Key) -> Object | None:
        """One, as it was told last."""
        with self._lock:
            return self._objects.get(key)

    def all(self) -> list[Object]:
        """All."""
        with self._lock:
            return list(self._objects.values())

    def put(self, document: Object) -> None:
        """What a write was answered: it comes over the watch too, but may be needed before."""
        key = key_of(document)
        with self._lock:
            if (known := self._objects.get(key)) is not None and _version(known) < _version(document):
                self._objects[key] = document

    def _run(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            try:
                if not self._version:
                    self._list()
                began, told = time.monotonic(), self._watch()
                failures = 0 if told or time.monotonic() - began >= SHORT_S else failures + 1
                self._stopped.wait(_wait_s(failures))
            except KubeError as error:
                failures = failures + 1
                wait_s = _wait_s(failures)
                if error.code == _GONE and failures == 1:
                    wait_s = LITTLE_S  # the next may be too old as well
                if error.code == _UNKNOWN_KIND:
                    self._forget()
                    wait_s = MISSING_S
                elif error.code:  # it refused: what was known may have been missed
                    self._version = ""
                self._stopped.wait(wait_s)

    def _list(self) -> None:
        found, version = self._kube.list(self._kind, self._namespace)
        objects = {key_of(one): one for one in found}
        with self._lock:
            before, self._objects = self._objects, objects
        came, self._version, self.missing = self.missing, version, False
        self.synced.set()
        if came:
            self._known()
        for key in before.keys() | objects.keys():
            if before.get(key) != objects.get(key):
                self._changed(objects.get(key) or before[key])

    def _watch(self) -> bool:
        """Whether it told of anything."""
        told = False
        for change in self._kube.watch(self._kind, self._namespace, self._version, WATCH_S):
            self._version = change.object["metadata"]["resourceVersion"]
            told = told or change.kind != "BOOKMARK"
            if change.kind != "BOOKMARK" and self._is_new(change):
                self._changed(change.object)
            if self._stopped.is_set():
                break
        return told

    def _is_new(self, change: Change) -> bool:
        """Keep it; False for what is known already: the controller's own writes come back over the watch."""
        key = key_of(change.object)
        with self._lock:
            known = self._objects.get(key)
            if change.kind == "DELETED":
                self._objects.pop(key, None)
                return True
            if known is not None and _version(known) >= _version(change.object):
                return False
            self._objects[key] = change.object
            return True

    def _forget(self) -> None:
        with self._lock:
            gone, self._objects = self._objects, {}
        self._version, self.missing = "", True
        self.synced.set()
        for document in gone.values():
            self._changed(document)


def _wait_s(failures: int) -> float:
    return AGAIN_S[min(failures, len(AGAIN_S)) - 1] if failures else LITTLE_S


def key_of(document: Object) -> Key:
    """Where an object is found."""
    return Key(document["metadata"]["namespace"], document["metadata"]["name"])


def _version(document: Object) -> int:
    """Versions of one kind rise, and may be compared, since Kubernetes 1.35; before, etcd's revisions do so too."""
    return int(document["metadata"]["resourceVersion"])
