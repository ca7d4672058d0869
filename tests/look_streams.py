"""Looks at a deployment that never was: a load that follows days and weeks, noise with a memory, and one change."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from tuner.ask.request import Metric, SloTarget
from tuner.retune.seen import Look, Tokens
from tuner.stats.buckets import Within

DAY_S, WEEK_S = 86_400.0, 604_800.0
MONDAY_S = 2800 * WEEK_S + 4 * DAY_S  # a Monday at midnight, UTC
SLO = (SloTarget(metric=Metric.TTFT, percentile=99, ms=500),)
_CHUNK = 4096


@dataclass(frozen=True)
class Stream:
    """What a stream is like. ``*_noise`` are deviations of logarithms whose memory fades by 1/e in ``memory_s``; ``cv``
    is deviation ÷ mean of the lengths of single requests, lognormal; ``day`` the logarithm of peak over mean of the
    load's day, ``weekend`` its part on weekends."""

    every_s: float = 60.0
    req_per_s: float = 2.0
    prompt: float = 1000.0
    output: float = 200.0
    prefix: float = 0.4
    ttft_ms: float = 200.0
    ranks: int = 4
    missed: float = 0.004
    day: float = 0.7
    weekend: float = 0.6
    cv: float = 1.0
    load_noise: float = 0.1
    length_noise: float = 0.03
    ms_noise: float = 0.05
    rank_noise: float = 0.02
    memory_s: float = 7200.0
    queueing: float = 0.3  # by which part the peak of the day is slower


@dataclass(frozen=True)
class Change:
    """From ``at_s`` (since the begin) on, each is this many times what it was; ``slow_rank`` the step of rank 0."""

    at_s: float = math.inf
    rate: float = 1.0
    prompt: float = 1.0
    ms: float = 1.0
    slow_rank: float = 1.0
    missed: float = 1.0
    prefix: float = 1.0


def looks(stream: Stream, seconds: float, change: Change, seed: int, begin_s: float = MONDAY_S) -> Iterator[Look]:
    """Looks from ``begin_s`` on."""
    draw = np.random.default_rng(seed)
    wander = np.zeros(4 + stream.ranks)
    keep = math.exp(-stream.every_s / stream.memory_s)
    scale = np.array([stream.load_noise, stream.length_noise, stream.length_noise, stream.ms_noise])
    scale = np.concatenate([scale, np.full(stream.ranks, stream.rank_noise)]) * math.sqrt(1 - keep * keep)
    wander = draw.normal(size=len(scale)) * scale / math.sqrt(1 - keep * keep)
    count = int(seconds / stream.every_s)
    for first in range(0, count, _CHUNK):
        shocks = draw.normal(size=(_CHUNK, len(scale))) * scale
        sampling = draw.normal(size=(_CHUNK, 4 + stream.ranks))
        for index in range(first, min(count, first + _CHUNK)):
            wander = keep * wander + shocks[index - first]
            at_s = (index + 1) * stream.every_s
            now = change if at_s > change.at_s else Change()
            yield _look(stream, now, begin_s + at_s, wander, sampling[index - first], draw)


def _look(
    stream: Stream, change: Change, at_s: float, wander: np.ndarray, sampling: np.ndarray, draw: np.random.Generator
) -> Look:
    load, prompt, output, slow, *ranks = np.exp(wander).tolist()
    of_day = math.sin(2 * math.pi * (at_s - 8 * 3600) / DAY_S)
    weekend = stream.weekend if (at_s - MONDAY_S) % WEEK_S >= 5 * DAY_S else 1.0
    rate = stream.req_per_s * change.rate * load * math.exp(stream.day * of_day) * weekend
    requests = int(draw.poisson(rate * stream.every_s))
    noise = sampling.tolist()
    prompt_mean = stream.prompt * change.prompt * prompt * _mean(stream.cv, requests, noise[0])
    output_mean = stream.output * output * _mean(stream.cv, requests, noise[1])
    busy = 1 + stream.queueing * max(0.0, math.log(rate / stream.req_per_s))
    ms = stream.ttft_ms * change.ms * slow * busy * _mean(1.0, requests, noise[2]) * change.prompt
    missed = int(draw.binomial(requests, min(1.0, stream.missed * change.missed)))
    steps = {f"rank {n}": 20 * load**0.2 * one * (1 + 0.02 * sampling[4 + n]) for n, one in enumerate(ranks)}
    if steps:
        steps["rank 0"] *= change.slow_rank
    met = float(requests - missed)
    seen = Look(at_s, stream.every_s, arrived=float(requests), failed=0.0, step_ms_by_rank=steps)
    if not requests:
        return replace(seen, within={SLO[0].key: Within(0.0, 0.0, 0.0, 0.0)}, step_ms_by_rank={})
    return replace(
        seen,
        within={SLO[0].key: Within(float(requests), met, met, met)},
        mean_ms={Metric.TTFT: ms},
        prompt=Tokens(float(requests), prompt_mean, stream.cv * prompt_mean),
        output=Tokens(float(requests), output_mean, stream.cv * output_mean),
        prefix_share=min(1.0, max(0.0, stream.prefix * change.prefix + 0.5 * noise[3] / math.sqrt(requests))),
    )


def _mean(cv: float, requests: int, normal: float) -> float:
    """The mean of some requests, about 1, whose single values have this deviation: lognormal, as those are."""
    spread = math.log1p(cv * cv / max(1, requests))
    return math.exp(math.sqrt(spread) * normal - spread / 2)
