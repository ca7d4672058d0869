"""All that the store says of a watched study at the beginning of an iteration."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tuner.app.watch.memory import Memory
from tuner.ask.request import TuneRequest
from tuner.retune.live import LiveDeployment, LiveState
from tuner.retune.rollout import ENDS, Rollout, Step
from tuner.retune.seen import Fingerprint
from tuner.study.lifecycle import StudyState
from tuner.study.looks import Said
from tuner.study.store import Store
from tuner.study.watched import Watched

_DAY_S = 86_400.0
_WITH_METRICS = (LiveState.SERVING, LiveState.WANTED)


@dataclass(frozen=True, slots=True)
class Glance:
    """``serving`` has the traffic, or most of it; None where nothing does yet. ``request`` is that of the round which
    decided it, else the study's own; ``rounds`` are those that were decided, the oldest first. ``moved_s``: when what
    serves came, or a rollout ended last, whatever came of it (s since 1970)."""

    watched: Watched
    memory: Memory
    said: Said
    lives: tuple[LiveDeployment, ...]
    rollout: Rollout | None
    rounds: tuple[str, ...]
    serving: LiveDeployment | None
    request: TuneRequest
    gpu_hours_today: float
    moved_s: float | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Deployments that may tell something of themselves."""
        return tuple(live.name for live in self.lives if live.state in _WITH_METRICS)

    def vetoed(self, seen: Fingerprint | None) -> frozenset[str]:
        """Layouts that are not tried, as they print: what humans refused, and what failed on this cluster."""
        failed = {str(one.deployment) for one in self.lives if one.state is LiveState.FAILED and _same(one, seen)}
        return (self.said.vetoed | failed) - self.said.approved - self.said.forced


def glance(store: Store, study: str, at_s: float) -> Glance:
    """Read it; raises BadInput for a study that is not watched."""
    watched = store.watched.watched(study)
    lives, rollout = store.live.of(study), store.rollouts.open(study)
    every = store.rounds.of(study)
    rounds = tuple(name for name in every if store.listing.state(name) is StudyState.DECIDED) or (study,)
    serving = _serving(lives, rollout)
    said = store.looks.said(study)
    return Glance(
        watched=watched,
        memory=Memory.of(watched.memory),
        said=replace(said, vetoed=said.vetoed | store.rollouts.vetoed(study)),
        lives=lives,
        rollout=rollout,
        rounds=rounds,
        serving=serving,
        request=store.study(study if serving is None else serving.study).request,
        gpu_hours_today=store.spending.gpu_hours_since(every[1:], at_s - at_s % _DAY_S),
        moved_s=_moved_s(store, study, serving),
    )


def _serving(lives: tuple[LiveDeployment, ...], rollout: Rollout | None) -> LiveDeployment | None:
    """Of two that serve, under a canary, the old one, until the new one has all the traffic."""
    found = [one for one in lives if one.state is LiveState.SERVING]
    if rollout is not None:
        main = rollout.new if rollout.step in (Step.PROMOTING, Step.DRAINING, Step.REMOVING_OLD) else rollout.old
        found = [one for one in found if one.name == main] or found
    return found[-1] if found else None


def _moved_s(store: Store, study: str, serving: LiveDeployment | None) -> float | None:
    """A rollout's last step began when it ended."""
    newest = next(iter(store.rollouts.of(study)), None)
    ended_s = newest.step_since_s if newest is not None and newest.step in ENDS else None
    known = [at for at in (ended_s, None if serving is None else serving.serving_since_s) if at is not None]
    return max(known, default=None)


def _same(live: LiveDeployment, seen: Fingerprint | None) -> bool:
    return seen is None or live.fingerprint is None or seen.nodes == live.fingerprint.nodes
