"""A LayoutRequest whose deployment is watched: what is watched where, by which policy, and what is said of it."""

from __future__ import annotations

from typing import Any

from deploy.controller.names import API_VERSION, DECISION, KIND, OF, STUDY, Key
from deploy.controller.observed import Asked, Observed, Refused, WatchedSeen

Said = tuple[str, str, str]  # status, reason, message
_PLAIN = {
    "well": ("Well", "all that can be seen is well"),
    "noticed": ("Noticed", "something was noticed, and no other layout helps"),
}


def site_of(seen: Observed, asked: Asked) -> dict[str, Any]:
    """Where it serves, as the store keeps it: all of its studies in one place, one behind the other. What is made there
    is owned by the LayoutRequest."""
    resource, retune = seen.resource, asked.retune
    assert retune is not None, "only what is to be watched has such a place"
    owner = {"apiVersion": API_VERSION, "kind": KIND, "name": resource.key.name, "uid": resource.uid}
    found: dict[str, Any] = {
        "kind": "kuberay",
        "namespace": resource.key.namespace,
        "service": asked.service,
        "watched": watched_as(resource.key, resource.uid),
        "carried": {"labels": {OF: resource.uid}, "ownerReferences": [owner | {"controller": True}]},
    }
    found["gateway"] = None if retune.gateway is None else retune.gateway.model_dump(mode="json")
    found["upgrades"] = None if retune.upgrades is None else retune.upgrades.model_dump(mode="json")
    return found


def watched_as(key: Key, uid: str) -> str:
    """By what its objects are known, whichever of its studies decided them."""
    return f"{key}/{uid}"


def is_watched(seen: Observed, asked: Asked) -> bool:
    """Whether its study is watched, as is asked."""
    watch = seen.watch
    return asked.retune is not None and watch is not None and watch.policy == asked.retune.policy


def to_let(seen: Observed) -> WatchedSeen | None:
    """One that is watched and is not to be any more. What serves under a request that is not accepted goes on being
    watched, and under one that was replaced until the new study's is."""
    asked, keep = seen.asked, None
    if not seen.resource.deleting:
        if isinstance(asked, Refused):
            return None
        if asked.auto and asked.retune is not None:
            keep = seen.watch
            if keep is None:
                return None
    return next((one for one in seen.watched if one != keep), None)


def watching(seen: Observed) -> Said:
    """The condition ``Watching``."""
    asked, watch = seen.asked, seen.watch
    if isinstance(asked, Refused):
        return "False", "Refused", "the request is not accepted"
    if asked.retune is None or not asked.auto:
        what = "spec.retune does not ask for it" if asked.retune is None else "spec.deploy is manual"
        return "False", "NotAsked", what
    if "watch" in seen.refused:
        return "False", seen.refused["watch"].reason, seen.refused["watch"].message
    if watch is None:
        return "False", "NotYet", "nothing is decided yet"
    if watch.paused:
        return "False", "Paused", "somebody paused it; `parlay rollout resume` lets it go on"
    if not watch.attended or watch.state is None:
        return "Unknown", "NobodyWatches", f"nobody watches {watch.study} at the moment"
    reason, message = _PLAIN.get(watch.state, (watch.state.capitalize(), watch.text))
    return "True", reason, message


def held(seen: Observed) -> Said:
    """The condition ``Held``: something should be done, and something forbids it, or a human has to agree."""
    watch = seen.watch
    if watch is None or watch.state is None:
        return "False", "NotWatched", "nothing is watched"
    if watch.state == "held":
        return "True", "Held", watch.text
    if watch.state == "blind":
        return "Unknown", "Blind", watch.text
    return "False", "NotHeld", "nothing is held back"


def rolled_out(seen: Observed) -> Said:
    """The condition ``RolledOut`` of what is watched: the watcher rolls out."""
    watch = seen.watch
    if watch is None or watch.serving is None:
        return "False", "RollingOut", watch.text if watch is not None and watch.text else "the watcher begins"
    before = "" if not seen.resource.owns(seen.rayservice) else _left(seen)
    return "True", "Serving", f"{watch.serving} serves {watch.layout}{before}"


def _left(seen: Observed) -> str:
    """A RayService from before it was watched."""
    found = seen.rayservice or {}
    notes = found.get("metadata", {}).get("annotations", {})
    if STUDY not in notes or DECISION not in notes:
        return ""
    return f"; RayService {found['metadata']['name']} from before it was watched runs too: delete it"
