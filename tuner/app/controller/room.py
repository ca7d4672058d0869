"""How many GPUs the RayClusters that are made for studies may take, all together."""

from __future__ import annotations

import threading
from collections.abc import Callable

from deploy.controller.names import API_VERSION, Key
from deploy.specs.study_cluster import GPUS
from tuner.app.controller.kube import Object


class Room:
    """``most`` GPUs; ``there`` are all RayClusters that are known. Any thread may ask.

    What was just made is counted before the cluster tells of it, until it does.
    """

    def __init__(self, most: int, there: Callable[[], list[Object]]) -> None:
        self._most, self._there = most, there
        self._lock, self._taken = threading.Lock(), dict[Key, int]()

    def left(self) -> int:
        """How many more there may be."""
        with self._lock:
            return self._left()

    def take(self, key: Key, gpus: int) -> bool:
        """Count a RayCluster that is about to be made; False where there is no room for it."""
        with self._lock:
            if gpus > self._left():
                return False
            self._taken[key] = gpus
            return True

    def let(self, key: Key) -> None:
        """It was not made; or it is told of now, be it that it went."""
        with self._lock:
            self._taken.pop(key, None)

    def _left(self) -> int:
        known = {Key(one["metadata"]["namespace"], one["metadata"]["name"]): one for one in self._there()}
        ours = sum(gpus_of(one) for one in known.values())
        return self._most - ours - sum(gpus for key, gpus in self._taken.items() if key not in known)


def gpus_of(cluster: Object) -> int:
    """Of one that was made for a LayoutRequest; those of others do not count."""
    owners = cluster["metadata"].get("ownerReferences", ())
    if not any(owner.get("apiVersion") == API_VERSION for owner in owners):
        return 0
    return int(cluster["metadata"].get("annotations", {}).get(GPUS, "0"))
