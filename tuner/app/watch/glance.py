"""All that the store says of a watched study at the beginning of an iteration."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tuner.app.watch.memory import Memory
from tuner.ask.request import TuneRequest
from tuner.retune.live import LiveDeployment, LiveState
from tuner.retune.rollout import Rollout, Step
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
    decided it, else the study's own; ``rounds`` are those that were decided, the oldest first."""

    watched: Watched
    memory: Memory
    said: Said
    lives: tuple[LiveDeployment, ...]
    rollout: Rollout | None
    rounds: tuple[str, ...]
    serving: LiveDeployment | None
    request: TuneRequest
    gpu_hours_today: float

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
        gpu_hours_today=_gpu_hours(store, every[1:], at_s - at_s % _DAY_S),
    )


def _serving(lives: tuple[LiveDeployment, ...], rollout: Rollout | None) -> LiveDeployment | None:
    """Of two that serve, under a canary, the old one, until the new one has all the traffic."""
    found = [one for one in lives if one.state is LiveState.SERVING]
    if rollout is not None:
        main = rollout.new if rollout.step in (Step.PROMOTING, Step.DRAINING, Step.REMOVING_OLD) else rollout.old
        found = [one for one in found if one.name == main] or found
    return found[-1] if found else None


def _same(live: LiveDeployment, seen: Fingerprint | None) -> bool:
    return seen is None or live.fingerprint is None or seen.nodes == live.fingerprint.nodes


def _gpu_hours(store: Store, rounds: tuple[str, ...], since_s: float) -> float:
    """Spent on trials of rounds that began since then."""
    begun = (name for name in rounds if (one := store.find_study(name)) is not None and one.created_at >= since_s)
    return sum(entry.device_s or 0.0 for name in begun for entry in store.ledger(name)) / 3600
