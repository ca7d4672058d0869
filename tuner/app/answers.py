"""The machine-readable answers (``--json``): plain dictionaries with stable keys, ready for ``json.dumps``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.request import TuneRequest
from tuner.cost.breakdown import Breakdown
from tuner.cost.paper import paper_volume
from tuner.cost.transfer import kv_links, kv_transfer_bytes
from tuner.cost.volume import Engine, request_operations, system_totals
from tuner.decide.decision import Decision
from tuner.decide.layout_summary import Spread, Standing
from tuner.explain.infeasible import Infeasible
from tuner.plan.prune import Candidate, DroppedGroup, Plan, Prediction
from tuner.plan.what_if import WhatIf
from tuner.rehearse.conditions import simulated_seed
from tuner.trial.launched import Launched
from tuner.trial.trial import StepResult, TrialResult


def volume_answer(
    model: ModelShape, layout: ParallelLayout, prompt_tokens: int, output_tokens: int, engine: Engine
) -> dict[str, Any]:
    """What one request sends: the paper's formulas, and every operation of one TP rank of each stage."""
    operations = request_operations(model, layout, prompt_tokens, output_tokens, engine)
    calls, sent = system_totals(layout, operations)
    rows = [
        {
            "phase": op.phase,
            "stage": op.stage,
            "operation": op.operation,
            "group": op.group,
            "ranks": op.ranks,
            "calls": op.calls,
            "shape": list(op.shape),
            "message_bytes": op.message_bytes,
            "where": op.where,
        }
        for op in operations
    ]
    return {
        "model": model.name,
        "layout": str(layout),
        "prompt_tokens": prompt_tokens,
        "output_tokens": output_tokens,
        "engine": engine,
        "paper": paper_volume(model, layout.tp, layout.pp, prompt_tokens, output_tokens).as_dict(),
        "operations": rows,
        "calls_all_ranks": calls,
        "sent_bytes_all_ranks": sent,
        "kv_transfer": {
            "bytes_per_request": kv_transfer_bytes(model, layout, prompt_tokens),
            "links": [asdict(link) for link in kv_links(model, layout, prompt_tokens)],
        },
    }


def plan_answer(
    plan: Plan,
    breakdowns: Mapping[ParallelLayout, Breakdown],
    supposed: WhatIf | None = None,
    reasons: Infeasible | None = None,
) -> dict[str, Any]:
    """The ranking; ``breakdown`` is None for candidates that were not broken down, ``what_if`` where nothing was
    supposed, ``infeasible`` where a layout meets the SLO."""
    return {
        "candidates": plan.candidates,
        "dropped": [dropped_answer(group) for group in plan.dropped],
        "ranked": [ranked_answer(candidate, breakdowns.get(candidate.layout)) for candidate in plan.ranked],
        "seconds": plan.seconds,
        "what_if": supposed.as_dict() if supposed else None,
        "infeasible": reasons.as_dict() if reasons else None,
    }


def dropped_answer(group: DroppedGroup) -> dict[str, Any]:
    """One group of dropped candidates."""
    return {
        "reason": group.reason.value,
        "count": group.count,
        "example": str(group.example),
        "figure": group.figure,
    }


def ranked_answer(candidate: Candidate, split: Breakdown | None) -> dict[str, Any]:
    """One ranked candidate."""
    prediction = candidate.prediction
    return {
        "layout": str(candidate.layout),
        "gpus": candidate.layout.devices,
        "gpu": candidate.layout.gpu,
        "usd_per_hour": candidate.usd_per_hour,
        "usd_per_million_tokens": candidate.usd_per_million_tokens,
        **prediction_answer(prediction),
        "breakdown": {"ttft_ms": dict(split.ttft_ms), "tpot_ms": dict(split.tpot_ms)} if split else None,
    }


def prediction_answer(prediction: Prediction) -> dict[str, Any]:
    """A prediction, in ms and requests/s."""
    return {
        "ttft_ms": prediction.ttft_ms,
        "tpot_ms": prediction.tpot_ms,
        "idle_ttft_ms": prediction.idle_ttft_ms,
        "idle_tpot_ms": prediction.idle_tpot_ms,
        "goodput_req_per_s": prediction.goodput_req_per_s,
        "kv_tokens": prediction.kv_tokens,
        "meets_slo": prediction.meets_slo,
        "simulated": prediction.simulated,
    }


def step_answer(step: StepResult, request: TuneRequest) -> dict[str, Any]:
    """One measured load step."""
    latency = {
        f"{metric.value}_ms": {
            "mean": q.mean_ms,
            "p50": q.p50_ms,
            "p90": q.p90_ms,
            "p95": q.p95_ms,
            "p99": q.p99_ms,
            "count": q.count,
        }
        for metric, q in step.latency.items()
    }
    return {
        "rate_req_per_s": step.step.rate_req_per_s,
        "sent": step.sent,
        "completed": step.completed,
        "failed": step.failed,
        "attainment": step.attainment,
        "goodput_req_per_s": step.goodput_req_per_s,
        "output_tok_per_s": step.output_tok_per_s,
        "schedule_lag_p99_ms": step.schedule_lag_p99_ms,
        "meets_slo": step.verdict(request).holds,
        "slo": [
            {
                "target": str(target),
                "ms": step.slo_values_ms.get(target.key),
                "interval_ms": step.slo_intervals_ms.get(target.key),
            }
            for target in request.slo
        ],
        "attainment_interval": step.attainment_interval,
        "invalid_reason": step.invalid,
        "ended_early": step.ended_early,
        "offered_s": step.offered_s,
        "engine": step.engine,
        "errors": step.errors,
        **latency,
    }


def trial_answer(trial: TrialResult, request: TuneRequest, predicted: Prediction | None) -> dict[str, Any]:
    """One trial: ``measured`` at the highest rate that met the SLO (the first step where none did)."""
    shown = trial.shown_step(request)
    return {
        "number": trial.number,
        "purpose": trial.purpose.value,
        "repeat": trial.repeat,
        "device_s": trial.device_s,
        "layout": str(trial.layout),
        "gpus": trial.layout.devices,
        "state": trial.state.value,
        "failure": trial.failure.value if trial.failure else None,
        "detail": trial.detail,
        "log_tail": list(trial.log_tail),
        "launched": launched_answer(trial.launched) if trial.launched else None,
        "ready_after_s": trial.ready_after_s,
        "seconds": trial.seconds,
        "measured": step_answer(shown, request) if shown else None,
        "predicted": prediction_answer(predicted) if predicted else None,
        "steps": [step_answer(step, request) for step in trial.steps],
    }


def launched_answer(launched: Launched) -> dict[str, Any]:
    """Who launched it, on which versions, of which weights; the application itself is what ``emit`` writes."""
    return {
        "launcher": launched.launcher,
        "versions": dict(launched.versions),
        "model_source": launched.model_source,
    }


def standing_answer(standing: Standing, request: TuneRequest) -> dict[str, Any]:
    """One layout with all its runs; spreads over them in ms, requests/s and tokens/s."""
    return {
        "layout": str(standing.layout),
        "gpus": standing.layout.devices,
        "meets_slo": standing.meets,
        "runs": standing.runs,
        "failed": standing.failures,
        "confirmed": standing.confirmed,
        "held_req_per_s": standing.held_req_per_s,
        "slo": [{"target": str(target), **_spread_answer(standing.slo_ms.get(target.key))} for target in request.slo],
        "e2e_ms": _spread_answer(standing.e2e_ms),
        "goodput_req_per_s": _spread_answer(standing.goodput),
        "attainment": standing.attainment,
        "attainment_interval": standing.attainment_interval,
        "usd_per_hour": standing.usd_per_hour,
        "usd_per_million_tokens": standing.usd_per_million_tokens,
    }


def _spread_answer(spread: Spread | None) -> dict[str, Any]:
    """Over runs; ``interval`` is that of a single run."""
    if spread is None:
        return {"mean": None, "low": None, "high": None, "runs": 0, "interval": None}
    return asdict(spread)


def spent_answer(decision: Decision, request: TuneRequest) -> dict[str, Any]:
    """What was spent, and the budgets."""
    return {"spent": asdict(decision.spent), "budget": request.budget.model_dump()}


def simulated_answer(facts: Mapping[str, str]) -> dict[str, Any]:
    """Whether a study's cluster was simulated, and with which seed."""
    seed = simulated_seed(facts)
    return {"simulated": seed is not None, "simulated_seed": seed}


def decision_answer(
    decision: Decision,
    request: TuneRequest,
    files: Mapping[str, str],
    facts: Mapping[str, str],
    reasons: Infeasible | None = None,
) -> dict[str, Any]:
    """The decision of a study; ``winner`` is None where no layout met the SLO, for the ``reasons`` then given.
    ``facts`` are the study's."""

    def shown(trials: Sequence[TrialResult]) -> list[dict[str, Any]]:
        return [trial_answer(t, request, decision.predictions.get(str(t.layout))) for t in trials]

    winner = shown([decision.winner])[0] if decision.winner else None
    return {
        "study": decision.study,
        **simulated_answer(facts),
        "winner": winner,
        "runner_up": str(decision.runner_up.layout) if decision.runner_up else None,
        "pareto": [
            {"layout": row["layout"], "gpus": row["gpus"], "measured": row["measured"]}
            for row in shown(decision.pareto)
        ],
        "trials": shown(decision.trials),
        "standings": [standing_answer(standing, request) for standing in decision.standings],
        **spent_answer(decision, request),
        "dropped": [dropped_answer(group) for group in decision.dropped],
        "why": decision.why,
        "remedy": decision.remedy,
        "infeasible": reasons.as_dict() if reasons else None,
        "files": dict(files),
    }
