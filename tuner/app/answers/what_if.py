"""What a plan would be if the engine had techniques that it lacks: part of the answer of ``parlay plan``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Literal

from pydantic import Field

from tuner.app.answers.base import Answer, Scalar, where_it_applies
from tuner.cost.techniques import Technique
from tuner.plan.what_if import Effect, PricedLayout, WhatIf


class TechniqueAnswer(Answer):
    """One technique of the literature."""

    name: str = Field(description="Its name.")
    given: str = Field(description="As it was asked for, with its value.")
    setting: dict[str, Scalar] = Field(description="Its values by name.")
    source: str = Field(description="Where it was published.")
    acts_on: str = Field(description="What it can change.")
    priced: str = Field(description="By which formula it is priced.")
    exact: bool = Field(description="Whether the model's outputs stay the same.")
    outputs: str = Field(description="Why they do, or do not.")
    emittable: Literal[False] = Field(description="Always false: vLLM runs none of them.")
    why_not_emittable: str = Field(description="What vLLM lacks.")


class AsideAnswer(Answer):
    """One layout as the model sees it at the asked rate; its figures are null where it cannot carry that rate."""

    layout: str = Field(description="The layout.")
    gpus: int = Field(description="Devices of the whole deployment.")
    meets_slo: bool = Field(description="Whether every target holds at the asked rate.")
    ttft_ms: float | None = Field(description="Mean TTFT, ms.")
    tpot_ms: float | None = Field(description="Mean TPOT, ms.")
    e2e_ms: float | None = Field(description="Mean E2E latency, ms.")
    goodput_req_per_s: float | None = Field(description="Highest rate within the SLO, requests/s.")
    dropped: str | None = Field(description="Why the model would not keep it; null where it would.")


class GainAnswer(Answer):
    """The objective's figure under both prices, in the unit of its name."""

    without: float | None = Field(description="Of the best layout without the techniques.")
    same_layout_with: float | None = Field(description="Of the same layout with them.")
    best_with: float | None = Field(description="Of the best layout with them.")
    gain: float | None = Field(description="How many times better the best became; null where there is no ratio.")


class TermAnswer(Answer):
    """One term of a latency under both prices, ms."""

    without: float = Field(description="Without the techniques, ms.")
    with_: float = Field(alias="with", description="With them, ms.")


class TermsAnswer(Answer):
    """The terms that moved, of one request alone on the best layout without the techniques."""

    ttft_ms: dict[str, TermAnswer] = Field(description="Of TTFT, ms.")
    tpot_ms: dict[str, TermAnswer] = Field(description="Of TPOT, ms.")


class EffectAnswer(Answer):
    """What some techniques change. The key of the objective's figure is there alone of the three."""

    techniques: list[str] = Field(description="Which, as they were asked for.")
    exact: bool = Field(description="Whether the model's outputs stay the same.")
    another_layout_wins: bool = Field(description="Whether the best layout is a different one.")
    layouts_changed: int = Field(description="Ranked layouts whose figures moved.")
    best_without: AsideAnswer | None = Field(description="The best layout without them; null: all were dropped.")
    same_layout_with: AsideAnswer | None = Field(description="The same layout with them.")
    best_with: AsideAnswer | None = Field(description="The best layout with them; null: all were dropped.")
    best_with_layout_without: AsideAnswer | None = Field(description="The same layout without them.")
    gpus: GainAnswer | None = where_it_applies("Devices, where they are the objective.")
    goodput_req_per_s: GainAnswer | None = where_it_applies("Requests/s, where they are the objective.")
    e2e_ms: GainAnswer | None = where_it_applies("Mean E2E latency in ms, where it is the objective.")
    terms_changed: TermsAnswer = Field(description="Where the change comes from.")


class WhatIfAnswer(Answer):
    """One effect per technique, and one for all of them together where there are several."""

    emittable: Literal[False] = Field(description="Always false: this is for thought.")
    objective: str = Field(description="The request's first objective.")
    figure: str = Field(description="The key of its figure in the effects: gpus, goodput_req_per_s or e2e_ms.")
    techniques: list[TechniqueAnswer] = Field(description="The techniques that were supposed.")
    effects: list[EffectAnswer] = Field(description="What they change.")


def what_if_answer(supposed: WhatIf) -> WhatIfAnswer:
    """The techniques and their effects."""
    return WhatIfAnswer(
        emittable=False,
        objective=supposed.objective.value,
        figure=supposed.figure,
        techniques=[_technique(one) for one in supposed.techniques],
        effects=[_effect(effect, supposed.figure) for effect in supposed.effects],
    )


def _technique(one: Technique) -> TechniqueAnswer:
    return TechniqueAnswer(
        name=one.name,
        given=str(one),
        setting=asdict(one),
        source=one.source,
        acts_on=one.acts_on,
        priced=one.priced,
        exact=one.exact,
        outputs=one.outputs,
        emittable=False,
        why_not_emittable=one.missing,
    )


def _effect(effect: Effect, figure: str) -> EffectAnswer:
    gain = GainAnswer(**effect.figures(figure))
    return EffectAnswer(
        techniques=list(effect.techniques),
        exact=effect.exact,
        another_layout_wins=effect.another_wins,
        layouts_changed=effect.changed,
        best_without=_aside(effect.before),
        same_layout_with=_aside(effect.before_with),
        best_with=_aside(effect.after),
        best_with_layout_without=_aside(effect.after_without),
        gpus=gain if figure == "gpus" else None,
        goodput_req_per_s=gain if figure == "goodput_req_per_s" else None,
        e2e_ms=gain if figure == "e2e_ms" else None,
        terms_changed=TermsAnswer(ttft_ms=_terms(effect.ttft_ms), tpot_ms=_terms(effect.tpot_ms)),
    )


def _aside(priced: PricedLayout | None) -> AsideAnswer | None:
    if priced is None:
        return None
    return AsideAnswer(
        layout=str(priced.layout),
        gpus=priced.gpus,
        meets_slo=priced.meets_slo,
        ttft_ms=priced.ttft_ms,
        tpot_ms=priced.tpot_ms,
        e2e_ms=priced.e2e_ms,
        goodput_req_per_s=priced.goodput_req_per_s,
        dropped=priced.dropped,
    )


def _terms(pairs: Mapping[str, tuple[float, float]]) -> dict[str, TermAnswer]:
    return {
        name: TermAnswer.model_validate({"without": without, "with": with_them})
        for name, (without, with_them) in pairs.items()
    }
