"""What no layout of the space can pass, on all devices of the cluster: limits of memory, latency and rate.

A bound is optimistic: it supposes an engine that is ``MARGIN`` times faster in every step than the model says, the
factor by which the model alone may be contradicted. Where even that misses, no layout of the space can meet the SLO,
as far as the model errs by no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.ask.cluster import Cluster, Fleet
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import ModelShape
from tuner.ask.request import Metric, SloTarget, TuneRequest
from tuner.ask.slo import within
from tuner.cost.memory import GIB
from tuner.cost.steady import BATCHES, Floats
from tuner.cost.stored import weight_bytes
from tuner.plan.replica_prices import MARGIN, ReplicaPrices

Mask = NDArray[np.bool_]
FASTER = f"if engines were {MARGIN:g} × faster than the model"


@dataclass(frozen=True, slots=True)
class Bound:
    """One limit: the ``best`` that any layout can reach, optimistically, beside what is ``needed``, in ``unit``.

    ``proven``: even the optimistic best misses. ``kind`` is memory, ttft, tpot, itl, e2e, rate
    or front.
    """

    kind: str
    best: float
    needed: float
    unit: str
    proven: bool
    layout: str | None
    text: str


class Deployments:
    """All deployments of one replica that fit: arrays of (members, chunk limits, sequence limits).

    All times are ``slower`` times those of the model (below 1: faster), those of the paths to the engines as well.
    """

    def __init__(self, request: TuneRequest, priced: ReplicaPrices, slower: float = 1.0) -> None:
        self.request, self.priced, self.slower = request, priced, slower
        knobs = priced.knobs
        sequence = priced.costs.sequence(priced.members[0])
        longest = sequence.tokens_of(request.max_model_len, request.engine.block_tokens)
        fits = (priced.kv_tokens >= longest) & (knobs.limits[:, None] >= knobs.seqs[None, :])
        self.fits: Mask = np.broadcast_to(fits, priced.ttft_ms.shape)
        self.replicas: Floats = np.array([float(member.dp) for member in priced.members])
        self._behind = priced.behind.slowed(slower)
        self._asked = self._behind.at(request.workload.arrival.requests_per_s)

    def at_asked(self, metric: Metric, percentile: float | None) -> Floats:
        """A metric in ms at the asked rate, its mean without a percentile; infinite where it cannot be carried."""
        carried = (self._asked.batch[self.priced.place, :, None] <= self.priced.cap) & self.fits
        return np.where(carried, self._asked.value(metric, percentile)[self.priced.place, :, None], np.inf)

    def target_ms(self, target: SloTarget) -> Floats:
        """What the target bounds, in ms at the asked rate."""
        return self.at_asked(target.metric, target.percentile)

    def meeting(self) -> Mask:
        """Where every target holds at the asked rate."""
        meets = self.fits
        for target in self.request.slo:
            meets = meets & within(target, self.target_ms(target))
        return meets

    def idle_ms(self, metric: Metric) -> Floats:
        """A metric of one request alone, in ms; infinite where the layout does not fit."""
        return np.where(self.fits, self._behind.idle_ms(metric)[self.priced.place, :, None], np.inf)

    def highest_rate(self, at_most: bool = False) -> Floats:
        """Requests/s within the SLO, rounded down to a load at which the curve is known, or up with ``at_most``;
        0 where the layout does not fit."""
        rates = self.priced.curve.rate_req_per_s
        carries = np.ones((self._behind.replicas.size, *rates.shape), dtype=bool)
        for target in self.request.slo:
            carries &= within(target, self._behind.on_curve(target.metric, target.percentile))
        column = np.searchsorted(BATCHES, self.priced.cap, side="right") - 1
        if at_most:
            carries[..., 1:] |= carries[..., :-1].copy()
            column = column + 1
        reach = np.maximum.accumulate(np.where(carries, rates, 0.0), axis=-1)
        rate = np.take_along_axis(reach, np.clip(column, 0, BATCHES.size - 1)[None], axis=-1)
        rate = np.where(self.priced.cap >= 1, rate, 0.0)[self.priced.place] / self.slower
        return np.where(self.fits, rate * self.replicas[:, None, None], 0.0)

    def layout(self, flat: int) -> ParallelLayout:
        """The layout at a flat index."""
        member, pair = divmod(flat, self.priced.knobs.count)
        return self.priced.knobs.layout(self.priced.members[member], pair)


def best_of(all_: Sequence[Deployments], value: Callable[[Deployments], Floats]) -> tuple[float, ParallelLayout | None]:
    """The smallest value of all layouts, and the first layout that has it; None where all are infinite."""
    best, layout = np.inf, None
    for one in all_:
        values = value(one).ravel()
        place = int(np.argmin(values))
        if values[place] < best:
            best, layout = float(values[place]), one.layout(place)
    return best, layout


def bounds(
    request: TuneRequest, model: ModelShape, cluster: Cluster | Fleet, priced: Sequence[ReplicaPrices]
) -> tuple[Bound, ...]:
    """Every limit that stands against the request, the proven ones first; none where the model sees a layout."""
    if not any(Deployments(request, one).fits.any() for one in priced):
        return (_memory(request, model, cluster),)
    found = [*_latencies(request, priced)]
    if not any(bound.proven for bound in found):
        found += _rate(request, priced)
    return tuple(sorted(found, key=lambda bound: not bound.proven))


def _memory(request: TuneRequest, model: ModelShape, cluster: Cluster | Fleet) -> Bound:
    """No layout fits: do the weights alone, kept once, fit on all devices of a group together?"""
    weights = weight_bytes(model, ParallelLayout(), 0) / GIB
    shares = [group.profile.kind.memory_share(request.engine.gpu_memory_utilization) for group in cluster.groups]
    room = max(
        group.devices * group.profile.memory_bytes * share / GIB
        for group, share in zip(cluster.groups, shares, strict=True)
    )
    text = f"memory: the weights alone are {weights:.0f} GiB; all devices together have {room:.0f} GiB for them"
    if weights <= room:
        text += f", but no layout of the space leaves each device room for a sequence of {request.max_model_len} tokens"
    return Bound("memory", room, weights, "GiB", weights > room, None, text)


def _latencies(request: TuneRequest, priced: Sequence[ReplicaPrices]) -> Iterator[Bound]:
    """Even one request alone on an idle engine misses a target."""
    idle = [Deployments(request, one) for one in priced]
    for target in request.slo:
        alone_ms, layout = best_of(idle, lambda one, metric=target.metric: one.idle_ms(metric))  # type: ignore[misc]
        if layout is None or within(target, alone_ms):
            continue
        best_ms = alone_ms / MARGIN
        text = f"{target.metric.value}: one request alone takes {alone_ms:.1f} ms on the fastest layout, {layout}; "
        text += f"{best_ms:.1f} ms {FASTER}; the target is {target.ms:g} ms"
        yield Bound(target.metric.value, best_ms, target.ms, "ms", not within(target, best_ms), str(layout), text)


def _rate(request: TuneRequest, priced: Sequence[ReplicaPrices]) -> Iterator[Bound]:
    """All replicas that the devices hold, each at its best, carry less than the asked rate within the SLO."""
    asked = request.workload.arrival.requests_per_s
    modelled, layout = best_of([Deployments(request, one) for one in priced], lambda one: -one.highest_rate())
    best, fastest = best_of(
        [Deployments(request, one, 1 / MARGIN) for one in priced], lambda one: -one.highest_rate(at_most=True)
    )
    if -modelled >= asked or fastest is None:
        return
    text = "rate: no rate is within the SLO by the model"
    if modelled < 0:
        text = f"rate: at most {-modelled:.2f} requests/s are within the SLO by the model, with {layout}"
    text += f", {-best:.2f} at the very most {FASTER}; {asked:g} are asked"
    yield Bound("rate", -best, asked, "requests/s", -best < asked, str(fastest), text)
