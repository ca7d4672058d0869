"""Which path to the engines a layout gets, of those in the space: an engine is ranked once, behind its best one.

A path moves no price of an engine, so paths never multiply the ranking. Where several let an engine hold the SLO, with
some room, the one with the fewest processes is best; of those as many, the one with the lowest latency.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tuner.ask.cluster import Cluster
from tuner.ask.layout import AXES, FRONT_AXES, ParallelLayout
from tuner.ask.request import Metric, Objective, TuneRequest
from tuner.ask.rules import DropReason
from tuner.ask.slo import within, worst_ratio
from tuner.cost.front_curve import CurveBehind
from tuner.cost.front_path import CORES, Path
from tuner.cost.steady import Curve, Floats

ROOM = 0.8  # the share that the asked rate may be of what saturates a path: beyond it, waits grow fast
Fronts = tuple[ParallelLayout, ...]  # one engine behind several paths
Told = Callable[[DropReason, int, ParallelLayout, str], None]


def best_fronts(
    request: TuneRequest, cluster: Cluster, engines: Sequence[Fronts], curve: Curve, knobs: int, told: Told
) -> Fronts:
    """Every engine of a replica behind its best path; the others are ``told`` as dropped, ``knobs`` candidates each."""
    if all(len(fronts) == 1 for fronts in engines):
        return tuple(fronts[0] for fronts in engines)
    layouts = [layout for fronts in engines for layout in fronts]
    behind, keys = _compared(request, cluster, layouts, curve)
    at = _at_asked(request, behind)
    chosen, start = [], 0
    for fronts in engines:
        own = np.arange(start, start + len(fronts))
        start += len(fronts)
        best = int(own[np.lexsort([key[own] for key in reversed(keys)])[0]])
        chosen.append(layouts[best])
        for other in own:
            if other != best:
                beside = f"; {front_words(layouts[best])}: {'the same' if at[other] == at[best] else at[best]}"
                figure = f"the same engine, behind a worse path: {at[other]}{beside}"
                told(DropReason.OTHER_FRONT, knobs, layouts[other], figure)
    return tuple(chosen)


def order_of(request: TuneRequest, cluster: Cluster, layouts: Sequence[ParallelLayout], curve: Curve) -> list[int]:
    """Places of layouts that are one engine behind several paths, the best first."""
    keys = _compared(request, cluster, layouts, curve)[1]
    return [int(place) for place in np.lexsort(keys[::-1])]


def _compared(
    request: TuneRequest, cluster: Cluster, layouts: Sequence[ParallelLayout], curve: Curve
) -> tuple[CurveBehind, list[Floats]]:
    paths = [Path.of(layout, cluster) for layout in layouts]
    replicas = np.array([float(layout.dp) for layout in layouts])
    behind = CurveBehind(curve, paths, replicas, float(request.workload.output_tokens.mean))
    return behind, _keys(request, behind, np.array([float(path.claimed) for path in paths]))


def front_words(layout: ParallelLayout) -> str:
    """The axes of a layout's path that are not at their defaults, as a layout prints them."""
    shown = [name for name in FRONT_AXES if getattr(layout, name) != AXES[name].default]
    return ",".join(f"{name}={AXES[name].shown(getattr(layout, name))}" for name in shown) or "front=auto"


def saturation_words(name: str, tokens_per_s: float, cores: float | None) -> str:
    """What of a path saturates, and where: a hop, or the ``cores`` of its node."""
    if name == CORES and cores is not None:
        return f"the node's {cores:.0f} cores are full at {tokens_per_s:,.0f} tokens/s"
    return f"the {name} saturates at {tokens_per_s:,.0f} tokens/s"


def _at_asked(request: TuneRequest, behind: CurveBehind) -> list[str]:
    """What each path does at the asked rate, in words."""
    output, asked = float(request.workload.output_tokens.mean), _asked(request)
    at = behind.at(asked)
    ttft_ms = np.nan_to_num(at.value(Metric.TTFT, None), nan=np.inf).min(axis=1)
    most_ms = float(np.max(behind.curve.tpot_ms))
    tpot_ms = np.nan_to_num(np.broadcast_to(at.tpot_ms, at.mean_ms.shape), nan=most_ms).min(axis=1)
    told = []
    for path, ttft, tpot in zip(behind.paths, ttft_ms, tpot_ms, strict=True):
        if np.isfinite(ttft):
            told.append(f"TTFT {ttft:.0f} ms at the asked rate")
            continue
        name, most = path.saturation(output, float(tpot))
        if most <= asked:
            told.append(f"{saturation_words(name, most * output, path.cores)}, asked are {asked * output:,.0f}")
        else:
            told.append("the engine itself does not keep up with the asked rate")
    return told


def _asked(request: TuneRequest) -> float:
    return request.workload.arrival.requests_per_s


def _keys(request: TuneRequest, behind: CurveBehind, claimed: Floats) -> list[Floats]:
    """By path, what makes it better than another, smallest first, most important first; each at the scheduler's limits
    that suit it best."""
    at = behind.at(_asked(request))
    decoded = max(float(request.workload.output_tokens.mean) - 1, 0.0)
    latency_ms = at.value(Metric.TTFT, None) + decoded * at.value(Metric.TPOT, None)
    latency_ms = np.nan_to_num(latency_ms, nan=np.inf).min(axis=1)
    if request.objective is Objective.MAX_GOODPUT:
        return [-np.round(_highest_rate(request, behind), 6), claimed, latency_ms]
    over = np.zeros(len(claimed))
    if request.slo:
        values = worst_ratio(request.slo, lambda target: at.value(target.metric, target.percentile))
        over = np.nan_to_num(values, nan=np.inf).min(axis=1)
    misses = over > 1
    strained = np.nan_to_num(at.load.busiest, nan=np.inf).min(axis=1) > ROOM
    if request.objective is Objective.MIN_LATENCY:
        return [misses.astype(float), strained.astype(float), latency_ms, claimed]
    reach = np.where(misses, _highest_rate(request, behind), 0.0) if misses.any() else np.zeros(len(claimed))
    return [misses.astype(float), -reach, strained.astype(float), claimed, latency_ms]


def _highest_rate(request: TuneRequest, behind: CurveBehind) -> Floats:
    """Requests/s within the SLO, with the largest chunks."""
    curve = behind.curve
    last = int(np.argmax(curve.rate_req_per_s[:, -1]))
    own = behind.at_limit(last)
    rates = own.curve.rate_req_per_s[0]
    carries = np.ones((len(behind.paths), 1, rates.size), dtype=bool)
    for target in request.slo:
        carries &= within(target, own.on_curve(target.metric, target.percentile))
    carries &= np.isfinite(own.on_curve(Metric.TTFT, None))
    return np.asarray(np.where(carries[:, 0], rates, 0.0).max(axis=1) * behind.replicas)
