"""The first deployment of a study's winner, by which it begins to be watched."""

from __future__ import annotations

from tuner.app.watch.acting import Move, Plan, begin, planned
from tuner.app.watch.glance import glance
from tuner.app.watch.place import Place
from tuner.app.wiring import decision_of, measured_trial
from tuner.errors import BadInput
from tuner.retune.rollout import Rollout
from tuner.study.store import Store
from tuner.study.watched import Claim


def first_deployment(store: Store, place: Place, claim: Claim, study: str, layout: str | None, at_s: float) -> Rollout:
    """Begin the rollout of the winner, or of another measured ``layout``; whoever orders it approves it.

    Raises BadInput where something of the study serves already, NoFeasibleLayout where it has no winner.
    """
    state = glance(store, claim.study, at_s)
    if state.serving is not None or state.rollout is not None:
        what = state.rollout.new if state.rollout is not None else state.serving.name if state.serving else ""
        raise BadInput("STUDY", study, f"one of which nothing serves; {what} does, and `parlay watch` looks after it")
    record = store.study(study)
    decision, _ = decision_of(store, record)
    trial = measured_trial(decision, layout)
    move = Move(trial.deployment, study, trial, record.request, f"the first deployment of {study}", asked=True)
    plan = planned(store, place, claim.study, None, move, state.watched.policy, True, at_s, place.fingerprint())
    if not isinstance(plan, Plan):
        raise BadInput("STUDY", str(trial.deployment), f"a layout that can be started ({plan})")
    return begin(store, claim, plan, trial.deployment)
