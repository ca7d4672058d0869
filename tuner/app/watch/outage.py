"""Nothing serves, and no rollout is under way that could mend it: what served last comes up again, or else the best
that fits. It is an emergency, and waits for what an emergency waits for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tuner.app.watch.glance import Glance
from tuner.ask.deployment import Deployment
from tuner.retune.judgement import Outlook
from tuner.retune.live import LiveDeployment, LiveState
from tuner.retune.rollout import Rollout, Step

RETRY_S = 3600.0  # what served well is tried again so long after it failed: whatever was the matter may have passed


def last_served(state: Glance, rollouts: Sequence[Rollout]) -> LiveDeployment | None:
    """The last good deployment, else the newest that a rollout brought to serve all; None where none ever was, or
    something serves, or will."""
    if state.serving is not None or state.rollout is not None:
        return None
    done = {one.new for one in rollouts if one.step is Step.DONE}
    served = [one for one in state.lives if one.name in done]
    good = [one for one in served if one.state is LiveState.LAST_GOOD]
    return max(good or served, key=lambda one: one.serving_since_s or one.created_s, default=None)


def not_again(state: Glance, last: LiveDeployment, vetoed: frozenset[str], at_s: float) -> frozenset[str]:
    """Of ``vetoed`` layouts, as they print, those that an outage heeds: what served last may be tried, unless a human
    refused it, or one like it failed since, a short while ago."""
    layout = str(last.deployment)
    failed = any(
        one.state is LiveState.FAILED
        and str(one.deployment) == layout
        and one.created_s > last.created_s
        and at_s - (one.ended_s or one.created_s) < RETRY_S
        for one in state.lives
    )
    return vetoed if failed or layout in state.said.vetoed else vetoed - {layout}


def restored(found: Outlook, vetoed: frozenset[Deployment]) -> Outlook:
    """Nothing is present; the best is what served last, where it fits and may be tried."""
    before = found.present
    if before is None or before.deployment in vetoed:
        return replace(found, present=None)
    regains = before.meets is not False
    return replace(found, present=None, best=before, gain=0.0, gain_per_hour=0.0, regains_slo=regains)
