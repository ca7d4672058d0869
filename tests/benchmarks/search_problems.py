"""Tuning problems on a simulated cluster whose every layout has been measured: what the search's benchmark runs on.

Targets and rates are set by the model so that a problem is neither hopeless nor trivial: a share of what the best
layout is predicted to hold under targets that are a multiple of the median idle latency.
"""

from __future__ import annotations

import hashlib
import pickle
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.search_kept_back import FIRST, KEPT_BACK
from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape, load_model
from tuner.ask.request import TuneRequest
from tuner.ask.request_document import parse_request
from tuner.ask.space import load_space
from tuner.errors import FailureReason, LaunchFailed
from tuner.plan.prune import Plan, plan
from tuner.rehearse.cluster import SimulatedCluster
from tuner.rehearse.conditions import Conditions
from tuner.rehearse.launcher import SimulatedLauncher
from tuner.rehearse.meter import SimulatedMeter
from tuner.search.choice import value_of
from tuner.study.load_steps import load_steps
from tuner.trial.results import StepResult, TrialResult, TrialState
from tuner.trial.seams import LaunchOrder, Watch

Truth = tuple[StepResult, ...] | FailureReason
CACHE = Path(tempfile.gettempdir()) / "parlay-search-truth"
_FORM = 2  # of what is pickled there
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
    """A request, what the funnel makes of it, and the truth of every legal layout: its load steps, or how it
    fails."""

    name: str
    request: TuneRequest
    model: ModelShape
    cluster: Cluster
    planned: Plan
    truth: Mapping[ParallelLayout, Truth]
    optimum: float

    def trial(
        self, number: int, layout: ParallelLayout, repeat: int, noise: float, seed: int, rate: float | None = None
    ) -> TrialResult:
        """A launch: the truth times a factor of its own, ended by the first load step that misses the SLO; at one
        ``rate`` alone where one is given."""
        steps = self.truth[_served(layout)]
        if isinstance(steps, FailureReason):
            held_s = START_UP_S * layout.devices
            return TrialResult(
                number, layout, TrialState.FAILED, failure=steps, seconds=START_UP_S, repeat=repeat, device_s=held_s
            )
        random = np.random.default_rng([seed, repeat, *str(layout).encode()])
        seen: list[StepResult] = []
        steps = tuple(step for step in steps if rate in (None, step.step.rate_req_per_s))
        for step in steps:
            seen.append(_scaled(step, float(np.exp(noise * random.standard_normal()))))
            if not seen[-1].meets(self.request):
                break
        whole = len(seen) == len(steps)
        state = TrialState.MEASURED if whole else TrialState.STOPPED
        held_s = START_UP_S + self.request.load.warmup_seconds + sum(s.step.duration_s for s in seen)
        return TrialResult(
            number, layout, state, tuple(seen), seconds=held_s, repeat=repeat, device_s=held_s * layout.devices
        )

    def value(self, layout: ParallelLayout, slack: float = 0.0) -> float:
        """The objective of a layout in truth, less is better; infinite where it misses the SLO beyond ``slack``."""
        steps = self.truth[_served(layout)]
        if isinstance(steps, FailureReason):
            return float("inf")
        eased = tuple(_scaled(step, 1 / (1 + slack)) for step in steps)
        trial = TrialResult(0, layout, TrialState.MEASURED, eased)
        value = value_of(self.request, self.request.objective, [trial])
        return value * (1 + slack) if self.request.objective == "min_latency" else value

    def regret(self, layout: ParallelLayout) -> float:
        """By which share a layout is worse than the optimum; infinite where it misses the SLO beyond the noise."""
        return max(self.value(layout, TOLERANCE) / self.optimum - 1, 0.0)

    @property
    def optimum_kept(self) -> bool:
        """Did a layout as good as the optimum come through the funnel?"""
        return any(self.value(c.layout) <= self.optimum * (1 + 1e-9) for c in self.planned.ranked)


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
    legal = {_served(c.layout) for c in anything.ranked}
    truth = _measured(request, model, cluster, sorted(legal), conditions)
    title = f"{number}: {name.split('/')[-1]}, {nodes} × {per_node} {gpu}, {objective}"
    found = Problem(title, request, model, cluster, plan(request, model, cluster, space), truth, 0.0)
    return replace(found, optimum=min(found.value(layout) for layout in legal))


def _measured(
    request: TuneRequest, model: ModelShape, cluster: Cluster, layouts: list[ParallelLayout], conditions: Conditions
) -> dict[ParallelLayout, Truth]:
    """Every layout at every rate, without noise."""
    words = f"{_FORM} {request.model_dump_json(exclude={'budget'})} {conditions} {len(layouts)}"
    path = CACHE / f"{hashlib.sha256(words.encode()).hexdigest()[:24]}.pickle"
    if path.exists():
        return pickle.loads(path.read_bytes())  # type: ignore[no-any-return]  # our own file
    world = SimulatedCluster(cluster, replace(conditions, noise=0.0))
    launcher, meter = SimulatedLauncher(world), SimulatedMeter(world)
    steps = [step for step in load_steps(request) if not step.warmup]
    truth: dict[ParallelLayout, Truth] = {}
    for layout in layouts:
        order = LaunchOrder("truth", 0, str(layout), layout, request, CACHE)
        found: list[StepResult] = []
        deployment = None
        try:
            deployment = launcher.launch(order, Watch())
            for step in steps:
                found.append(meter.measure(deployment, step, request, Watch()))
                if not _scaled(found[-1], 0.7).meets(request):
                    break  # so far off that no noise makes it good, nor any higher rate
        except LaunchFailed as failure:
            truth[layout] = tuple(found) or failure.reason
        else:
            truth[layout] = tuple(found)
        if deployment is not None:
            deployment.teardown()
    CACHE.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(truth))
    return truth


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
