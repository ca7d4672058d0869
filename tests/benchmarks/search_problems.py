"""Tuning problems on a simulated cluster whose true optimum is known: what the search's benchmark runs on.

Targets and rates are set by the model so that a problem is neither hopeless nor trivial: a share of what the best
layout is predicted to hold under targets that are a multiple of the median idle latency.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tests.benchmarks.search_kept_back import FIRST, KEPT_BACK
from tests.benchmarks.search_truth import Truth
from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape, load_model
from tuner.ask.request import Objective, TuneRequest
from tuner.ask.request_document import parse_request
from tuner.ask.space import load_space
from tuner.errors import FailureReason
from tuner.plan.prune import Plan, plan
from tuner.rehearse.conditions import Conditions
from tuner.search.choice import price_of, value_of
from tuner.trial.results import StepResult, TrialResult, TrialState

EVERYTHING = 100_000
TOLERANCE = 0.03  # by which a target may be missed and still count as met: what the noise may hide
START_UP_S = 90.0

_DENSE = {"tp": [1, 2, 4, 8], "pp": [1, 2, 4], "dp": [1, 2, 4, 8]}
_WIDE = {"tp": [2, 4, 8], "pp": [1, 2, 4], "dp": [1, 2, 4, 8, 16, 32]}
_EXPERTS = {"tp": [1, 2, 4, 8], "pp": [1, 2], "dp": [1, 2, 4, 8, 16], "ep": [False, True]}
_KNOBS = {"executor": ["mp", "ray"], "max_num_batched_tokens": [2048, 8192], "max_num_seqs": [64, 256]}
_SLOW, _FAST = 12.5, None
TIGHT, LOOSE = 1.4, 4.0

# model, GPU, nodes, GPUs per node, GB/s between nodes, prompt and output tokens, targets ÷ median idle latency,
# objective, structures
_PROBLEMS: tuple[tuple[Any, ...], ...] = (
    ("meta-llama/Llama-3.1-8B", "h100_sxm", 1, 8, _FAST, 1024, 128, TIGHT, "min_gpus", _DENSE),
    ("meta-llama/Llama-3.1-8B", "l40s", 1, 8, _FAST, 512, 128, LOOSE, "min_gpus", _DENSE),
    ("meta-llama/Llama-3.1-8B", "a100_sxm", 2, 8, _SLOW, 2048, 256, TIGHT, "max_goodput", _DENSE),
    ("Qwen/Qwen3-14B", "l40s", 2, 4, _SLOW, 512, 128, TIGHT, "min_latency", _DENSE),
    ("Qwen/Qwen3-14B", "h100_sxm", 1, 8, _FAST, 4096, 256, LOOSE, "min_cost", _DENSE),
    ("Qwen/Qwen3-32B", "h100_sxm", 2, 8, _FAST, 1024, 128, TIGHT, "min_gpus", _DENSE),
    ("Qwen/Qwen3-32B", "l40s", 4, 8, _SLOW, 1024, 128, LOOSE, "max_goodput", _DENSE),
    ("Qwen/Qwen3-32B", "a100_sxm", 2, 8, _FAST, 512, 256, LOOSE, "min_latency", _DENSE),
    ("meta-llama/Llama-3.1-70B", "h100_sxm", 2, 8, _FAST, 1024, 128, TIGHT, "min_latency", _DENSE),
    ("meta-llama/Llama-3.1-70B", "h100_sxm", 4, 8, _SLOW, 2048, 256, LOOSE, "min_gpus", _DENSE),
    ("meta-llama/Llama-3.1-70B", "a100_sxm", 4, 8, _FAST, 1024, 128, LOOSE, "max_goodput", _DENSE),
    ("Qwen/Qwen2.5-72B", "h200_sxm", 8, 8, _FAST, 1024, 128, TIGHT, "min_cost", _WIDE),
    ("Qwen/Qwen2.5-72B", "b200_sxm", 2, 8, _FAST, 4096, 128, TIGHT, "max_goodput", _DENSE),
    ("meta-llama/Llama-3.1-405B", "h100_sxm", 8, 8, _FAST, 1024, 128, LOOSE, "min_gpus", _WIDE),
    ("meta-llama/Llama-3.1-405B", "h200_sxm", 16, 8, _SLOW, 1024, 128, TIGHT, "max_goodput", _WIDE),
    ("meta-llama/Llama-3.1-405B", "b200_sxm", 4, 8, _FAST, 2048, 128, TIGHT, "min_latency", _WIDE),
    ("Qwen/Qwen3-30B-A3B", "h100_sxm", 1, 8, _FAST, 1024, 128, TIGHT, "min_gpus", _EXPERTS),
    ("Qwen/Qwen3-30B-A3B", "l40s", 2, 4, _SLOW, 512, 128, LOOSE, "min_cost", _EXPERTS),
    ("mistralai/Mixtral-8x7B-v0.1", "a100_sxm", 2, 8, _FAST, 1024, 128, LOOSE, "min_gpus", _EXPERTS),
    ("openai/gpt-oss-120b", "h100_sxm", 2, 8, _FAST, 1024, 256, LOOSE, "max_goodput", _EXPERTS),
    ("Qwen/Qwen3-235B-A22B-FP8", "h100_sxm", 4, 8, _FAST, 1024, 128, LOOSE, "min_gpus", _EXPERTS),
    ("MiniMaxAI/MiniMax-M2.5", "h200_sxm", 4, 8, _SLOW, 2048, 128, TIGHT, "min_latency", _EXPERTS),
    ("deepseek-ai/DeepSeek-V3", "h200_sxm", 8, 8, _FAST, 1024, 128, LOOSE, "min_cost", _EXPERTS),
    ("meta-llama/Llama-3.1-70B", "h100_sxm", 64, 8, _FAST, 1024, 128, LOOSE, "max_goodput", _WIDE),
)
COUNT = len(_PROBLEMS)
_SPECS = dict(enumerate(_PROBLEMS)) | dict(enumerate(KEPT_BACK, FIRST))


@dataclass(frozen=True)
class Problem:
    """A request, what the funnel makes of it, and the truth of every legal layout."""

    name: str
    request: TuneRequest
    model: ModelShape
    cluster: Cluster
    planned: Plan
    truth: Truth
    optimum: float

    def trial(
        self,
        number: int,
        layout: ParallelLayout,
        repeat: int,
        noise: float,
        seed: int,
        next_rate: Callable[[Sequence[StepResult]], float | None] | None = None,
    ) -> TrialResult:
        """A launch: each load step is the truth times a factor of its own. ``next_rate`` says after each which comes
        next, None where none does; left out, they rise to the first that misses the SLO."""
        next_rate = next_rate or self._rising
        seen, missed = list[StepResult](), False
        while (rate := next_rate(seen)) is not None:
            step = self.truth.at(_served(layout), rate)
            if isinstance(step, FailureReason):
                held_s = START_UP_S * layout.devices
                return TrialResult(
                    number, layout, TrialState.FAILED, failure=step, seconds=START_UP_S, repeat=repeat, device_s=held_s
                )
            random = np.random.default_rng([seed, repeat, step.step.index, *str(layout).encode()])
            seen.append(_scaled(step, float(np.exp(noise * random.standard_normal()))))
            missed = not seen[-1].meets(self.request)
        state = TrialState.STOPPED if missed else TrialState.MEASURED
        held_s = START_UP_S + self.request.load.warmup_seconds + sum(s.step.duration_s for s in seen)
        return TrialResult(
            number, layout, state, tuple(seen), seconds=held_s, repeat=repeat, device_s=held_s * layout.devices
        )

    def _rising(self, seen: Sequence[StepResult]) -> float | None:
        if seen and not seen[-1].meets(self.request):
            return None
        return next(iter(self.request.rates_req_per_s[len(seen) :]), None)

    def value(self, layout: ParallelLayout, slack: float = 0.0) -> float:
        """The objective of a layout in truth, less is better; infinite where it misses the SLO beyond ``slack``."""
        rates = self.request.rates_req_per_s
        if self.request.objective is not Objective.MAX_GOODPUT:
            rates = rates[-1:]
        for rate in reversed(rates):
            step = self.truth.at(_served(layout), rate)
            if isinstance(step, FailureReason):
                return float("inf")
            eased = _scaled(step, 1 / (1 + slack))
            if eased.meets(self.request):
                trial = TrialResult(0, layout, TrialState.MEASURED, (eased,))
                value = value_of(self.request, self.request.objective, [trial])
                return value * (1 + slack) if self.request.objective is Objective.MIN_LATENCY else value
        return float("inf")

    def regret(self, layout: ParallelLayout) -> float:
        """By which share a layout is worse than the optimum; infinite where it misses the SLO beyond the noise."""
        return max(self.value(layout, TOLERANCE) / self.optimum - 1, 0.0)

    @property
    def optimum_kept(self) -> bool:
        """Did a layout as good as the optimum come through the funnel?"""
        best, request = self.optimum * (1 + 1e-9), self.request
        kept = [c.layout for c in self.planned.ranked]
        if request.objective in (Objective.MIN_GPUS, Objective.MIN_COST):
            kept = [layout for layout in kept if price_of(request, request.objective, layout) <= best]
        if request.objective is Objective.MAX_GOODPUT:
            rate = min(request.rates_req_per_s, key=lambda one: abs(one - 1 / self.optimum))
            steps = (self.truth.at(_served(layout), rate) for layout in kept)
            return any(not isinstance(step, FailureReason) and step.meets(request) for step in steps)
        return any(self.value(layout) <= best for layout in kept)

    def best_value(self, ranked: Sequence[ParallelLayout]) -> float:
        """The optimum over all legal layouts, of which those ``ranked`` first are looked at first: what cannot be
        better than what was found is not measured."""
        request, objective = self.request, self.request.objective
        place = {_served(layout): i for i, layout in reversed(list(enumerate(ranked)))}
        legal = sorted(self.truth.legal, key=lambda layout: place.get(layout, len(place)))
        if objective is Objective.MAX_GOODPUT:
            for rate in reversed(request.rates_req_per_s):
                steps = (self.truth.at(layout, rate) for layout in legal)
                if any(not isinstance(step, FailureReason) and step.meets(request) for step in steps):
                    return 1 / rate
            return float("inf")
        if objective is Objective.MIN_LATENCY:
            return min(self.value(layout) for layout in legal)
        legal.sort(key=lambda layout: price_of(request, objective, layout))
        return next((value for layout in legal if np.isfinite(value := self.value(layout))), float("inf"))


def problem(number: int, conditions: Conditions) -> Problem:
    """A problem with its truth, from the cache where it was measured before.

    A world in which no layout meets the SLO is no tuning problem: the next seed is taken instead.
    """
    found = _problem(number, conditions)
    while not np.isfinite(found.optimum):
        conditions = replace(conditions, seed=conditions.seed + 1000)
        found = _problem(number, conditions)
    return found


def _problem(number: int, conditions: Conditions) -> Problem:
    name, gpu, nodes, per_node, link, prompt, output, tightness, objective, axes = _SPECS[number]
    document: dict[str, Any] = {
        "model": name,
        "cluster": {"gpu": gpu, "nodes": nodes, "gpus_per_node": per_node},
        "workload": {"prompt_tokens": prompt, "output_tokens": output, "arrival": {"requests_per_s": 1}},
        "slo": [{"metric": "ttft", "percentile": 95, "ms": 1e6}, {"metric": "tpot", "percentile": 95, "ms": 1e6}],
        "objective": objective,
        "space": {**axes, **_KNOBS},
        "budget": {"launches": 12},
    }
    if link is not None:
        document["cluster"]["inter_node_gb_per_s"] = link
    model, cluster, space = (
        load_model(name),
        Cluster.from_spec(parse_request(document).cluster),
        load_space(document["space"]),
    )  # type: ignore[arg-type]
    anything = plan(parse_request(document), model, cluster, space, EVERYTHING)
    for target, figure in zip(document["slo"], ("idle_ttft_ms", "idle_tpot_ms"), strict=True):
        middle = float(np.median([getattr(c.prediction, figure) for c in anything.ranked]))
        target["ms"] = round(tightness * middle * (2 if target["metric"] == "ttft" else 1), 3)
    within = plan(parse_request(document), model, cluster, space, EVERYTHING)
    best = max(c.prediction.goodput_req_per_s for c in within.ranked)
    rate = round(best * (0.5 if objective == "max_goodput" else 0.3), 4)
    document["workload"]["arrival"]["requests_per_s"] = rate
    document["load"] = {"seconds": round(min(max(400 / rate, 4.0), 60.0), 2), "warmup_seconds": 5.0}
    request = parse_request(document)
    truth = Truth(request, model, cluster, (_served(c.layout) for c in anything.ranked), conditions)
    title = f"{number}: {name.split('/')[-1]}, {nodes} × {per_node} {gpu}, {objective}"
    found = Problem(title, request, model, cluster, plan(request, model, cluster, space), truth, 0.0)
    found = replace(found, optimum=found.best_value([c.layout for c in within.ranked]))
    truth.keep()
    return found


def _served(layout: ParallelLayout) -> ParallelLayout:
    """The simulated cluster serves alike under every executor."""
    return replace(layout, executor="mp")


def _scaled(step: StepResult, factor: float) -> StepResult:
    latency = {
        metric: replace(q, **{f: getattr(q, f) * factor for f in ("mean_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms")})
        for metric, q in step.latency.items()
    }
    values = {key: None if ms is None else ms * factor for key, ms in step.slo_values_ms.items()}
    return replace(step, latency=latency, slo_values_ms=values)
