"""Watching, over and over: one thread for all watched studies of a store that this process can reach.

Of all processes that watch one store, one acts on each study: whoever has claimed it. An error of one study is told
with it, and the others go on; a store that is away for a while is asked again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from tuner.app.answers.watch import StandingAnswer
from tuner.app.watch.watcher import Watcher
from tuner.errors import Cancelled, LeaseLost, StoreError, reason
from tuner.study.lease import Heartbeat, is_gone, new_driver
from tuner.study.store import Store
from tuner.study.watched import Claim, Watched
from tuner.trial.cancel import CancelHandle

EVERY_S = 15.0
Make = Callable[[Watched, Claim], Watcher]
Tell = Callable[[str, StandingAnswer], None]


@dataclass(slots=True)
class _Held:
    claim: Claim
    watcher: Watcher
    alive: Heartbeat


class WatchLoop:
    """``make`` makes the watcher of a study that was claimed, and raises ParlayError where its place cannot be reached
    from here; ``tell`` hears how each look stood. ``mine`` says which studies it is to watch, and ``watching`` hears
    before each look which they are."""

    def __init__(
        self,
        store: Store,
        make: Make,
        tell: Tell,
        *,
        every_s: float = EVERY_S,
        mine: Callable[[Watched], bool] = lambda _: True,
        watching: Callable[[frozenset[str]], None] = lambda _: None,
    ) -> None:
        self._watching = watching
        self._store, self._make, self._tell, self._every_s, self._mine = store, make, tell, every_s, mine
        self._me = new_driver()
        self._held: dict[str, _Held] = {}

    def run(self, stop: CancelHandle) -> None:
        """Until ``stop`` is set; then all claims are given back, and what serves goes on serving."""
        try:
            while stop.cause is None:
                self.once()
                for held in self._held.values():
                    held.watcher.prepare()
                stop.wait(self._every_s)
        except Cancelled:
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Give all claims back."""
        for study in list(self._held):
            self._drop(study)

    def once(self) -> None:
        """One look at each study that is this process's, or becomes so."""
        try:
            names = [one.study for one in self._store.watched.all() if self._mine(one)]
        except StoreError:  # the next look makes up for it
            return
        for study in [one for one in self._held if one not in names]:
            self._drop(study)
        self._watching(frozenset(names))
        for study in names:
            try:
                held = self._held.get(study) or self._claim(study)
                if held is not None:
                    self._tell(study, held.watcher.iterate())
            except LeaseLost:
                self._drop(study)
            except Exception as error:  # of the store, of a place that cannot be reached from here, or a fault of ours
                words = reason(error)
                self._tell(study, StandingAnswer(
                    at=0.0, state="failed", text=words, notices=[], judgement=None, problem=words, acted=[]
                ))  # fmt: skip
                if study in self._held and not isinstance(error, StoreError):
                    self._drop(study)

    def _claim(self, study: str) -> _Held | None:
        claim = self._store.watched.claim(study, self._me, is_gone)
        if claim is None:
            return None
        try:
            watcher = self._make(self._store.watched.watched(study), claim)
        except BaseException:
            self._store.watched.leave(claim)
            raise
        alive = Heartbeat(lambda: self._store.watched.beat(claim))
        alive.start()
        self._held[study] = _Held(claim, watcher, alive)
        return self._held[study]

    def _drop(self, study: str) -> None:
        held = self._held.pop(study)
        held.alive.stop()
        held.watcher.close()
        with suppress(StoreError):  # then its lease runs out
            self._store.watched.leave(held.claim)
