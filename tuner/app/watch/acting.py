"""What a watcher begins: rollouts and rounds. Each is in the store before anything of it is done."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.app.watch.place import Place
from tuner.ask.deployment import Deployment
from tuner.ask.request import TuneRequest
from tuner.retune.live import LiveDeployment, LiveState
from tuner.retune.policy import Consent, RetunePolicy
from tuner.retune.rollout import Rollout, Step, Way
from tuner.retune.seen import Fingerprint
from tuner.retune.site import Readiness
from tuner.study.store import Store
from tuner.study.watched import Claim
from tuner.trial.results import TrialResult


@dataclass(frozen=True, slots=True)
class Move:
    """One deployment that is to serve: decided by ``study``, measured by ``trial`` (None: by nobody); ``request`` is
    what it is launched by. ``emergency``: what serves cannot any more; ``asked``: a human ordered it."""

    deployment: Deployment
    study: str
    trial: TrialResult | None
    request: TuneRequest
    why: str
    emergency: bool = False
    asked: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """A rollout that can begin, with what comes in."""

    rollout: Rollout
    new: LiveDeployment


def planned(
    store: Store,
    place: Place,
    claim_study: str,
    serving: LiveDeployment | None,
    move: Move,
    policy: RetunePolicy,
    approved: bool,
    at_s: float,
    seen: Fingerprint | None,
) -> Plan | str:
    """The rollout of a move; or why it cannot be begun. Nothing is done."""
    if (why := place.refuses(move.deployment, move.request)) is not None:
        return f"{move.deployment} cannot be started: {why}"
    name = store.live.next_name(claim_study)
    new = LiveDeployment(
        watched=claim_study,
        name=name,
        study=move.study,
        trial=None if move.trial is None else move.trial.number,
        deployment=move.deployment,
        launched=place.launched(
            name, move.deployment, move.request, None if move.trial is None else move.trial.launched
        ),
        site=place.site.name,
        state=LiveState.WANTED,
        created_s=at_s,
        fingerprint=seen,
    )
    way = _way(place, serving, move, new, policy)
    if way is None:
        room = place.site.no_room_for(new, move.request)
        return f"{move.deployment} has no room beside what serves ({room}), and the policy does not let that end first"
    consent = policy.emergency if move.emergency else policy.consent
    rollout = Rollout(
        watched=claim_study,
        number=0,
        way=way,
        old=None if serving is None else serving.name,
        new=name,
        step=Step.PLANNED,
        why=move.why,
        began_s=at_s,
        step_since_s=at_s,
        approved=approved or move.asked or consent is Consent.AUTO,
    )
    return Plan(rollout, new)


def _way(
    place: Place, serving: LiveDeployment | None, move: Move, new: LiveDeployment, policy: RetunePolicy
) -> Way | None:
    """How it comes in; None where there is no room for it. In an emergency too, what still serves, be it with some of
    its replicas, does not end before the new one answers, unless the policy lets it."""
    if serving is None or serving.state is not LiveState.SERVING:
        return Way.REPLACE
    old = place.site.see().deployments.get(serving.name)
    if move.emergency and (old is None or old.readiness is not Readiness.READY):
        return Way.REPLACE
    if place.site.no_room_for(new, move.request) is None:
        return Way.BESIDE
    return Way.IN_PLACE if policy.in_place else None


def begin(store: Store, claim: Claim, plan: Plan, layout: Deployment) -> Rollout:
    """Keep the rollout, from where it is driven; raises as ``Rollouts.begin`` does."""
    begun = store.rollouts.begin(plan.rollout, plan.new, claim)
    store.looks.heed(claim.study, str(layout))
    return begun
