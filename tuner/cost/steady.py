"""One structure under a steady load: what its requests see, in closed form, from the cost of its steps.

With ``b`` sequences decoding in a replica, every output token waits for its own decode step and for its share of the
prefills that arrive meanwhile; Little's law then gives the request rate that keeps b sequences alive. Prefills queue
like jobs of an M/D/1 server (Kleinrock, Queueing Systems I, 1975). The simulator is finer; this is for a million
layouts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Metric, TuneRequest
from tuner.cost.latency import StepCosts
from tuner.cost.step_batch import StepShape, Terms, total

Floats = NDArray[np.float64]

# Mean sequences in a replica at which a curve is known; below 1 it is mostly idle.
BATCHES = np.concatenate([2.0 ** np.arange(-8, 0), np.unique(np.round(2 ** np.arange(0, 10.25, 0.25)))])
_FEWEST = 1e-4  # of the requests, beyond a percentile: the highest of all is not modelled


@dataclass(frozen=True, slots=True)
class Shapes:
    """The steps of a workload: one prefill chunk per value of ``chunk_limits``, one decode step per batch."""

    prefill: StepShape
    decode: StepShape
    chunks: Floats
    output_tokens: float
    prompt_tokens: float

    @classmethod
    def of(cls, request: TuneRequest, chunk_limits: Floats, stages: int, slices: int = 1) -> Shapes:
        """Mean lengths of the workload; ``stages`` micro-batches share a decode batch, and a prompt comes in at least
        ``slices`` chunks."""
        prompt, engine = float(request.workload.prompt_tokens.mean), request.engine
        cached = 0 if engine.enable_prefix_caching is False else request.workload.shared_prefix_tokens
        computed = prompt - cached
        most = np.full_like(chunk_limits, computed) if engine.enable_chunked_prefill is False else chunk_limits
        most = np.minimum(most, engine.long_prefill_token_threshold or np.inf)
        chunks = np.maximum(np.ceil(computed / most), min(float(slices), computed))
        new = computed / chunks
        output = float(request.workload.output_tokens.mean)
        context = cached + (computed - new) / 2
        one = np.ones(1)
        decode = StepShape("decode", one, np.full(1, prompt + output / 2), BATCHES)
        return cls(StepShape("prefill", new, context, one), decode, chunks, output, prompt).for_stages(stages)

    def for_stages(self, stages: int) -> Shapes:
        """The same steps where ``stages`` micro-batches share a decode batch; prefill is priced once for all."""
        return replace(self, decode=replace(self.decode, sequences=np.maximum(BATCHES / stages, 1.0)))


@dataclass(frozen=True, slots=True)
class Curve:
    """A replica's latencies against its load: axis 0 the chunk limits, axis 1 ``BATCHES``; ms and requests/s.

    ``idle_ttft_ms`` (per chunk limit) and ``idle_tpot_ms`` are those of one request alone. ``wait_ms`` is the mean wait
    behind other prefills; ``step_ms`` (per batch) the decode step that an arrival finds running, if any is.
    """

    idle_ttft_ms: Floats
    idle_tpot_ms: float
    rate_req_per_s: Floats
    tpot_ms: Floats
    wait_ms: Floats
    step_ms: Floats
    utilisation: Floats

    def ttft_ms(self, percentile: float | None = None) -> Floats:
        """TTFT at a percentile (mean when None): idle, plus the wait behind prefills, whose tail is taken as
        exponential, plus the rest of a running decode step, which is uniform. The percentiles of both add up."""
        running = np.minimum(BATCHES, 1.0)  # share of time in which a step runs
        if percentile is None:
            return np.asarray(self.idle_ttft_ms[:, None] + self.wait_ms + running * self.step_ms / 2)
        missed = max(1 - percentile / 100, _FEWEST)
        stretch = np.log(np.maximum(self.utilisation / missed, 1.0)) / np.maximum(self.utilisation, 1e-9)
        rest = np.clip((running - missed) / running, 0.0, 1.0) * self.step_ms
        return np.asarray(self.idle_ttft_ms[:, None] + self.wait_ms * np.maximum(stretch, 1.0) + rest)

    def tpot_at_ms(self, percentile: float) -> Floats:
        """TPOT at a percentile: requests meet more or fewer others than the mean batch, about as a Poisson number
        varies, and each of them costs what the curve rises by, at least its share of a prefill."""
        over_sd = NormalDist().inv_cdf(1 - max(1 - percentile / 100, _FEWEST))
        step_ms = np.broadcast_to(self.step_ms, self.tpot_ms.shape)
        prefill_ms = (self.tpot_ms - step_ms)[..., -1:] / (BATCHES[-1] - 1)
        rise_ms = np.diff(self.tpot_ms, prepend=step_ms[..., :1]) / np.diff(BATCHES, prepend=0.0)
        spread_ms = np.sqrt(BATCHES) * np.maximum(rise_ms, prefill_ms)
        return np.asarray(np.maximum(self.tpot_ms + over_sd * spread_ms, step_ms))

    def at(self, metric: Metric, percentile: float | None, output_tokens: float) -> Floats:
        """One latency metric over the whole curve; ITL is a mean, and of E2E only what TTFT varies by is modelled."""
        if metric is Metric.TTFT:
            return self.ttft_ms(percentile)
        if metric is Metric.TPOT and percentile is not None:
            return self.tpot_at_ms(percentile)
        if metric is Metric.E2E:
            return np.asarray(self.ttft_ms(percentile) + self.tpot_ms * max(output_tokens - 1, 0))
        return np.broadcast_to(self.tpot_ms, self.rate_req_per_s.shape)


def load_curve(costs: StepCosts, layout: ParallelLayout, shapes: Shapes) -> Curve:
    """The curve of one structure (the scheduler knobs of ``layout`` are not looked at)."""
    request_ms = costs.cluster.profile.engine.handling_ms(shapes.prompt_tokens)
    prefill = _stage_totals(costs.stages(layout, shapes.prefill), shapes.chunks.shape)
    decode = _stage_totals(costs.stages(layout, shapes.decode), BATCHES.shape)
    slowest = prefill.max(axis=0)
    idle_ttft = request_ms + prefill.sum(axis=0) + (shapes.chunks - 1) * slowest
    busy = (shapes.chunks * slowest)[:, None]  # ms of the bottleneck stage per request
    step = np.maximum(decode.sum(axis=0), np.minimum(BATCHES, layout.pp) * decode.max(axis=0))
    return curve_of(idle_ttft, busy, step, shapes.output_tokens)


def curve_of(idle_ttft_ms: Floats, busy_ms: Floats, step_ms: Floats, output_tokens: float) -> Curve:
    """The curve of an engine whose bottleneck stage is ``busy_ms`` busy with the prefill of a request, and whose decode
    steps last ``step_ms``; axes as in ``Curve``, the first of ``busy_ms`` alone, that of ``step_ms`` optional."""
    decoded = max(output_tokens - 1, 1.0)
    tpot = step_ms + np.maximum(BATCHES - 1, 0.0) * busy_ms / decoded
    residence = decoded * tpot + busy_ms
    rate = 1e3 * BATCHES / residence
    utilisation = np.minimum(rate * busy_ms / 1e3, 0.999)
    wait = utilisation * busy_ms / (2 * (1 - utilisation))
    idle_tpot_ms = float(step_ms.flat[0])
    return Curve(idle_ttft_ms, idle_tpot_ms, np.maximum.accumulate(rate, axis=1), tpot, wait, step_ms, utilisation)


def _stage_totals(stages: list[Terms], shape: tuple[int, ...]) -> Floats:
    """ms of every stage, of shape (stages, *shape); stages that are alike are one object and summed once."""
    sums = {id(terms): np.broadcast_to(total(terms), shape) for terms in {id(t): t for t in stages}.values()}
    return np.stack([sums[id(terms)] for terms in stages])


def interpolate(curve_rate: Floats, values: Floats, rate_req_per_s: Floats | float) -> tuple[Floats, Floats]:
    """(values at a replica's rate, batch that carries it), NaN where no batch of the curve does.

    ``curve_rate`` and ``values`` have axes (chunk limits, ``BATCHES``); the result has the axes of ``rate_req_per_s``,
    then the chunk limits.
    """
    rate = np.asarray(rate_req_per_s, dtype=float)[..., None]
    above = (curve_rate < rate[..., None]).sum(axis=-1)
    beyond = above >= curve_rate.shape[1]
    high = np.minimum(above, curve_rate.shape[1] - 1)
    low = np.maximum(high - 1, 0)
    rows = np.arange(curve_rate.shape[0])
    start, span = curve_rate[rows, low], curve_rate[rows, high] - curve_rate[rows, low]
    share = np.clip(np.where(span > 0, (rate - start) / np.where(span > 0, span, 1.0), 0.0), 0.0, 1.0)
    found = values[rows, low] + share * (values[rows, high] - values[rows, low])
    batch = BATCHES[low] + share * (BATCHES[high] - BATCHES[low])
    return np.where(beyond, np.nan, found), np.where(beyond, np.inf, batch)
