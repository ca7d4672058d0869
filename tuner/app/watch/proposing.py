"""From a judgement, a round's decision or a human's order to what is rolled out, or asked of a round."""

from __future__ import annotations

from tuner.app.watch.acting import Move
from tuner.app.watch.glance import Glance
from tuner.app.watch.judging import Judged, layouts
from tuner.app.watch.whole import named, whole_request
from tuner.ask.deployment import Deployment
from tuner.ask.request import TuneRequest
from tuner.retune.judgement import Action
from tuner.retune.live import LiveDeployment
from tuner.retune.spare_round import on_spare
from tuner.study.store import Store
from tuner.trial.results import TrialResult


def move_of(store: Store, state: Glance, found: Judged) -> Move | None:
    """What a judgement says to roll out; None where it says nothing of the kind."""
    judgement, now = found.judgement, found.now
    best = None if judgement.outlook is None else judgement.outlook.best
    if best is None or now is None or now.request is None:
        return None
    emergency = judgement.action is Action.EMERGENCY
    in_place = judgement.action is Action.RETUNE and _no_spare(state, found)
    if judgement.action is not Action.MOVE and not emergency and not in_place:
        return None
    study, trial = measured(store, state.rounds, best.deployment)
    return Move(best.deployment, study, trial, store.study(study).request, judgement.why, emergency)


def _no_spare(state: Glance, found: Judged) -> bool:
    """Whether trials would need the devices that serve, and may have them: then the deployment itself is the trial, as
    a canary that has all of the traffic."""
    outlook = found.judgement.outlook
    if state.watched.policy.trials != "in_place" or outlook is None or outlook.best is None:
        return False
    return outlook.spare_gpus is None or outlook.spare_gpus < outlook.best.gpus


def round_of(found: Judged) -> TuneRequest | None:
    """What a round is asked: the request of now, on the devices that what serves leaves."""
    now, outlook = found.now, found.judgement.outlook
    if now is None or now.request is None or outlook is None or outlook.present is None:
        return None
    return on_spare(now.request, outlook.present.deployment)


def forced(store: Store, state: Glance, serving: LiveDeployment | None) -> Move | None:
    """What a human ordered; None where that serves already, or nothing was."""
    for deployment in sorted(layouts(state.said.forced), key=str):
        if serving is None or deployment != serving.deployment:
            study, trial = measured(store, state.rounds, deployment)
            return Move(deployment, study, trial, store.study(study).request, "a human ordered it", asked=True)
    return None


def measured(store: Store, rounds: tuple[str, ...], deployment: Deployment) -> tuple[str, TrialResult | None]:
    """The newest round with a trial of a layout, and that trial; the last round and None where no trial measured it."""
    whole = whole_request(store, rounds)
    for name in reversed(rounds):
        own = store.study(name).request
        finished = (one for one in store.snapshot(name).finished if one.steps)
        trials = [one for one in finished if deployment in (one.deployment, named(one.deployment, own, whole))]
        if trials:
            return name, trials[-1]
    return rounds[-1], None
