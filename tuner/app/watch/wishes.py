"""What humans ask of a watched study: approve, pause, resume, veto, force. One way for the page, the API and the shell.

Each is for the rollout that is under way, if one is; else for what the watcher last proposed.
"""

from __future__ import annotations

from tuner.app.watch.memory import Memory
from tuner.app.watch.telling import SAID
from tuner.errors import BadInput
from tuner.retune.rollout import Wish
from tuner.retune.wishes import RESUME_FIRST
from tuner.study.store import Store

_PROPOSABLE = frozenset({"hold", "retune", "move", "emergency"})


def say(store: Store, study: str, wish: Wish, account: str) -> str:
    """Heed a wish; what came of it, in words. Raises BadInput where it means nothing, or comes too late."""
    if store.watched.watched(study).paused and wish is Wish.FORCE:
        raise BadInput(study, wish.value, RESUME_FIRST)
    outcome = _said(store, study, wish)
    store.events.tell(study, SAID, {"wish": wish.value, "account": account, "text": outcome})
    store.audit.note(account, f"watch {wish.value}", study, outcome)
    return outcome


def _said(store: Store, study: str, wish: Wish) -> str:
    rollout = store.rollouts.open(study)
    if wish in (Wish.PAUSE, Wish.RESUME):
        store.watched.pause(study, wish is Wish.PAUSE)
        if rollout is not None:
            store.rollouts.wish(study, rollout.number, wish)
        return "paused: nothing is begun or goes on" if wish is Wish.PAUSE else "it goes on"
    if rollout is not None:
        after = store.rollouts.wish(study, rollout.number, wish)
        return f"rollout {after.number} to {after.new}: {_DONE[wish]}"
    layout = proposed(store, study)
    if layout is None:
        raise BadInput(wish.value, study, "a study with a rollout under way, or of which another layout is proposed")
    store.looks.say(study, layout, wish)
    return f"{layout}: {_DONE[wish]}"


_DONE = {
    Wish.APPROVE: "approved",
    Wish.VETO: "vetoed; it is not tried again",
    Wish.FORCE: "forced, whatever else holds it back",
}


def proposed(store: Store, study: str) -> str | None:
    """The layout that the watcher last proposed, as it prints; None where it proposed none."""
    standing = Memory.of(store.watched.watched(study).memory).standing
    judgement = None if standing is None else standing.judgement
    if judgement is None or judgement.action not in _PROPOSABLE:
        return None
    best = None if judgement.outlook is None else judgement.outlook.best
    return None if best is None else best.layout
