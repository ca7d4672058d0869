"""What if the engine had a technique of the literature: would another layout win, and by how much?

The space is planned without techniques, with each alone, and with all of them together. The answer is for thought:
vLLM runs none of them, so nothing here can be launched or emitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tuner.ask.cluster import Cluster
from tuner.ask.layout import SPACE_AXES, ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.request import Objective, TuneRequest
from tuner.ask.space import Space
from tuner.cost.breakdown import breakdown
from tuner.cost.latency import StepCosts
from tuner.cost.switches import EngineSwitches
from tuner.cost.techniques import NONE, Technique, Techniques
from tuner.errors import BadInput
from tuner.plan.prune import Candidate, Plan, plan

_FIGURES = {Objective.MAX_GOODPUT: "goodput_req_per_s", Objective.MIN_LATENCY: "e2e_ms"}


@dataclass(frozen=True, slots=True)
class PricedLayout:
    """One layout as the model sees it at the asked rate: ms and requests/s, None where it cannot carry that rate.

    ``dropped`` says why the model would not keep it; its figures are None then.
    """

    layout: ParallelLayout
    gpus: int
    meets_slo: bool
    ttft_ms: float | None
    tpot_ms: float | None
    e2e_ms: float | None
    goodput_req_per_s: float | None
    dropped: str | None = None


@dataclass(frozen=True, slots=True)
class Effect:
    """What some techniques change. ``before`` is the best layout without them and ``after`` the best with them (None:
    every layout was dropped); ``before_with`` and ``after_without`` are the same two layouts under the other price.

    ``changed`` counts the ranked layouts whose figures moved. ``ttft_ms`` and ``tpot_ms`` hold the terms of one request
    alone on the layout ``before`` that moved, in ms: (without, with).
    """

    techniques: tuple[str, ...]
    exact: bool
    before: PricedLayout | None
    before_with: PricedLayout | None
    after: PricedLayout | None
    after_without: PricedLayout | None
    changed: int
    ttft_ms: Mapping[str, tuple[float, float]]
    tpot_ms: Mapping[str, tuple[float, float]]

    @property
    def another_wins(self) -> bool:
        """Is the best layout a different one?"""
        return self.after is not None and (self.before is None or self.after.layout != self.before.layout)

    def figures(self, name: str) -> dict[str, float | None]:
        """The objective's figure: the best layout without and with, the same layout with, and the gain of the best."""
        without, same, best = (
            getattr(one, name) if one else None for one in (self.before, self.before_with, self.after)
        )
        gain = None
        if without is not None and best is not None and without > 0 and best > 0:
            gain = best / without if name == "goodput_req_per_s" else without / best
        return {"without": without, "same_layout_with": same, "best_with": best, "gain": gain}


@dataclass(frozen=True, slots=True)
class WhatIf:
    """The answer: one effect per technique, and one for all together where there are several.

    ``figure`` is the objective's: ``gpus``, ``goodput_req_per_s`` or ``e2e_ms``.
    """

    objective: Objective
    figure: str
    techniques: tuple[Technique, ...]
    effects: tuple[Effect, ...]

    def summary(self) -> list[str]:
        """Some lines for people: per effect who wins and by how much, then what each technique is."""
        lines = [f"{' + '.join(effect.techniques)}: {self._verdict(effect)}" for effect in self.effects]
        for one in self.techniques:
            lines.append(f"  {one}, from {one.source}: {one.outputs}. vLLM cannot run it: {one.missing}.")
        return lines

    def _verdict(self, effect: Effect) -> str:
        if not effect.changed:
            acts = [one.acts_on for one in self.techniques if str(one) in effect.techniques]
            return f"changes no layout of the ranking (it acts on {'; '.join(acts)})"
        if effect.after is None:
            return "every layout is still dropped"
        if effect.before is None or effect.before_with is None:
            return f"{effect.after.layout} is left, where nothing was without"
        if not effect.another_wins:
            same = _change(effect.before, effect.before_with, self.figure)
            return f"the same layout wins, {same or 'with the figures that it has without'}"
        if effect.before_with.dropped:
            return f"another layout wins, {effect.after.layout}; the winner so far is dropped"
        ahead = _change(effect.before_with, effect.after, self.figure) or "at equal figures"
        gained = _change(effect.before, effect.after, self.figure)
        than = f", {gained} than the best without it" if gained else ""
        return f"another layout wins, {effect.after.layout}: {ahead} than the winner so far would be with it{than}"


_WORDS = {
    "gpus": ("fewer devices", "more devices"),
    "e2e_ms": ("less E2E latency", "more E2E latency"),
    "goodput_req_per_s": ("less goodput", "more goodput"),
}


def _change(old: PricedLayout, new: PricedLayout, figure: str) -> str:
    """By how much a layout's figure is another; the E2E latency where that is equal. Empty where both are."""
    for name in (figure, "e2e_ms"):
        was, now = getattr(old, name), getattr(new, name)
        if was is not None and now is not None and abs(now - was) > 1e-9 * was:
            digits, share = 0 if name == "gpus" else 2, f"{abs(now / was - 1):.1%} " if was else ""
            return f"{share}{_WORDS[name][now > was]} ({was:,.{digits}f} → {now:,.{digits}f})"
    return ""


@dataclass(frozen=True, slots=True)
class _Question:
    request: TuneRequest
    model: ModelShape
    cluster: Cluster
    space: Space

    def plan(self, techniques: Techniques) -> Plan:
        return plan(self.request, self.model, self.cluster, self.space, techniques=techniques)

    def priced(self, candidate: Candidate) -> PricedLayout:
        p, decoded = candidate.prediction, max(self.request.workload.output_tokens.mean - 1, 0)
        e2e_ms = None if p.ttft_ms is None or p.tpot_ms is None else p.ttft_ms + p.tpot_ms * decoded
        layout = candidate.layout
        return PricedLayout(layout, layout.devices, p.meets_slo, p.ttft_ms, p.tpot_ms, e2e_ms, p.goodput_req_per_s)

    def alone(self, layout: ParallelLayout, techniques: Techniques) -> PricedLayout:
        """One layout, whatever its place in the ranking."""
        point = Space("one layout", {axis: (getattr(layout, axis),) for axis in SPACE_AXES})
        try:
            found = plan(self.request, self.model, self.cluster, point, techniques=techniques)
        except BadInput as error:  # no rule of the engine lets it be
            return PricedLayout(layout, layout.devices, False, None, None, None, None, str(error.given))
        if found.ranked:
            return self.priced(found.ranked[0])
        figure = found.dropped[0].figure
        return PricedLayout(layout, layout.devices, False, None, None, None, None, figure)

    def terms(self, layout: ParallelLayout, techniques: Techniques) -> tuple[dict[str, tuple[float, float]], ...]:
        """Terms of TTFT and of TPOT that the techniques move on one layout: (without, with), in ms."""
        switches = EngineSwitches.asked(self.request.engine)
        costs = (StepCosts(self.model, self.cluster, switches=switches, techniques=one) for one in (NONE, techniques))
        without, with_them = (breakdown(one, layout, self.request) for one in costs)
        found = []
        for old, new in ((without.ttft_ms, with_them.ttft_ms), (without.tpot_ms, with_them.tpot_ms)):
            pairs = {name: (old.get(name, 0.0), new.get(name, 0.0)) for name in dict.fromkeys([*old, *new])}
            found.append({name: pair for name, pair in pairs.items() if pair[0] != pair[1]})
        return tuple(found)


def what_if(request: TuneRequest, model: ModelShape, cluster: Cluster, space: Space, techniques: Techniques) -> WhatIf:
    """Plan with and without each technique, and with all of them.

    Raises ``BadInput`` for no technique at all, for one that means nothing for the model or the cluster, and as
    ``plan`` does.
    """
    if not techniques:
        raise BadInput("--what-if", "nothing", "at least one technique")
    techniques.check(model, cluster)
    question = _Question(request, model, cluster, space)
    base = question.plan(NONE)
    asked = [Techniques((one,)) for one in techniques.items]
    asked += [techniques] if len(techniques.items) > 1 else []
    effects = tuple(_effect(question, base, some) for some in asked)
    figure = _FIGURES.get(request.objective, "gpus")
    return WhatIf(request.objective, figure, techniques.items, effects)


def _effect(question: _Question, base: Plan, techniques: Techniques) -> Effect:
    found = question.plan(techniques)
    known = {candidate.layout: candidate.prediction for candidate in base.ranked}
    changed = sum(known.get(candidate.layout) != candidate.prediction for candidate in found.ranked)
    before = question.priced(base.ranked[0]) if base.ranked else None
    after = question.priced(found.ranked[0]) if found.ranked else None
    ttft_ms, tpot_ms = question.terms(before.layout, techniques) if before else ({}, {})
    return Effect(
        techniques=techniques.names,
        exact=all(one.exact for one in techniques.items),
        before=before,
        before_with=question.alone(before.layout, techniques) if before else None,
        after=after,
        after_without=question.alone(after.layout, NONE) if after else None,
        changed=changed,
        ttft_ms=ttft_ms,
        tpot_ms=tpot_ms,
    )
