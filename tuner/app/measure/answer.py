"""What ``parlay measure --json`` prints; the keys are stable, new ones may be added. Absent figures are null."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serve.measure.engine_metrics import WINDOW_FIGURES, EngineWindow
from serve.measure.summary import Latency, TargetFigures
from serve.measure.window import Window
from tuner.ask.request import Metric
from tuner.ask.slo import Verdict


def window_answer(window: Window) -> dict[str, Any]:
    """One window."""
    found, client = window.figures, window.client
    verdict = window.verdict
    return {
        "load": {
            "name": window.order.name,
            "rate_req_per_s": window.order.rate_req_per_s,
            "users": window.order.users,
        },
        "valid": window.invalid is None,
        "invalid_reason": window.invalid,
        "steady": window.unsteady is None,
        "warm_up_left_s": window.warm_up_s,
        "ended_early": window.ended_early.value if window.ended_early else None,
        "meets_slo": verdict.holds,
        "verdict_certain": None if verdict is Verdict.UNKNOWN else window.certain,
        "slo": [target_answer(one) for one in found.targets],
        "attainment": found.attainment,
        "attainment_interval": found.attainment_interval,
        **{f"{metric.value}_ms": latency_answer(found.latency.get(metric)) for metric in Metric},
        "ttft_from_intended_ms": latency_answer(found.ttft_from_intended),
        "offered_req_per_s": found.offered_req_per_s,
        "achieved_req_per_s": found.achieved_req_per_s,
        "goodput_req_per_s": found.goodput_req_per_s,
        "prompt_tok_per_s": found.prompt_tok_per_s,
        "output_tok_per_s": found.output_tok_per_s,
        "sent": found.sent,
        "completed": found.completed,
        "failed": found.failed,
        "cut_off": found.cut_off,
        "errors": dict(found.errors),
        "lead_s": window.order.lead_s,
        "offered_s": found.offered_s,
        "wall_s": found.wall_s,
        "schedule_lag_ms": {
            "p50": found.schedule_lag_p50_ms,
            "p99": found.schedule_lag_p99_ms,
            "max": found.schedule_lag_max_ms,
        },
        "client": {
            "bottleneck": window.client_bound is not None,
            "reason": None if window.client_bound is None else window.client_bound.words,
            "cpu_share": client.cpu_share if client else None,
            "loop_lag_p99_ms": client.loop_lag_p99_ms if client else None,
            "workers": client.workers if client else None,
        },
        "engine": engine_answer(window.engine),
    }


def latency_answer(latency: Latency | None) -> dict[str, Any]:
    """Mean and percentiles in ms, the 95 % interval of each percentile, and all values as HdrHistogram's text (µs)."""
    if latency is None:
        nothing = dict.fromkeys(("mean", "p50", "p90", "p95", "p99"))
        return {"count": 0, **nothing, "intervals": {}, "histogram": None}
    at: Mapping[str, float] = {f"p{level:g}": value for level, value in latency.at_ms.items()}
    intervals = {f"p{level:g}": value for level, value in latency.interval_ms.items()}
    text = latency.histogram.text()
    return {"count": latency.count, "mean": latency.mean_ms, **at, "intervals": intervals, "histogram": text}


def target_answer(found: TargetFigures) -> dict[str, Any]:
    """One SLO target, its value and how sure it is."""
    return {
        "target": str(found.target),
        "metric": found.target.metric.value,
        "percentile": found.target.percentile,
        "limit_ms": found.target.ms,
        "ms": found.value_ms,
        "interval_ms": found.interval_ms,
        "attainment": found.attainment,
        "met": found.met,
        "certain": found.certain,
    }


def engine_answer(engine: EngineWindow) -> dict[str, Any]:
    """The engines' own figures, and why there are none where there are none."""
    return {
        **{name: getattr(engine, name) for name in (*WINDOW_FIGURES, "prefix_hit_share")},
        "scrapes": len(engine.scrapes),
        "restarted": list(engine.restarted),
        "missing": engine.missing,
    }
