"""The parts of the report that show measured layouts over all their runs, the Pareto front, and the budgets."""

from __future__ import annotations

from collections.abc import Mapping

from deploy.report.study_data import ShownBudget, ShownLayoutSummary, ShownSpread, metric_key
from tuner.app.tune.tables import runs_of
from tuner.ask.deployment import Deployment
from tuner.ask.request import Objective, TuneRequest
from tuner.decide.decision import Decision
from tuner.decide.layout_summary import LayoutSummary, Spread, front, front_axes

_TITLES = {
    Objective.MIN_GPUS: "devices",
    Objective.MIN_COST: "US dollars per hour",
    Objective.MAX_GOODPUT: "goodput, requests/s",
    Objective.MIN_LATENCY: "mean E2E latency, ms",
}


def axis_titles(decision: Decision, request: TuneRequest) -> tuple[str, str] | None:
    """What the axes of the Pareto front show; None where no layout meets the SLO."""
    if decision.winner is None:
        return None
    one, other = front_axes(request)
    return _TITLES[one], _TITLES[other]


def summaries_shown(
    decision: Decision, request: TuneRequest, names: Mapping[Deployment, str]
) -> tuple[ShownLayoutSummary, ...]:
    """Every measured layout, best first."""
    best = {summary.deployment for summary in front(request, decision.standings)}
    return tuple(_shown(one, request, names[one.deployment], one.deployment in best) for one in decision.standings)


def _shown(summary: LayoutSummary, request: TuneRequest, name: str, on_front: bool) -> ShownLayoutSummary:
    one, other = front_axes(request)
    return ShownLayoutSummary(
        layout=name,
        devices=summary.deployment.devices,
        meets_slo=summary.meets,
        runs=runs_of(summary),
        held_req_per_s=summary.held_req_per_s,
        at_req_per_s=summary.at_req_per_s,
        slo_ms={
            metric_key(target.metric.value, target.percentile): _spread(summary.slo_ms.get(target.key))
            for target in request.slo
        },
        attainment=summary.attainment,
        attainment_at_least=summary.attainment_interval[0] if summary.attainment_interval else None,
        usd_per_hour=summary.usd_per_hour,
        usd_per_million_tokens=summary.usd_per_million_tokens,
        at=(_on_axis(summary, one), _on_axis(summary, other)),
        on_front=on_front,
    )


def _on_axis(summary: LayoutSummary, axis: Objective) -> ShownSpread | None:
    if axis is Objective.MAX_GOODPUT:
        return _spread(summary.goodput)
    if axis is Objective.MIN_LATENCY:
        return _spread(summary.e2e_ms)
    value = float(summary.deployment.devices) if axis is Objective.MIN_GPUS else summary.usd_per_hour
    return None if value is None else ShownSpread(value, value, value)


def _spread(spread: Spread | None) -> ShownSpread | None:
    if spread is None:
        return None
    low, high = (spread.low, spread.high) if spread.runs > 1 else spread.interval or (spread.mean, spread.mean)
    return ShownSpread(spread.mean, low, high)


def budgets_shown(decision: Decision, request: TuneRequest) -> tuple[ShownBudget, ...]:
    """Each budget and what was spent of it; those of which nothing is known are left out."""
    spent, budget = decision.spent, request.budget
    rows = (
        ("launches", float(spent.launches), float(budget.launches)),
        ("minutes", spent.minutes, budget.minutes),
        ("GPU-hours", spent.gpu_hours, budget.gpu_hours),
        ("US dollars", spent.usd, budget.usd),
    )
    return tuple(ShownBudget(name, value, limit) for name, value, limit in rows if value is not None)
