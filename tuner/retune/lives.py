"""What becomes of deployments as a rollout goes on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tuner.retune.live import LiveDeployment, LiveState
from tuner.retune.rollout import Rollout, Step

_GETS_TRAFFIC = frozenset({Step.CANARY, Step.PROMOTING})


def lives_after(
    rollout: Rollout, lives: Iterable[LiveDeployment], now_s: float, *, proven: bool = False
) -> tuple[LiveDeployment, ...]:
    """Those of a study's deployments that change as its rollout comes to its step, as they are then.

    ``proven``: a canary said that the new one is good. What was good and is replaced is the last good one; the one
    before it ends. A step that is come to again changes nothing.
    """
    known = tuple(lives)
    changed = (_after(one, rollout, known, now_s, proven) for one in known)
    return tuple(after for after, before in zip(changed, known, strict=True) if after != before)


def _after(
    one: LiveDeployment, rollout: Rollout, known: tuple[LiveDeployment, ...], now_s: float, proven: bool
) -> LiveDeployment:
    if one.name == rollout.new:
        return _new(one, rollout.step, now_s, proven)
    if one.name == rollout.old:
        return _old(one, rollout.step, now_s)
    old_was_good = any(other.name == rollout.old and other.good for other in known)
    if one.state is LiveState.LAST_GOOD and rollout.step is Step.DONE and old_was_good:
        return replace(one, state=LiveState.ENDED)
    return one


def _new(one: LiveDeployment, step: Step, now_s: float, proven: bool) -> LiveDeployment:
    if step in _GETS_TRAFFIC or step is Step.DONE:
        since_s = now_s if one.serving_since_s is None else one.serving_since_s
        return replace(one, state=LiveState.SERVING, serving_since_s=since_s, good=one.good or proven)
    if step in (Step.ROLLED_BACK, Step.FAILED) and one.state is not LiveState.FAILED:
        return replace(one, state=LiveState.FAILED, ended_s=now_s, good=False)
    return one


def _old(one: LiveDeployment, step: Step, now_s: float) -> LiveDeployment:
    if step in (Step.DONE, Step.FAILED) and one.state is LiveState.SERVING:
        end = LiveState.LAST_GOOD if one.good else LiveState.ENDED if step is Step.DONE else LiveState.FAILED
        return replace(one, state=end, ended_s=now_s)
    if step is Step.ROLLED_BACK:
        return replace(one, state=LiveState.SERVING, ended_s=None)
    return one
