"""How one look stood, in a word and a sentence, for whoever glances at it."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.rollout.machine import Progress
from tuner.app.answers.watch import StandingAnswer, judgement_answer, notice_answer
from tuner.retune.judgement import Action, HeldBy, Judgement
from tuner.retune.notice import Notice, NoticeKind
from tuner.retune.rollout import ENDS


def standing(
    at_s: float,
    notices: Sequence[Notice],
    judgement: Judgement | None,
    progress: Progress | None,
    acted: Sequence[str],
    under_way: str | None,
    problem: str | None = None,
) -> StandingAnswer:
    """``under_way``: a round that is being decided, in words."""
    state, text = _state(notices, judgement, progress, acted, under_way, problem)
    return StandingAnswer(
        at=at_s,
        state=state,
        text=text,
        notices=[notice_answer(one) for one in notices],
        judgement=None if judgement is None else judgement_answer(judgement),
        problem=problem,
        acted=list(acted),
    )


def _state(
    notices: Sequence[Notice],
    judgement: Judgement | None,
    progress: Progress | None,
    acted: Sequence[str],
    under_way: str | None,
    problem: str | None,
) -> tuple[str, str]:
    if problem is not None:
        return "failed", problem
    rollout = None if progress is None else progress.rollout
    if rollout is not None and rollout.step not in ENDS:
        waits = "" if progress is None or progress.waits is None else f": {progress.waits.why}"
        held = progress is not None and progress.waits is not None and progress.waits.held
        text = f"rollout {rollout.number} to {rollout.new} is {rollout.step.value.replace('_', ' ')}{waits}"
        return ("held" if held else "acting"), text
    if acted:
        return "acting", acted[-1]
    if under_way is not None:
        return "acting", under_way
    if judgement is None:
        return "well", "nothing serves yet"
    if judgement.action is Action.NOTHING:
        return ("noticed" if any(one.kind is not NoticeKind.BLIND for one in notices) else "well"), judgement.why
    if HeldBy.BLIND not in judgement.held_by or any(one.kind is not NoticeKind.BLIND for one in notices):
        return "held", judgement.why
    return "blind", judgement.why
