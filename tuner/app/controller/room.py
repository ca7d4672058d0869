"""How many GPUs the RayClusters that are made for studies may take, all together."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from deploy.controller.names import API_VERSION, Key
from deploy.specs.study_cluster import GPUS
from tuner.app.controller.kube import Object

DOUBT_S = 300.0  # a watch that broke off is begun anew by then, and tells of what was made


class Room:
    """``most`` GPUs; ``there`` are all RayClusters that are known. Any thread may ask.

    What was just made is counted before the cluster tells of it, until it does; what may have been made, for a time.
    """

    def __init__(
        self, most: int, there: Callable[[], list[Object]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._there, self._clock = most, there, clock
        self._lock, self._taken = threading.Lock(), dict[Key, tuple[int, float]]()  # GPUs, and until when

    def left(self, key: Key | None = None) -> int:
        """How many more there may be; for the one of a ``key``, which may have been counted before."""
        with self._lock:
            return self._left(key)

    def take(self, key: Key, gpus: int) -> bool:
        """Count a RayCluster that is about to be made; False where there is no room for it."""
        with self._lock:
            if gpus > self._left(key):
                return False
            self._taken[key] = (gpus, math.inf)
            return True

    def let(self, key: Key) -> None:
        """It was not made; or it is told of now, be it that it went."""
        with self._lock:
            self._taken.pop(key, None)

    def doubt(self, key: Key) -> None:
        """Nobody knows whether it was made: the API server did not answer."""
        with self._lock:
            if (taken := self._taken.get(key)) is not None:
                self._taken[key] = (taken[0], self._clock() + DOUBT_S)

    def _left(self, but: Key | None) -> int:
        known = {Key(one["metadata"]["namespace"], one["metadata"]["name"]): one for one in self._there()}
        ours, now = sum(gpus_of(one) for one in known.values()), self._clock()
        self._taken = {key: taken for key, taken in self._taken.items() if taken[1] > now}
        others = (gpus for key, (gpus, _) in self._taken.items() if key not in known and key != but)
        return self._most - ours - sum(others)


def gpus_of(cluster: Object) -> int:
    """Of one that was made for a LayoutRequest; those of others do not count."""
    owners = cluster["metadata"].get("ownerReferences", ())
    if not any(owner.get("apiVersion") == API_VERSION for owner in owners):
        return 0
    return int(cluster["metadata"].get("annotations", {}).get(GPUS, "0"))
