"""The first deployment of a study's winner, by which it begins to be watched."""

from __future__ import annotations

from tuner.app.watch.acting import Move, Plan, begin, planned
from tuner.app.watch.glance import glance
from tuner.app.watch.place import Place
from tuner.app.wiring import decision_of, measured_trial
from tuner.errors import BadInput
from tuner.retune.live import LiveState
from tuner.retune.rollout import Rollout
from tuner.retune.site import Readiness
from tuner.study.store import Store
from tuner.study.watched import Claim
from tuner.trial.results import TrialResult


def deployable(store: Store, study: str, layout: str | None) -> TrialResult:
    """The trial of the winner, or of another measured ``layout``: nothing of the study serves yet, or nobody watches
    what does (``let_go``).

    Raises BadInput where something does, NoFeasibleLayout where the study has no winner.
    """
    base = store.rounds.base_of(study)
    serving = [one.name for one in store.live.of(base) if one.state is LiveState.SERVING]
    rollout = store.rollouts.open(base)
    if (rollout is not None or serving) and store.watched.find(base) is not None:
        what = serving[-1] if rollout is None else rollout.new
        raise BadInput("STUDY", study, f"one of which nothing serves; {what} does, and `parlay watch` looks after it")
    decision, _ = decision_of(store, store.study(study))
    return measured_trial(decision, layout)


def let_go(store: Store, place: Place, claim: Claim) -> None:
    """Forget what served when the study was watched no more: a human has it since. Raises BadInput where some of it is
    still at ``place``: it would hold devices there, and nobody would end it."""
    mine = {one.name for one in store.live.of(claim.study)}
    there = place.site.see().deployments
    left = sorted(name for name in mine & set(there) if there[name].readiness is not Readiness.ABSENT)
    if left:
        what, them = ", ".join(left), "them" if len(left) > 1 else "it"
        allowed = f"one of which nothing is there; {what} is, and nobody watches {them} any more: end {them} first"
        raise BadInput("STUDY", claim.study, allowed)
    store.rollouts.let_go(claim.study, claim, "it was watched no more, and is deployed anew")


def first_deployment(store: Store, place: Place, claim: Claim, study: str, layout: str | None, at_s: float) -> Rollout:
    """Begin the rollout of the winner, or of another measured ``layout``; whoever orders it approves it.

    Raises as ``deployable`` does, and BadInput where it cannot be started.
    """
    state = glance(store, claim.study, at_s)
    record, trial = store.study(study), deployable(store, study, layout)
    move = Move(trial.deployment, study, trial, record.request, f"the first deployment of {study}", asked=True)
    plan = planned(store, place, claim.study, None, move, state.watched.policy, True, at_s, place.fingerprint())
    if not isinstance(plan, Plan):
        raise BadInput("STUDY", str(trial.deployment), f"a layout that can be started ({plan})")
    return begin(store, claim, plan, trial.deployment)
