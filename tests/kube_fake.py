"""An API server in memory, as far as the controller asks one: versions, generations, finalizers, field managers.

Field managers are told apart by leaves of the document; of server-side apply that is what the controller relies on. It
passes ``tests/kube_contract.py`` like the real one.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from deploy.controller.names import MANAGER
from tuner.app.controller.kube import LAYOUT_REQUEST, RAY_CLUSTER, RAY_SERVICE, Change, Kind, KubeError, Object

Place = tuple[Kind, str, str]
Leaf = tuple[str, ...]
_SUBRESOURCED = (LAYOUT_REQUEST, RAY_SERVICE, RAY_CLUSTER)


class FakeKube:
    """``calls`` are (verb, kind) of everything that was asked; ``down`` makes it answer nothing; ``unknown`` are kinds
    that it does not know."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._objects: dict[Place, Object] = {}
        self._managers: dict[Place, dict[Leaf, str]] = {}
        self._log: list[tuple[int, Kind, Change]] = []
        self._version = 0
        self.calls: list[tuple[str, str]] = []
        self.down = False
        self.unknown: set[Kind] = set()

    # What the controller asks

    def list(self, kind: Kind, namespace: str) -> tuple[list[Object], str]:
        with self._asked("list", kind):
            found = [o for (k, ns, _), o in self._objects.items() if k == kind and namespace in ("", ns)]
            return copy.deepcopy(found), str(self._version)

    def watch(self, kind: Kind, namespace: str, version: str, seconds: float) -> Iterator[Change]:
        with self._asked("watch", kind):
            seen = int(version)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with self._changed:
                if self.down:
                    raise KubeError(0, "Unreachable", "down")
                new = [(v, c) for v, k, c in self._log if v > seen and k == kind and namespace in ("", _namespace(c))]
                if not new:
                    self._changed.wait(0.05)
            for number, change in new:
                seen = number
                yield copy.deepcopy(change)

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        with self._asked("get", kind):
            return copy.deepcopy(self._objects.get((kind, namespace, name)))

    def create(self, kind: Kind, namespace: str, document: Object) -> Object:
        with self._asked("create", kind):
            place = (kind, namespace, document["metadata"]["name"])
            if place in self._objects:
                raise KubeError(409, "AlreadyExists", f"{place[2]} already exists")
            return self._put(place, copy.deepcopy(document), "ADDED")

    def replace(self, kind: Kind, namespace: str, name: str, document: Object, part: str = "") -> Object:
        with self._asked("update", kind):
            old = self._there(kind, namespace, name, document["metadata"].get("resourceVersion"))
            if part == "status":
                new = copy.deepcopy(old) | {"status": copy.deepcopy(document["status"])}
            else:
                new = copy.deepcopy(document)
                new["metadata"] = copy.deepcopy(old["metadata"]) | new["metadata"]
            return self._put((kind, namespace, name), new, "MODIFIED")

    def merge(self, kind: Kind, namespace: str, name: str, patch: Object) -> Object:
        with self._asked("patch", kind):
            old = self._there(kind, namespace, name, patch.get("metadata", {}).get("resourceVersion"))
            return self._put((kind, namespace, name), _merged(copy.deepcopy(old), patch), "MODIFIED")

    def apply(self, kind: Kind, namespace: str, name: str, document: Object) -> Object:
        with self._asked("apply", kind):
            return self._apply((kind, namespace, name), document, MANAGER)

    def remove(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        with self._asked("delete", kind):
            if self._there(kind, namespace, name, None)["metadata"]["uid"] != uid:
                raise KubeError(409, "Conflict", "another has its name")
            self.delete(kind, namespace, name)

    # What others do

    def edit(self, kind: Kind, namespace: str, name: str, patch: Object, manager: str = "kubectl-edit") -> Object:
        """Somebody else's change: its fields are theirs from now on."""
        with self._changed:
            place = (kind, namespace, name)
            new = _merged(copy.deepcopy(self._objects[place]), patch)
            for leaf in _leaves(patch):
                self._managers.setdefault(place, {})[leaf] = manager
            return self._put(place, new, "MODIFIED")

    def set_status(self, kind: Kind, namespace: str, name: str, status: Object) -> Object:
        """What its own controller says of it."""
        with self._changed:
            place = (kind, namespace, name)
            return self._put(place, copy.deepcopy(self._objects[place]) | {"status": status}, "MODIFIED")

    def delete(self, kind: Kind, namespace: str, name: str) -> None:
        """Delete one, and what it owns; one with finalizers when they are gone."""
        with self._changed:
            place = (kind, namespace, name)
            new = copy.deepcopy(self._objects[place])
            new["metadata"]["deletionTimestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            self._put(place, new, "MODIFIED")

    def _apply(self, place: Place, document: Object, manager: str) -> Object:
        old, owners = self._objects.get(place), self._managers.setdefault(place, {})
        if old is None:
            owners.clear()
            owners.update(dict.fromkeys(_leaves(document), manager))
            return self._put(place, copy.deepcopy(document), "ADDED")
        wanted = _leaves(document)
        theirs = [leaf for leaf, value in wanted.items() if owners.get(leaf, manager) != manager]
        lost = [leaf for leaf in theirs if _leaves(old).get(leaf) != wanted[leaf]]
        if lost:
            words = [f".{'.'.join(leaf)} conflict with {owners[leaf]}" for leaf in lost]
            raise KubeError(409, "Conflict", "Apply failed", words)
        left = [leaf for leaf, who in owners.items() if who == manager and leaf not in wanted]
        new = copy.deepcopy(old)
        for leaf in left:
            del owners[leaf]
            _drop(new, leaf)
        owners.update({leaf: manager for leaf in wanted if leaf not in theirs})
        return self._put(place, _merged(new, document), "MODIFIED")

    # How it keeps them

    def _asked(self, verb: str, kind: Kind) -> threading.Condition:
        self.calls.append((verb, kind.plural))
        if self.down:
            raise KubeError(0, "Unreachable", "down")
        if kind in self.unknown:
            raise KubeError(404, "NotFound", "the server could not find the requested resource")
        return self._changed

    def _there(self, kind: Kind, namespace: str, name: str, version: str | None) -> Object:
        found = self._objects.get((kind, namespace, name))
        if found is None:
            raise KubeError(404, "NotFound", f"{name} not found")
        if version not in (None, found["metadata"]["resourceVersion"]):
            raise KubeError(409, "Conflict", "the object has been modified")
        return found

    def _put(self, place: Place, new: Object, how: str) -> Object:
        kind, namespace, name = place
        old, meta = self._objects.get(place), new["metadata"]
        if old is not None and _without_version(old) == _without_version(new):
            return copy.deepcopy(old)
        self._version += 1
        meta |= {"namespace": namespace, "name": name, "resourceVersion": str(self._version)}
        meta.setdefault("uid", str(uuid4()))
        meta["generation"] = _generation(kind, old, new)
        if "deletionTimestamp" in meta and not meta.get("finalizers"):
            self._objects.pop(place, None)
            self._managers.pop(place, None)
            how = "DELETED"
        else:
            self._objects[place] = new
        self._log.append((self._version, kind, Change(how, copy.deepcopy(new))))
        if how == "DELETED":
            self._collect(meta["uid"])
        self._changed.notify_all()
        return copy.deepcopy(new)

    def _collect(self, uid: str) -> None:
        """The garbage collector's work."""
        for place, document in list(self._objects.items()):
            if any(owner["uid"] == uid for owner in document["metadata"].get("ownerReferences", ())):
                self.delete(*place)


def _generation(kind: Kind, old: Object | None, new: Object) -> int:
    if old is None:
        return 1
    before = int(old["metadata"].get("generation", 1))
    ignored = ("metadata", "status") if kind in _SUBRESOURCED else ("metadata",)
    changed = any(old.get(key) != new.get(key) for key in old.keys() | new.keys() if key not in ignored)
    going = "deletionTimestamp" in new["metadata"] and "deletionTimestamp" not in old["metadata"]
    return before + (changed or going)


def _without_version(document: Object) -> Object:
    return document | {"metadata": {k: v for k, v in document["metadata"].items() if k != "resourceVersion"}}


def _namespace(change: Change) -> str:
    return str(change.object["metadata"]["namespace"])


def _merged(old: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    found = old if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = _merged(found.get(key), value)
    return found


def _drop(document: Any, leaf: Leaf) -> None:
    """What its manager applies no more goes."""
    *parents, last = leaf
    for name in parents:
        document = document.get(name) if isinstance(document, dict) else None
    if isinstance(document, dict):
        document.pop(last, None)


def _leaves(document: Any, at: Leaf = ()) -> dict[Leaf, Any]:
    if isinstance(document, dict) and document:
        return {leaf: value for key, inner in document.items() for leaf, value in _leaves(inner, (*at, key)).items()}
    own = ("metadata", "name"), ("metadata", "namespace"), ("apiVersion",), ("kind",)
    return {} if at in own else {at: document}
