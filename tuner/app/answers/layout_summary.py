"""Where a measured layout stands, and what a study spent: parts of a decision and of its explanation."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import Field

from tuner.app.answers.base import Answer, Interval
from tuner.ask.request import Budget, TuneRequest
from tuner.decide.layout_summary import LayoutSummary, Spread
from tuner.trial.ledger import Spent


class SpreadAnswer(Answer):
    """A figure over the runs of a layout, in the unit of its key; null of no run."""

    mean: float | None = Field(description="Mean over the runs.")
    low: float | None = Field(description="The lowest of them.")
    high: float | None = Field(description="The highest of them.")
    runs: int = Field(description="How many they are.")
    interval: Interval | None = Field(description="95 % interval of a single run, where it could be given.")


class TargetSpreadAnswer(SpreadAnswer):
    """A target of the SLO: its value over the runs, ms."""

    target: str = Field(description="The target in words.")


class LayoutSummaryAnswer(Answer):
    """One layout with all its runs."""

    layout: str = Field(description="The layout.")
    gpus: int = Field(description="Its devices.")
    meets_slo: bool = Field(description="Whether it meets the SLO at the asked rate over all runs.")
    runs: int = Field(description="Trials that were measured.")
    failed: int = Field(description="Trials that failed.")
    confirmed: bool | None = Field(description="Whether confirmation runs held too; null where none showed anything.")
    held_req_per_s: float | None = Field(description="Highest rate that a run met and none contradicts, requests/s.")
    at_req_per_s: float | None = Field(
        description="Rate of the figures below, requests/s: the one at which layouts are compared; where it held "
        "none, the lowest that it missed."
    )
    slo: list[TargetSpreadAnswer] = Field(description="Target by target, ms.")
    e2e_ms: SpreadAnswer = Field(description="Mean E2E latency, ms.")
    goodput_req_per_s: SpreadAnswer = Field(description="Goodput at the highest held rate, requests/s.")
    attainment: float | None = Field(description="Share of all requests that met every target, 0 to 1.")
    attainment_interval: Interval | None = Field(description="Its 95 % interval.")
    usd_per_hour: float | None = Field(description="Price of its devices, US dollars per hour; null: none is known.")
    usd_per_million_tokens: float | None = Field(description="US dollars per million output tokens, as measured.")


class SpentAnswer(Answer):
    """What a study used."""

    launches: int = Field(description="Trials begun, those that were lost not counted.")
    minutes: float = Field(description="Minutes of the study's own time.")
    gpu_hours: float = Field(description="Hours of devices held, those of lost trials too.")
    usd: float | None = Field(description="US dollars; null where a device has no price.")
    lost: int = Field(description="Trials cut short and begun again; their GPU-hours and price are in the sums.")


class BudgetAnswer(Answer):
    """What it might use; null: no limit."""

    launches: int = Field(description="Trials.")
    minutes: float = Field(description="Minutes.")
    gpu_hours: float | None = Field(description="Hours of devices held.")
    usd: float | None = Field(description="US dollars.")


def layout_summary_answer(summary: LayoutSummary, request: TuneRequest) -> LayoutSummaryAnswer:
    """One layout with all its runs; spreads over them in ms, requests/s and tokens/s."""
    return LayoutSummaryAnswer(
        layout=str(summary.deployment),
        gpus=summary.deployment.devices,
        meets_slo=summary.meets,
        runs=summary.runs,
        failed=summary.failures,
        confirmed=summary.confirmed,
        held_req_per_s=summary.held_req_per_s,
        at_req_per_s=summary.at_req_per_s,
        slo=[
            TargetSpreadAnswer(target=str(target), **dict(_spread(summary.slo_ms.get(target.key))))
            for target in request.slo
        ],
        e2e_ms=_spread(summary.e2e_ms),
        goodput_req_per_s=_spread(summary.goodput),
        attainment=summary.attainment,
        attainment_interval=summary.attainment_interval,
        usd_per_hour=summary.usd_per_hour,
        usd_per_million_tokens=summary.usd_per_million_tokens,
    )


def _spread(spread: Spread | None) -> SpreadAnswer:
    if spread is None:
        return SpreadAnswer(mean=None, low=None, high=None, runs=0, interval=None)
    return SpreadAnswer(**asdict(spread))


def spent_answer(spent: Spent) -> SpentAnswer:
    """What a study used of its budgets."""
    return SpentAnswer(**asdict(spent))


def budget_answer(budget: Budget) -> BudgetAnswer:
    """The budgets."""
    return BudgetAnswer(
        launches=budget.launches, minutes=budget.minutes, gpu_hours=budget.gpu_hours, usd=budget.usd
    )  # fmt: skip
