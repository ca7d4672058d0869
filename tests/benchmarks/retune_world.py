"""Simulated sites for re-tuning: what is true of every layout there, which nobody who tunes knows.

The truth is the closed form of a steady load (``tuner.cost.steady``), not the step-by-step simulator, for speed, with
prices that are off by hidden factors: each cost term by one of its own (standard deviation ``TERM_SD`` of its log), and
each engine's TTFT and TPOT by another (``ENGINE_SD``). What it adds to the closed form are distributions: a request's
TTFT is the idle one, the rest of a running step, and a wait with an exponential tail; its TPOT is log-normal.
"""

from __future__ import annotations

import math
import zlib
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.packing import unplaceable
from tuner.ask.request import Metric, SloTarget, TokenLengths, TuneRequest
from tuner.ask.request_document import parse_request
from tuner.ask.requested_model import requested_model
from tuner.ask.space import load_space
from tuner.cost.steady import BATCHES
from tuner.plan.prune import Candidate, plan
from tuner.search.term_prices import TermPrices, engine_of

TERM_SD, ENGINE_SD = 0.15, 0.05
TPOT_SD = 0.06  # of the logarithm, between the requests of one load
OVERLOADED_MS = 20.0  # times the idle TTFT: what waits without end
MARGIN = 1.1  # times the busiest rate is asked for
WORLDS = 6  # hidden prices of each site

_DEGREES = {"tp": [1, 2, 4, 8], "pp": [1, 2], "dp": [1, 2, 3, 4, 5, 6, 7, 8, 10, 12]}
_KNOBS = {"max_num_batched_tokens": [2048, 8192], "max_num_seqs": [256]}
_OVER_NODES = {"tp": [4, 8, 16], "pp": [1, 2, 4], "executor": ["ray"]}
# model, GPU, nodes, GPUs of each, prompt and output tokens, TTFT and TPOT in ms, GPUs of the layout that is to do
_SITES: tuple[tuple[Any, ...], ...] = (
    ("meta-llama/Llama-3.1-8B", "l40s", 2, 8, 1024, 128, 1000, 50, 4),
    ("meta-llama/Llama-3.1-70B", "h100_sxm", 4, 8, 1024, 128, 1000, 50, 8),
    ("Qwen/Qwen3-32B", "h100_sxm", 4, 8, 1024, 128, 500, 25, 8),
    ("meta-llama/Llama-3.1-70B", "h100_sxm", 8, 8, 1024, 128, 500, 25, 8),
    ("meta-llama/Llama-3.1-405B", "h100_sxm", 8, 8, 1024, 128, 2500, 100, 16),
    ("Qwen/Qwen3-14B", "l40s", 4, 4, 512, 128, 1000, 50, 4),
)
SITES = len(_SITES)


@dataclass(frozen=True)
class State:
    """What is so for now, beside the rate: requests' lengths as factors on what was asked, the speed of links (of
    whatever GPUs send each other), the engine's release (by its number), and how many nodes there are fewer."""

    prompt: float = 1.0
    rate: float = 1.0
    link: float = 1.0
    release: int = 0
    lost: int = 0


@dataclass(frozen=True)
class Served:
    """What requests see at one load: shares within the targets, in the order of the SLO, and means in ms."""

    ttft_within: float
    tpot_within: float
    ttft_ms: float
    tpot_ms: float


class Site:
    """One request with the layouts that are legal for it, on a cluster without a fault."""

    def __init__(self, number: int) -> None:
        model, gpu, nodes, per_node, prompt, output, ttft_ms, tpot_ms, gpus = _SITES[number]
        self.number = number
        document: dict[str, Any] = {
            "model": model,
            "cluster": {"gpu": gpu, "nodes": nodes, "gpus_per_node": per_node},
            "workload": {
                "prompt_tokens": {"mean": prompt, "min": prompt // 4, "max": prompt * 7 // 4},
                "output_tokens": output,
                "arrival": {"requests_per_s": 1.0},
            },
            "slo": [
                {"metric": "ttft", "percentile": 95, "ms": ttft_ms},
                {"metric": "tpot", "percentile": 95, "ms": tpot_ms},
            ],
            "objective": "min_gpus",
            "space": {**_DEGREES, **_KNOBS, **(_OVER_NODES if gpus > per_node else {})},
        }
        asked = parse_request(document)
        self.model: ModelShape = requested_model(asked)
        best = max(c.prediction.goodput_req_per_s for c in self._plan(asked) if c.layout.devices <= gpus)
        self.request: TuneRequest = _at_rate(asked, round(0.8 * best, 3))
        self.candidates: Sequence[Candidate] = self._plan(self.request)

    def _plan(self, request: TuneRequest) -> Sequence[Candidate]:
        return plan(request, self.model, self.cluster_of(request), load_space(request.space), keep=100_000).ranked

    @staticmethod
    def cluster_of(request: TuneRequest) -> Cluster:
        """The cluster of a request."""
        return Cluster.from_spec(request.groups[0])

    @property
    def nodes(self) -> int:
        """How many there are."""
        return self.request.groups[0].nodes

    @cached_property
    def targets(self) -> tuple[SloTarget, SloTarget]:
        """TTFT and TPOT."""
        ttft, tpot = self.request.slo
        return ttft, tpot

    def as_of(self, state: State) -> TuneRequest:
        """The request as somebody would write it who knew all."""
        request = _at_rate(self.request, self.request.workload.arrival.requests_per_s * state.rate)
        spec = request.groups[0].model_copy(update={"nodes": self.nodes - state.lost})
        prompt = request.workload.prompt_tokens
        low, high = (max(round(bound * state.prompt), 1) for bound in prompt.bounds)
        longer = TokenLengths(mean=(low + high) / 2, min=low, max=high)
        workload = request.workload.model_copy(update={"prompt_tokens": longer})
        return request.model_copy(update={"cluster": spec, "workload": workload})

    @cache  # noqa: B019  # a handful of sites live as long as the benchmark
    def prices(self, prompt: float) -> TermPrices:
        """Prices of all candidates with prompts so many times as long."""
        request = self.as_of(State(prompt=prompt))
        return TermPrices.of(request, self.candidates, self.model, self.cluster_of(request))

    @cache  # noqa: B019
    def fitting(self, lost: int) -> frozenset[ParallelLayout]:
        """Layouts for which there is room."""
        cluster = self.cluster_of(self.as_of(State(lost=lost)))
        return frozenset(c.layout for c in self.candidates if unplaceable(c.layout, cluster) is None)


@cache
def site(number: int) -> Site:
    """One of ``SITES``, made once."""
    return Site(number)


class World:
    """A site with its hidden prices."""

    def __init__(self, of: Site, seed: int) -> None:
        self.site, self.seed = of, seed
        self._truths: dict[State, Truth] = {}
        self._best: dict[State, ParallelLayout] = {}

    def normal(self, *words: object) -> float:
        """A number that the words name, normally distributed."""
        name = zlib.crc32("|".join(map(str, words)).encode())
        return float(np.random.default_rng([self.seed, self.site.number, name]).standard_normal())

    def truth(self, state: State) -> Truth:
        """What is true in a state, whatever the rate and the nodes."""
        key = replace(state, rate=1.0, lost=0)
        if key not in self._truths:
            self._truths[key] = Truth(self, key)
        return self._truths[key]

    def best(self, state: State) -> ParallelLayout:
        """The layout with the fewest GPUs that meets the SLO at the asked rate, else the one that carries most."""
        if state not in self._best:
            self._best[state] = self._find_best(state)
        return self._best[state]

    def _find_best(self, state: State) -> ParallelLayout:
        truth, asked = self.truth(state), self.site.request.workload.arrival.requests_per_s * state.rate
        fits = sorted(self.site.fitting(state.lost))
        meeting = [layout for layout in fits if truth.goodput(layout) >= asked]
        if meeting:
            return min(meeting, key=lambda layout: (layout.devices, -truth.goodput(layout)))
        return max(fits, key=truth.goodput)


_SHARES = 2.0 ** np.arange(-7, 1.01, 0.125)  # of the rate at a curve's end


class Truth:
    """All layouts of a world in one state."""

    def __init__(self, world: World, state: State) -> None:
        own = world.site
        prices = own.prices(state.prompt)
        factors = [
            math.exp(TERM_SD * world.normal("term", term))
            / (state.link if " in node" in term or " between" in term else 1)
            for term in prices.terms
        ]
        for release in range(1, state.release + 1):  # each changes some prices, most of them for the worse
            shifts = [math.exp(0.12 + 0.12 * world.normal("release", release, term)) for term in prices.terms]
            factors = [one * two for one, two in zip(factors, shifts, strict=True)]
        self._world, self._prices = world, prices
        self._curve = prices.curve(np.array([factors]), np.arange(len(prices.index)))
        engines = {replace(c.layout, dp=1): c for c in own.candidates}  # however many replicas there are
        self._rows = {engine: prices.index[engine_of(one.layout)] for engine, one in engines.items()}
        self._cap = {e: float(c.prediction.sequences or c.layout.max_num_seqs) for e, c in engines.items()}
        self._known: dict[ParallelLayout, Replica] = {}

    def replica(self, layout: ParallelLayout) -> Replica:
        """One replica of the layout."""
        return self._grid(layout)

    def goodput(self, layout: ParallelLayout) -> float:
        """The highest rate within the SLO, in requests/s."""
        return self._grid(layout).most * layout.dp

    def percentiles(self, layout: ParallelLayout, req_per_s: float) -> tuple[float, float]:
        """What a trial measures of TTFT and TPOT at the targets' percentile, in ms."""
        grid, rate = self._grid(layout), req_per_s / layout.dp
        return grid.ttft_at(rate, 0.95), grid.at(rate).tpot_ms * math.exp(TPOT_SD * NormalDist().inv_cdf(0.95))

    def _grid(self, layout: ParallelLayout) -> Replica:
        engine = replace(layout, dp=1)
        if engine not in self._known:
            world, row = self._world, self._rows[engine]
            first, each = (math.exp(ENGINE_SD * world.normal(name, engine)) for name in ("ttft", "tpot"))
            curve = self._curve
            at = np.searchsorted(BATCHES, self._cap[engine], side="right") - 1
            top = curve.rate_req_per_s[row, max(at, 0)]
            rates = top * _SHARES

            def of(values: NDArray[np.float64]) -> NDArray[np.float64]:
                return np.interp(rates, curve.rate_req_per_s[row], values[row])

            running = np.interp(rates, curve.rate_req_per_s[row], np.minimum(BATCHES, 1.0))
            idle = float(curve.idle_ttft_ms[row]) * first
            self._known[engine] = Replica(
                rates.tolist(),
                (idle + running * of(curve.step_ms) / 2 * first).tolist(),
                (of(curve.wait_ms) * first).tolist(),
                of(curve.utilisation).tolist(),
                (of(curve.tpot_ms) * each).tolist(),
                world.site.targets,
            )
        return self._known[engine]


class Replica:
    """One replica at rising rates; ``most`` is the highest within the SLO, in requests/s."""

    def __init__(
        self,
        rates: list[float],
        base_ms: list[float],
        wait_ms: list[float],
        busy: list[float],
        tpot_ms: list[float],
        targets: tuple[SloTarget, SloTarget],
    ) -> None:
        self._rates, self._base_ms, self._wait_ms, self._busy, self._tpot_ms = rates, base_ms, wait_ms, busy, tpot_ms
        self._ttft, self._tpot = targets[0].ms, targets[1].ms
        needed = targets[0].percentile / 100
        held = [
            rate for rate, one in ((r, self.at(r)) for r in rates) if min(one.ttft_within, one.tpot_within) >= needed
        ]
        self.most = max(held, default=0.0)

    def at(self, rate: float) -> Served:
        """What requests see; without end beyond the last rate."""
        if rate > self._rates[-1]:
            late = OVERLOADED_MS * self._base_ms[-1]
            return Served(0.02, self._within_tpot(self._tpot_ms[-1]), late, self._tpot_ms[-1])
        base, wait, busy, tpot = self._values(rate)
        return Served(1 - self._beyond(self._ttft - base, wait, busy), self._within_tpot(tpot), base + wait, tpot)

    def ttft_at(self, rate: float, share: float) -> float:
        """The TTFT that this share of the requests does not exceed, in ms."""
        if rate > self._rates[-1]:
            return OVERLOADED_MS * self._base_ms[-1]
        base, wait, busy, _ = self._values(rate)
        missed = 1 - share
        return base + (wait * math.log(busy / missed) / busy if busy > missed else 0.0)

    def _values(self, rate: float) -> tuple[float, float, float, float]:
        at = min(max(bisect_left(self._rates, rate), 1), len(self._rates) - 1)
        low, high = self._rates[at - 1], self._rates[at]
        part = min(max((rate - low) / (high - low), 0.0), 1.0)
        columns = (self._base_ms, self._wait_ms, self._busy, self._tpot_ms)
        base, wait, busy, tpot = (column[at - 1] + part * (column[at] - column[at - 1]) for column in columns)
        return base, wait, busy, tpot

    @staticmethod
    def _beyond(left_ms: float, wait_ms: float, busy: float) -> float:
        if left_ms <= 0:
            return 1.0
        return min(busy, 1.0) * math.exp(-busy * left_ms / wait_ms) if wait_ms > 1e-9 else 0.0

    def _within_tpot(self, tpot_ms: float) -> float:
        return 0.5 * math.erfc(-math.log(self._tpot / tpot_ms) / TPOT_SD / math.sqrt(2))


@cache
def world(number: int, seed: int) -> World:
    """The world of a site and a seed, made once."""
    return World(site(number), seed)


def _at_rate(request: TuneRequest, req_per_s: float) -> TuneRequest:
    arrival = request.workload.arrival.model_copy(update={"requests_per_s": req_per_s})
    return request.model_copy(update={"workload": request.workload.model_copy(update={"arrival": arrival})})


METRICS = (Metric.TTFT, Metric.TPOT)
