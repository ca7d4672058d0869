"""The order of priced candidates, and those further down that the model cannot tell from the best.

The model may err by ``MARGIN``. So beside the first of the ranking, those stay that would beat its head if they were
that much faster, the ones that need the least of it first; and of every shape the best, which is what wins where all
engines are slower than the model and more of them are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tuner.ask.request import Metric, Objective, TuneRequest
from tuner.cost.steady import Floats
from tuner.plan.bounds import Deployments, Mask
from tuner.plan.replica_prices import MARGIN, ReplicaPrices

Places = NDArray[np.intp]
_FACTORS = (1.1, 1.2, 1.3, 1.4)  # looked at where more would win by ``MARGIN`` than can stay


def columns(request: TuneRequest, priced: Sequence[ReplicaPrices], kept: Sequence[Places]) -> list[Floats]:
    """The sort keys of all kept candidates, a column per key; ``kept`` are flat indices into each replica's arrays."""
    parts = [
        [np.broadcast_to(key, replica.ttft_ms.shape).ravel()[places] for key in _sort_keys(request, replica)]
        for replica, places in zip(priced, kept, strict=True)
    ]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def smallest(keys: Sequence[Floats], count: int) -> list[int]:
    """Indices of the first ``count`` rows in the order of the keys, most important first; ties as they come.

    Only rows that tie in all keys before are compared by the next, so that a million are not sorted for a few dozen.
    """
    pool, sure = np.arange(keys[0].size), []
    for key in keys:
        if pool.size <= count:
            break
        values = key[pool]
        edge = np.partition(values, count - 1)[count - 1]
        sure.append(pool[values < edge])
        pool, count = pool[values == edge], count - sure[-1].size
    found = np.sort(np.concatenate([*sure, pool[:count]]))
    return [int(i) for i in found[np.lexsort([key[found] for key in reversed(keys)])]]


def contenders(
    request: TuneRequest,
    priced: Sequence[ReplicaPrices],
    kept: Sequence[Places],
    keys: Sequence[Floats],
    order: Sequence[int],
    keep: int,
) -> tuple[list[int], bool]:
    """(of those not in ``order``, at most ``keep`` that would beat its head if they were ``MARGIN`` times faster; is
    that all of them?)."""
    faster = columns(request, [_faster(replica, request, MARGIN) for replica in priced], kept)
    wins = _beats(request, faster, keys, order)
    places = np.flatnonzero(wins)
    if places.size <= keep:
        return [int(i) for i in places], True
    needed = np.full(places.size, MARGIN)
    for factor in reversed(_FACTORS):
        at = columns(request, [_faster(replica, request, factor) for replica in priced], kept)
        needed[_beats(request, at, keys, order)[places]] = factor
    return [int(places[i]) for i in smallest([needed, *(key[places] for key in faster)], keep)], False


def of_each_shape(
    priced: Sequence[ReplicaPrices], kept: Sequence[Places], keys: Sequence[Floats], chosen: Sequence[int], keep: int
) -> list[int]:
    """Of every engine in every number of which nothing is in ``chosen``, the best: at most ``keep``, the best first.

    Where engines turn out slower than the model, more of them are needed than it says, and all that are chosen by rank
    may be too few. Which shape is best is what prices say least surely; the scheduler's limits of one share its prices.
    """
    base = np.cumsum([0, *(len(replica.members) for replica in priced)])
    shape = np.concatenate([base[i] + _same(one, kept[i]) for i, one in enumerate(priced)])
    alive = np.ones(shape.size, dtype=bool)
    for key in keys:
        best = np.full(base[-1], np.inf)
        np.minimum.at(best, shape[alive], key[alive])
        alive &= key == best[shape]
    known = np.zeros(base[-1], dtype=bool)
    known[shape[list(chosen)]] = True
    found, first = np.unique(shape[alive], return_index=True)
    new = np.flatnonzero(alive)[first[~known[found]]]
    return [int(new[i]) for i in smallest([key[new] for key in keys], keep)]


def _same(replica: ReplicaPrices, places: Places) -> Places:
    """By kept candidate, the first member with as many replicas as its own: they differ in executor and path."""
    counts = [member.dp for member in replica.members]
    return np.array([counts.index(count) for count in counts])[places // replica.knobs.count]


def _beats(request: TuneRequest, faster: Sequence[Floats], keys: Sequence[Floats], order: Sequence[int]) -> Mask:
    """Which candidates are better than the head of the order in what says who wins: the SLO, then the objective."""
    depth = 1 if request.objective is Objective.MAX_GOODPUT else 2
    wins, ties = np.zeros(keys[0].size, dtype=bool), np.ones(keys[0].size, dtype=bool)
    for optimistic, nominal in list(zip(faster, keys, strict=True))[:depth]:
        wins |= ties & (optimistic < nominal[order[0]])
        ties &= optimistic == nominal[order[0]]
    wins[list(order)] = False
    return wins


def _faster(priced: ReplicaPrices, request: TuneRequest, factor: float) -> ReplicaPrices:
    """The same replica on an engine that is faster in every step."""
    one = Deployments(request, priced, 1 / factor)
    ttft_ms, tpot_ms = one.at_asked(Metric.TTFT, None), one.at_asked(Metric.TPOT, None)
    return replace(priced, ttft_ms=ttft_ms, tpot_ms=tpot_ms, goodput=one.highest_rate(), meets=one.meeting())


def _sort_keys(request: TuneRequest, priced: ReplicaPrices) -> list[Floats]:
    """Columns to sort by, smallest first, most important first; infinities where a layout cannot carry the rate."""
    decoded = max(request.workload.output_tokens.mean - 1, 0)
    latency = np.nan_to_num(priced.ttft_ms + priced.tpot_ms * decoded, nan=np.inf)
    misses = (~priced.meets).astype(float)
    devices = np.array([float(member.devices) for member in priced.members])[:, None, None]
    keys = {
        Objective.MIN_GPUS: np.where(priced.meets, devices, 0.0),
        Objective.MIN_COST: np.where(priced.meets, devices * (priced.costs.cluster.usd_per_gpu_hour or 1.0), 0.0),
        Objective.MAX_GOODPUT: -np.round(priced.goodput, 6),
        Objective.MIN_LATENCY: latency,
    }
    wanted = [keys[objective] for objective in request.objectives]
    if request.objective is Objective.MAX_GOODPUT:
        return [*wanted, latency, devices]
    return [misses, *wanted, -np.where(priced.meets, 0.0, priced.goodput), latency, devices]
