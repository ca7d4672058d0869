"""What a worker tells of itself while it lives: what it may run, the clusters that it sees, and its study."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from tuner.ask.request import ClusterSpec
from tuner.errors import ParlayError, StoreError
from tuner.study.lease import Heartbeat, new_driver
from tuner.study.workers import SeenCluster, Workers
from tuner.trial.shared import this_machine

Groups = tuple[ClusterSpec, ...]
See = Callable[[str], tuple[Groups, str]]  # of a Ray address: the node groups, and the cluster's name
AGAIN_S = 60.0  # before a Ray that did not answer is asked again
_NO_RAY = "it was started without --ray-address: it starts a Ray of its own for each study"


class Presence:
    """Signs of life from the beginning of the block to its end."""

    def __init__(self, workers: Workers, launchers: tuple[str, ...], ray_address: str | None, see: See) -> None:
        self._workers, self._launchers, self._ray_address, self._see = workers, launchers, ray_address, see
        self._id, self._study = new_driver(), ""
        self._ray = SeenCluster("ray", this_machine().id, problem=_NO_RAY)
        self._asked_at = float("-inf")
        self._alive = Heartbeat(self._beat)

    def __enter__(self) -> Presence:
        self.look()
        self._alive.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._alive.stop()
        with suppress(StoreError):  # it is forgotten as it is silent
            self._workers.leave(self._id)

    @property
    def sees_ray(self) -> bool:
        """Whether a running Ray cluster answered when it was asked last."""
        return self._ray.groups is not None

    @property
    def devices(self) -> int:
        """How many the Ray cluster had when it was asked last."""
        return sum(group["nodes"] * group["gpus_per_node"] for group in self._ray.groups or ())

    def look(self, *, again: bool = False) -> Groups | None:
        """Ask the Ray cluster what it has, if there is one; not too often where it does not answer, but for ``again``.

        Not while a study runs here: there is one Ray in a process.
        """
        if "ray" not in self._launchers or self._ray_address is None:
            return None
        if not again and (self.sees_ray or time.monotonic() - self._asked_at < AGAIN_S):
            return None
        self._asked_at = time.monotonic()
        try:
            groups, cluster = self._see(self._ray_address)
        except ParlayError as error:
            self._ray = SeenCluster("ray", problem=str(error))
            return None
        told = tuple(group.model_dump(mode="json", exclude_none=True) for group in groups)
        self._ray = SeenCluster("ray", cluster, told)
        return groups

    def runs(self, study: str | None) -> None:
        """Say what it runs now; the next sign of life tells it."""
        self._study = study or ""

    def _beat(self) -> None:
        machine = this_machine().id
        known = {"ray": self._ray, "local": SeenCluster("local", machine), "simulated": SeenCluster("simulated")}
        clusters = [known[name] for name in self._launchers]
        self._workers.beat(self._id, self._launchers, clusters, self._study or None)


def see_ray(address: str) -> tuple[Groups, str]:
    """The running cluster at an address. Raises BadInput where none answers."""
    from serve.launch.ray_api import cluster_seen

    found, name = cluster_seen(address)
    return (found if isinstance(found, tuple) else (found,)), name
