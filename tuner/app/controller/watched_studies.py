"""Watched studies of LayoutRequests, as the store has them."""

from __future__ import annotations

from dataclasses import replace

from deploy.controller.observed import WatchedSeen
from tuner.app.watch.memory import Memory
from tuner.retune.live import LiveDeployment, LiveState
from tuner.study.lease import new_driver
from tuner.study.store import Store
from tuner.study.watched import Watched

_OPEN = (LiveState.WANTED, LiveState.SERVING, LiveState.LAST_GOOD)


def watched_of(store: Store, prefix: str) -> tuple[WatchedSeen, ...]:
    """Those whose names begin so."""
    names = [name for name in store.watched.names() if name.startswith(prefix)]
    found = [store.watched.find(name) for name in names]
    return tuple(_seen(store, one) for one in found if one is not None)


def let(store: Store, study: str) -> None:
    """Watch it no more, whoever does: what it deployed is its own no more either, so that it may be archived."""
    if store.watched.find(study) is None:
        return
    claim = store.watched.claim(study, new_driver(), lambda *_: True)  # who watched it is refused from now on
    for live in store.live.of(study):
        if live.state in _OPEN and claim is not None:
            store.live.change(replace(live, state=LiveState.ENDED), claim)
    store.watched.unwatch(study)


def _seen(store: Store, watched: Watched) -> WatchedSeen:
    standing = Memory.of(watched.memory).standing
    serving = _serving(store.live.of(watched.study))
    return WatchedSeen(
        study=watched.study,
        policy=watched.policy,
        attended=bool(watched.watcher),
        paused=watched.paused,
        state=None if standing is None else standing.state,
        text=_text(store, watched.study, "" if standing is None else standing.text, serving),
        serving=None if serving is None else serving.name,
        layout=None if serving is None else str(serving.deployment),
    )


def _serving(lives: tuple[LiveDeployment, ...]) -> LiveDeployment | None:
    found = [one for one in lives if one.state is LiveState.SERVING]
    return found[-1] if found else None


def _text(store: Store, study: str, text: str, serving: LiveDeployment | None) -> str:
    """Of what does not serve, why it came to nothing."""
    ended = [one for one in store.rollouts.of(study) if one.outcome] if serving is None else []
    return max(ended, key=lambda one: one.number).outcome if ended else text
