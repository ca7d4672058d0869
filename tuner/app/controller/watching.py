"""The watcher in a controller: it looks after what is deployed of LayoutRequests that ask for it, while it leads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from deploy.specs.rayservice import Platform
from tuner.app.answers.watch import StandingAnswer
from tuner.app.controller.kube import Kube
from tuner.app.controller.kuberay_place import KUBERAY, KubeRayPlace, KubeSite
from tuner.app.watch.first import first_deployment
from tuner.app.watch.loop import WatchLoop
from tuner.app.watch.rounds import QueuedRounds
from tuner.app.watch.watcher import Watcher
from tuner.errors import Cause, ParlayError
from tuner.retune.live import LiveState
from tuner.study.store import Store
from tuner.study.watched import Claim, Watched
from tuner.trial.cancel import CancelHandle

EVERY_S = 30.0
_THERE = (LiveState.WANTED, LiveState.SERVING, LiveState.LAST_GOOD)
Platforms = Callable[[str], Platform | None]  # of a study, once its LayoutRequest was looked at


class KubeWatch:
    """``changed`` is told of studies whose standing is another; ``leading``: whether this controller works."""

    def __init__(
        self,
        kube: Kube,
        store: Store,
        platforms: Platforms,
        changed: Callable[[set[str]], None],
        leading: Callable[[], bool] = lambda: True,
        every_s: float = EVERY_S,
    ) -> None:
        self._kube, self._store, self._platforms = kube, store, platforms
        self._changed, self._leading = changed, leading
        self._told: dict[str, tuple[str, str]] = {}
        self.places: dict[str, KubeRayPlace] = {}
        self._untidy: set[str] = set()  # those beside which an earlier study's may serve
        self.loop = WatchLoop(store, self._make, self._tell, every_s=every_s, mine=self._mine, watching=self._only)
        self._stop = CancelHandle()
        self._thread = threading.Thread(target=self.loop.run, args=(self._stop,), name="watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether its thread is."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End; what serves goes on serving."""
        self._stop.cancel(Cause.SHUTDOWN, "the controller ends")
        self._thread.join()

    def _mine(self, watched: Watched) -> bool:
        return self._leading() and watched.site.get("kind") == KUBERAY and self._platforms(watched.study) is not None

    def _only(self, studies: frozenset[str]) -> None:
        """Forget all others."""
        self.places = {study: place for study, place in self.places.items() if study in studies}
        self._told = {study: told for study, told in self._told.items() if study in studies}
        self._untidy &= studies

    def _make(self, watched: Watched, claim: Claim) -> Watcher:
        platform = self._platforms(watched.study)
        if platform is None:
            raise ParlayError(f"nobody has looked at the LayoutRequest of {watched.study} yet")
        site = KubeSite.model_validate(dict(watched.site))
        place = self.places[watched.study] = KubeRayPlace(self._kube, site, platform, watched.policy.canary)
        self._untidy.add(watched.study)
        there = [one for one in self._store.live.of(watched.study) if one.state in _THERE]
        if not there and self._store.rollouts.open(watched.study) is None:
            first_deployment(self._store, place, claim, watched.study, None, time.time())
        return Watcher(self._store, watched.study, place, QueuedRounds(self._store, "ray"), claim)

    def _tell(self, study: str, standing: StandingAnswer) -> None:
        with suppress(ParlayError):
            self._tidy(study)
        told = (standing.state, standing.text)
        if self._told.get(study) != told:
            self._told[study] = told
            self._changed({study})

    def _tidy(self, study: str) -> None:
        """What an earlier study of the same LayoutRequest deployed ends once all traffic goes to this one's. Once
        nothing is left of it nothing comes again: who has been replaced is watched no more."""
        place = self.places.get(study)
        if place is None or study not in self._untidy:
            return
        seen, own = place.site.see(), {live.name for live in self._store.live.of(study)}
        if seen.shares and seen.shares.keys() <= own:
            left = sorted(seen.deployments.keys() - own)
            for name in left:
                place.site.stop(name)
            if not left:
                self._untidy.discard(study)
