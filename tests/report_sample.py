"""A study such as the demo's, for the tests of the report; ``python -m tests.report_sample FILE`` writes its page."""

from __future__ import annotations

import sys
from pathlib import Path

from deploy.report.study_data import (
    Fate,
    ReportData,
    ShownBudget,
    ShownFile,
    ShownLayout,
    ShownLayoutSummary,
    ShownMetric,
    ShownSpread,
    ShownStep,
    ShownTrial,
    Stage,
)
from deploy.report.study_page import render_report

TTFT, TPOT = ShownMetric("ttft", 95, 900.0), ShownMetric("tpot", 95, 60.0)


def _steps(rows: list[tuple[float, float | None, float | None]]) -> tuple[ShownStep, ...]:
    steps = []
    for rate, ttft, tpot in rows:
        good = ttft is not None and tpot is not None and ttft <= 900 and tpot <= 60
        share = 0.99 if good else 0.61
        latency = {TTFT.key: ttft, TPOT.key: tpot}
        steps.append(ShownStep(rate, latency, rate * share, share, int(rate * 20), 0, good))
    return tuple(steps)


def _launched(
    number: int, layout: str, fate: Fate, rows: list[tuple[float, float | None, float | None]], **more: object
) -> ShownLayout:
    steps = _steps(rows)
    last = steps[-1] if steps else None
    trial = ShownTrial(number, 70.0 * (number - 1), 26.0 + 5 * number if steps else None, 64.0)
    return ShownLayout(
        layout=layout,
        devices=2 if "2" in layout.split("max_")[0] else 1,
        fate=fate,
        rate_req_per_s=last.rate_req_per_s if last else None,
        predicted_ms={TTFT.key: 410.0 + 90 * number, TPOT.key: 21.0 + 6 * number},
        measured_ms=last.latency_ms if last else {},
        predicted_goodput_req_per_s=1.9,
        measured_goodput_req_per_s=last.goodput_req_per_s if last else None,
        attainment=last.attainment if last else None,
        meets_slo=last.meets_slo if last else None,
        steps=steps,
        trial=trial,
        **more,  # type: ignore[arg-type]
    )


def _summary(
    layout: str, ttft: tuple[float, float, float], tpot: tuple[float, float, float], goodput: float, **more: object
) -> ShownLayoutSummary:
    devices = 2 if "2" in layout.split("max_")[0] else 1
    fields: dict[str, object] = {
        "layout": layout,
        "devices": devices,
        "meets_slo": True,
        "runs": "2, confirmed",
        "held_req_per_s": 2.0,
        "at_req_per_s": 2.0,
        "slo_ms": {TTFT.key: ShownSpread(*ttft), TPOT.key: ShownSpread(*tpot)},
        "attainment": 0.99,
        "attainment_at_least": 0.951,
        "usd_per_hour": 1.5 * devices,
        "usd_per_million_tokens": 4.2,
        "at": (ShownSpread(devices, devices, devices), ShownSpread(goodput, goodput - 0.05, goodput + 0.05)),
        "on_front": True,
    }
    return ShownLayoutSummary(**(fields | more))  # type: ignore[arg-type]


STANDINGS = (
    _summary("tp=2,pp=1,dp=1", (588, 571, 605), (38.4, 37.9, 38.9), 1.98),
    _summary("tp=1,pp=1,dp=2", (524, 490, 561), (43.4, 42.0, 44.8), 1.97, runs="1", on_front=False),
    _summary("tp=1,pp=1,dp=1", (690, 650, 730), (33.0, 32.0, 34.0), 0.99, runs="1", held_req_per_s=1.0,
             at_req_per_s=1.0),
    _summary("tp=1,pp=2,dp=1", (1290, 1290, 1290), (61.0, 61.0, 61.0), 0.5, meets_slo=False, on_front=False,
              held_req_per_s=None, at_req_per_s=1.0,
              attainment=None, attainment_at_least=None, usd_per_hour=None, usd_per_million_tokens=None),
)  # fmt: skip


def sample(*, simulated: bool = False) -> ReportData:
    """Five launched layouts (one failed, one stopped) and three that were not launched."""
    launched = (
        _launched(1, "tp=2,pp=1,dp=1", Fate.WINNER, [(0.5, 271, 28.1), (1, 355, 31.9), (2, 588, 38.4)]),
        _launched(2, "tp=1,pp=1,dp=1", Fate.MEASURED, [(0.5, 335, 24.9), (1, 690, 33.0), (2, 2901, 61.7)]),
        _launched(3, "tp=1,pp=1,dp=2", Fate.MEASURED, [(0.5, 366, 23.2), (1, 402, 29.9), (2, 524, 43.4)]),
        _launched(
            4,
            "tp=1,pp=2,dp=1,max_num_batched_tokens=512",
            Fate.STOPPED,
            [(0.5, 305, 28.4), (1, 1290, None)],
            reason="stopped after 1 requests/s: TTFT p95 1,290 ms is over the target of 900 ms",
        ),
        _launched(
            5,
            "tp=2,pp=1,dp=1,executor=ray",
            Fate.FAILED,
            [],
            reason="engine_crashed: the engine's process ended with code 1 during start-up",
        ),
    )
    rest = (
        ShownLayout("tp=4,pp=1,dp=1", 4, Fate.DROPPED, "4 devices asked, 2 in the cluster"),
        ShownLayout("tp=1,pp=2,dp=2", 4, Fate.DROPPED, "4 devices asked, 2 in the cluster"),
        ShownLayout(
            "tp=1,pp=2,dp=1",
            2,
            Fate.NOT_LAUNCHED,
            "ranked 6th; the budget was 5 launches",
            predicted_ms={TTFT.key: 640.0, TPOT.key: 44.0},
            predicted_goodput_req_per_s=1.4,
        ),
    )
    return ReportData(
        study="demo",
        model="tiny-llama",
        headline="tp=2,pp=1,dp=1 meets the SLO at 2 requests/s on 2 devices",
        why=(
            "Two layouts meet the SLO at the asked rate. This one has the lower TPOT at the same number of devices: "
            "38.4 ms at p95 against 43.4 ms of tp=1,pp=1,dp=2.",
            "One device is not enough: tp=1,pp=1,dp=1 reaches a TTFT p95 of 2,901 ms, 3.2 times the target.",
        ),
        metrics=(TTFT, TPOT),
        request=(
            ("Model", "tiny-llama"),
            ("Cluster", "1 node of 2 CPU devices"),
            ("Prompt", "256 tokens"),
            ("Output", "32 tokens"),
            ("Arrivals", "Poisson, 2 requests/s"),
            ("Objective", "fewest devices"),
        ),
        funnel=(
            Stage("in the space", 96),
            Stage("legal", 40, (("more devices than the cluster has", 48), ("heads not divisible by tp", 8))),
            Stage("fits in memory", 36, (("weights and KV cache over the limit", 4),)),
            Stage("worth a launch", 6, (("predicted worse in every respect", 30),)),
            Stage("launched", 5, (("beyond the budget", 1),)),
            Stage("meets the SLO", 2, (("over a target", 2), ("failed", 1))),
            Stage("winner", 1),
        ),
        layouts=(*launched, *rest),
        files=(
            ShownFile("ray-serve.yaml", "Ray Serve config of the winner", "serve run ray-serve.yaml"),
            ShownFile("rayservice.yaml", "KubeRay RayService", "kubectl apply -f rayservice.yaml"),
            ShownFile("helm-values.yaml", "Values of the chart helm/parlay"),
            ShownFile("vllm.sh", "The plain vLLM command line", "sh vllm.sh"),
        ),
        facts=(
            ("Launcher", "ray-serve"),
            ("Versions", "Ray 2.60.0, vLLM 0.29.0, Parlay 0.1.0"),
            ("Machine", "2 cores, 24 GiB, Linux 6.1"),
            ("Began", "2026-11-21 09:00 UTC, took 5 min 50 s"),
        ),
        simulated=simulated,
        standings=STANDINGS,
        axes=("devices", "goodput, requests/s"),
        budget=(
            ShownBudget("launches", 5, 6),
            ShownBudget("minutes", 5.8, 8),
            ShownBudget("GPU-hours", 0.2, None),
        ),
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render_report(sample()), encoding="utf-8")
