"""What is to be done about what is deployed: nothing, hold, tune again, move, or an emergency.

The order of weight: a layout that cannot run any more, then the SLO, then what a change saves over the horizon beside
what tuning and moving cost. What is blind never acts, except that a layout without the nodes it needs is replaced.
Nothing is kept between two judgements: the same situation is judged alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tuner.retune import holds, measuring
from tuner.retune.holds import Hold
from tuner.retune.judgement import Action, HeldBy, Judgement, LayoutOutlook, Outlook
from tuner.retune.outlook import LIKELY, SURE, doubtful, likelihood
from tuner.retune.policy import RetunePolicy
from tuner.retune.situation import Situation


@dataclass(frozen=True, slots=True)
class _Case:
    """What speaks for a change: in words, ``urgent`` where it is for the SLO; ``short`` says what it lacks."""

    why: str
    urgent: bool
    short: str | None = None


def judge(situation: Situation, policy: RetunePolicy, outlook: Outlook | None) -> Judgement:
    """``outlook`` is what a change could bring, asked for where the situation has a ``reason``; None where nobody had
    to ask, or the model could not say."""
    blind, reason = tuple(holds.blind(situation)), situation.reason
    if outlook is not None and outlook.present is None and reason is not None:
        return _emergency(situation, policy, outlook, reason)
    if reason is None:
        if blind:
            return _held(situation, outlook, "nothing can be said of what serves", blind)
        return Judgement(Action.NOTHING, "Nothing has changed that the decision rests on.", situation.at_s, {}, outlook)
    if outlook is None or outlook.present is None:
        unknown = (HeldBy.BLIND, "what another layout would bring cannot be said")
        return _held(situation, outlook, reason, (*holds.standing(situation), *blind, unknown))
    case = _case(situation, outlook, outlook.present, policy)
    if case is None:
        if blind:
            return _held(situation, outlook, reason, (*holds.standing(situation), *blind))
        why = f"{_sentence(reason)} No other layout is expected to do better than {outlook.present.deployment}."
        return Judgement(Action.NOTHING, why, situation.at_s, {}, outlook, situation.notices)
    return _change(situation, policy, outlook, case, (reason, blind))


def _emergency(situation: Situation, policy: RetunePolicy, outlook: Outlook, reason: str) -> Judgement:
    """The present layout cannot run on what is left: the best that fits now, measured or not."""
    best = outlook.best
    if best is None:
        none = (HeldBy.NO_ROOM, "no layout of the space fits what is left of the cluster")
        return _held(situation, outlook, reason, (*holds.standing(situation), none))
    held = (
        *holds.standing(situation),
        *holds.vetoed(situation, best),
        *holds.consent(situation, policy.emergency, best.deployment),
    )
    does = f"{best.deployment} on {best.gpus} GPUs is the best that fits now, {_known(best)}"
    if not outlook.regains_slo:
        does += ", though it is not expected to meet the SLO"
    if held:
        return _held(situation, outlook, f"{reason}; {does}", held)
    lost = "" if situation.outage is not None else "The present layout cannot run on what is left; "
    why = f"{_sentence(reason)} {lost}{does}."
    return Judgement(Action.EMERGENCY, why, situation.at_s, {}, outlook, situation.notices)


def _change(
    situation: Situation, policy: RetunePolicy, outlook: Outlook, case: _Case, told: tuple[str, tuple[Hold, ...]]
) -> Judgement:
    """``told`` is the reason for it, and what is blind."""
    best, (reason, blind) = outlook.best, told
    if case.short is not None and (to_try := measuring.to_measure(policy, outlook)) is not None:
        return _measures(situation, policy, to_try, reason, blind)
    action = _action(policy, outlook, case)
    held = [*holds.standing(situation), *blind]
    if best is not None:
        held += holds.vetoed(situation, best)
    if case.short is not None:
        held.append((HeldBy.GAIN, case.short))
    elif best is not None:
        for_slo = outlook.present is not None and outlook.present.meets is False
        held += holds.means(situation, policy, outlook, for_slo, action is Action.RETUNE)
        held += holds.waits(situation, policy, case.urgent)
        held += holds.consent(situation, policy.consent, best.deployment)
    if held:
        return _held(situation, outlook, f"{reason}; {case.why}", held)
    does = "It is tuned again" if action is Action.RETUNE else "It is rolled out"
    why = f"{_sentence(reason)} {does}: {case.why}."
    return Judgement(action, why, situation.at_s, {}, outlook, situation.notices)


def _measures(
    situation: Situation, policy: RetunePolicy, outlook: Outlook, reason: str, blind: tuple[Hold, ...]
) -> Judgement:
    held = [*holds.standing(situation), *blind, *measuring.held(situation, policy, outlook)]
    best = outlook.best
    if held or best is None:
        return _held(situation, outlook, f"{reason}; {measuring.WHY}", held)
    begins = f"a round measures, beginning with {best.deployment} on {best.gpus} GPUs"
    why = f"{_sentence(reason)} It is tuned again by measurement: {measuring.WHY}; {begins}."
    return Judgement(Action.RETUNE, why, situation.at_s, {}, outlook, situation.notices, measures=True)


def _case(situation: Situation, outlook: Outlook, present: LayoutOutlook, policy: RetunePolicy) -> _Case | None:
    """What speaks for the best layout; None where nothing does."""
    best = outlook.best
    if present.meets is False:
        return _for_the_slo(outlook, present, policy)
    if situation.measured and doubtful(present) and best is not None and likelihood(best) >= SURE:
        ahead = f"{present.deployment} will meet the SLO with a probability of {likelihood(present):.0%}"
        return _Case(f"{ahead}, {best.deployment} on {best.gpus} GPUs meets it, {_known(best)}", False)
    if best is None or likelihood(best) < LIKELY or outlook.gain <= 0:
        return None
    hours = pays_back_hours(outlook)
    saves = f"{best.deployment} saves {outlook.gain:.0%}, {_known(best)}, and pays back in {hours:.1f} h"
    if outlook.gain < policy.least_gain:
        return _Case(saves, False, f"a gain of {outlook.gain:.1%}; {policy.least_gain:.1%} is the least")
    if hours > policy.horizon_hours:
        return _Case(
            saves, False, f"a gain would have to last {hours:.0f} h; {policy.horizon_hours:g} h are counted on"
        )
    return _Case(saves, False)


def _for_the_slo(outlook: Outlook, present: LayoutOutlook, policy: RetunePolicy) -> _Case:
    """The present layout misses the SLO: one that meets it, else one that carries clearly more. Where nobody saw
    that it does, and only the model expects it, that can wait."""
    best, seen = outlook.best, present.chance is None
    missed = "the SLO is missed" if seen else "the SLO is expected to be missed"
    if best is None:
        return _Case(missed, seen, "no other layout of the space fits the cluster")
    if outlook.regains_slo:
        return _Case(f"{best.deployment} on {best.gpus} GPUs meets the SLO again, {_known(best)}", seen)
    if carries_more(policy, outlook):
        now, then = present.goodput_req_per_s or 0.0, best.goodput_req_per_s or 0.0
        return _Case(f"none meets the SLO, {best.deployment} carries {then:.3g} requests/s instead of {now:.3g}", seen)
    return _Case(missed, seen, "no other layout is expected to meet it, or to carry clearly more")


def carries_more(policy: RetunePolicy, outlook: Outlook) -> bool:
    """Is the best expected to carry clearly more than the present one?"""
    rates = (None if one is None else one.goodput_req_per_s for one in (outlook.present, outlook.best))
    now, then = (rate or 0.0 for rate in rates)
    return then > now * (1 + max(policy.least_gain, _CLEARLY))


_CLEARLY = 0.05  # more requests/s within the SLO


def pays_back_hours(outlook: Outlook) -> float:
    """How long a gain has to last to be worth tuning and moving, with the chance that it comes to nothing."""
    best, present = outlook.best, outlook.present
    if best is None or present is None or outlook.gain_per_hour <= 0:
        return float("inf")
    price = 1.0 if present.usd_per_hour is None or not present.gpus else present.usd_per_hour / present.gpus
    cost = (outlook.tuning_gpu_hours + outlook.moving_gpu_hours) * price
    return cost / (max(likelihood(best), 0.01) * outlook.gain_per_hour)


def _action(policy: RetunePolicy, outlook: Outlook, case: _Case) -> Action:
    """What was measured is rolled out. So is what is not, where the SLO is missed: a canary measures it in minutes, a
    round of the study takes longer; and where no trials are allowed, if it is sure enough."""
    best = outlook.best
    if best is None or best.measured or case.urgent:
        return Action.MOVE
    return Action.MOVE if policy.trials == "never" and likelihood(best) >= SURE else Action.RETUNE


def _known(best: LayoutOutlook) -> str:
    return "as was measured" if best.measured else f"with a probability of {likelihood(best):.0%}"


def _held(situation: Situation, outlook: Outlook | None, reason: str, held: Iterable[Hold]) -> Judgement:
    """The first of each kind of hold tells."""
    by: dict[HeldBy, str] = {}
    for kind, words in held:
        by.setdefault(kind, words)
    why = f"{_sentence(reason)} Held: {'; '.join(by.values())}."
    return Judgement(Action.HOLD, why, situation.at_s, by, outlook, situation.notices)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
