"""What ``parlay explain --json`` prints: why a study's winner won, and why what was not launched lost nothing."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import Field

from tuner.app.answers.base import Answer
from tuner.app.answers.decision import OriginAnswer
from tuner.app.answers.devices import OnDevices
from tuner.app.answers.engine import EngineAnswer
from tuner.app.answers.infeasible import InfeasibleAnswer
from tuner.app.answers.layout_summary import BudgetAnswer, LayoutSummaryAnswer, SpentAnswer
from tuner.app.answers.plan import DroppedAnswer, RankedAnswer
from tuner.app.answers.stopping import StoppedAnswer
from tuner.explain.never_launched import FACTORS, NeverLaunched


class SafelyDroppedAnswer(DroppedAnswer):
    """One group of what never was launched."""

    why_safe: str = Field(description="Why nothing was lost by that.")


class LearntAnswer(Answer):
    """What the trials say of one price of the model."""

    term: str = Field(description="The price; ttft and tpot stand for what no term explains.")
    factor: float = Field(description="By which it has to be multiplied.")
    low: float = Field(description="Lower end of the factor's 95 % interval.")
    high: float = Field(description="Upper end of it.")
    prior_low: float = Field(description="Lower end before any trial.")
    prior_high: float = Field(description="Upper end before any trial.")


class RivalAnswer(Answer):
    """Who would win if times were shorter than the model says."""

    factor: float = Field(description="How many times shorter.")
    count: int = Field(description="Layouts that would then win.")
    layout: str = Field(description="The smallest of them.")


class NeverLaunchedAnswer(Answer):
    """What was never launched, held against the winner."""

    fitting: int = Field(description="Deployments that fit and were never launched.")
    model_corrected_times: float = Field(description="By what was measured, the model's times were multiplied by this.")
    factors_looked_at: list[float] = Field(description="How many times shorter times were supposed.")
    would_win: list[RivalAnswer] = Field(description="By factor, where there are more than at the one before.")


class ExplainAnswer(OriginAnswer, OnDevices):
    """The pieces of an explanation."""

    study: str = Field(description="The study's name.")
    ended: bool = Field(description="False: not decided yet, this is how its trials stand.")
    why: str = Field(description="Why the winner won, or by how much the best layout misses.")
    remedy: str | None = Field(description="What would have to change; null where a layout meets the SLO.")
    stopped: StoppedAnswer | None = Field(description="Why no more was launched; null of a study that goes on.")
    standings: list[LayoutSummaryAnswer] = Field(description="Measured layouts with all their runs, best first.")
    layouts: list[RankedAnswer] = Field(description="The layouts that are explained.")
    dropped: list[SafelyDroppedAnswer] = Field(description="What never was launched, group by group.")
    kept_but_not_launched: int = Field(description="Candidates that were kept and not launched either.")
    learnt: list[LearntAnswer] = Field(description="Prices that the trials moved or made surer.")
    untried: NeverLaunchedAnswer | None = Field(description="Null without a winner, or where one layout is explained.")
    infeasible: InfeasibleAnswer | None = Field(description="Why no layout meets the SLO; null where one does.")
    spent: SpentAnswer = Field(description="What the study used.")
    budget: BudgetAnswer = Field(description="What it might use.")
    engine: EngineAnswer = Field(description="The engine that was measured.")


def never_launched_answer(found: NeverLaunched) -> NeverLaunchedAnswer:
    """What was never launched, held against the winner."""
    return NeverLaunchedAnswer(
        fitting=found.fitting,
        model_corrected_times=found.slower,
        factors_looked_at=list(FACTORS),
        would_win=[RivalAnswer(**asdict(rival)) for rival in found.rivals],
    )
