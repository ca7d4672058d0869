"""The load curve of a replica behind the path to it: what a client sees of several deployments of it at once.

A path carries the requests of all replicas of a deployment together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from tuner.ask.request import Metric
from tuner.cost.front_path import Path, PathLoad, Paths
from tuner.cost.front_stream import gap_ms, seen_tpot_ms
from tuner.cost.steady import Curve, Floats, interpolate


class CurveBehind:
    """A curve, and a path for each deployment of so many ``replicas``; engines take ``slower`` × the curve's times.

    Arrays have the axes (deployments, chunk limits), on the curve ``BATCHES`` after them.
    """

    def __init__(
        self,
        curve: Curve,
        paths: Sequence[Path],
        replicas: ArrayLike,
        output_tokens: float,
        slower: float = 1.0,
    ) -> None:
        self.curve, self.paths, self.slower = curve, tuple(paths), slower
        self._replicas, self._output = np.asarray(replicas, dtype=float), output_tokens
        self._on_curve: PathLoad | None = None
        self._made: dict[int, Paths] = {}  # by the number of axes

    def _paths(self, axes: int) -> Paths:
        if axes not in self._made:
            self._made[axes] = Paths(self.paths, axes)
        return self._made[axes]

    def slowed(self, slower: float) -> CurveBehind:
        """The same where everything, engines and paths, takes ``slower`` times as long."""
        if slower == self.slower:
            return self
        paths = [path.slowed(slower / self.slower) for path in self.paths]
        return CurveBehind(self.curve, paths, self._replicas, self._output, slower)

    @property
    def replicas(self) -> Floats:
        """By deployment."""
        return self._replicas

    def at_limit(self, row: int) -> CurveBehind:
        """All deployments, at one chunk limit."""
        rows, curve = slice(row, row + 1), self.curve
        own = replace(
            curve, idle_ttft_ms=curve.idle_ttft_ms[rows], rate_req_per_s=curve.rate_req_per_s[rows],
            tpot_ms=np.broadcast_to(curve.tpot_ms, curve.rate_req_per_s.shape)[rows], wait_ms=curve.wait_ms[rows],
            step_ms=np.broadcast_to(curve.step_ms, curve.rate_req_per_s.shape)[rows],
            utilisation=curve.utilisation[rows],
        )  # fmt: skip
        return CurveBehind(own, self.paths, self._replicas, self._output, self.slower)

    def deployment(self, place: int, row: int) -> CurveBehind:
        """One of the deployments, at one chunk limit."""
        own = self.at_limit(row).curve
        return CurveBehind(own, [self.paths[place]], self._replicas[place : place + 1], self._output, self.slower)

    def idle_ms(self, metric: Metric) -> Floats:
        """A metric of one request alone, of shape (deployments, chunk limits)."""
        idle, tpot = self.curve.idle_ttft_ms[None, :] * self.slower, self.curve.idle_tpot_ms * self.slower
        load = self._paths(2).load(np.zeros((1, 1)), self._output, np.full((1, 1), tpot))
        return self.seen(metric, None, load, idle, idle, idle, np.full_like(idle, tpot))

    def on_curve(self, metric: Metric, percentile: float | None) -> Floats:
        """A metric over the whole curve, infinite where the path does not keep up."""
        curve = self.curve
        if self._on_curve is None:
            rate = curve.rate_req_per_s[None] * (self._replicas / self.slower)[:, None, None]
            self._on_curve = self._paths(3).load(rate, self._output, curve.tpot_ms[None] * self.slower)
        idle, mean, tpot = curve.idle_ttft_ms[None, :, None], curve.ttft_ms()[None], curve.tpot_ms[None]
        at = mean if percentile is None else curve.ttft_ms(percentile)[None]
        values = (value * self.slower for value in (idle, mean, at, tpot))
        return self.seen(metric, percentile, self._on_curve, *values)

    def at(self, rate_req_per_s: ArrayLike) -> AtRate:
        """The deployments at a rate of each as a whole; of one deployment, there may be many rates instead."""
        curve = self.curve
        rate = np.asarray(rate_req_per_s, dtype=float) * np.ones(self._replicas.shape)
        each = rate / self._replicas * self.slower
        mean, batch = interpolate(curve.rate_req_per_s, curve.ttft_ms(), each)
        tpot = interpolate(curve.rate_req_per_s, np.broadcast_to(curve.tpot_ms, curve.rate_req_per_s.shape), each)[0]
        load = self._paths(2).load(rate[:, None], self._output, tpot * self.slower)
        return AtRate(self, each, load, mean * self.slower, tpot * self.slower, batch)

    def seen(
        self,
        metric: Metric,
        percentile: float | None,
        load: PathLoad,
        idle: Floats,
        mean: Floats,
        at: Floats,
        tpot: Floats,
    ) -> Floats:
        """What a client sees of an engine's TTFT alone, its mean, its percentile, and its TPOT."""
        tail = () if percentile is None else (at, percentile)
        if metric is Metric.TTFT:
            return load.ttft_ms(idle, mean, *tail)
        if metric is Metric.E2E:
            return np.asarray(load.ttft_ms(idle, mean, *tail, ticks=False) + tpot * max(self._output - 1, 0))
        if not load.interval_ms.any():
            return np.asarray(np.where(load.carries, tpot, np.inf))
        if metric is Metric.ITL:
            return np.where(load.carries, gap_ms(tpot, self._output, load.interval_ms), np.inf)
        with np.errstate(invalid="ignore"):
            held = load.ttft_ms(idle, mean) - load.ttft_ms(idle, mean, ticks=False)
        return np.where(load.carries, seen_tpot_ms(tpot, mean, held, self._output), np.inf)


@dataclass(frozen=True, slots=True)
class AtRate:
    """Deployments at one rate: ``load`` of their paths, mean TTFT and TPOT of their engines, NaN where no batch of the
    curve carries the rate, and the ``batch`` that does. Arrays of shape (deployments or rates, chunk limits)."""

    behind: CurveBehind
    each_req_per_s: Floats
    load: PathLoad
    mean_ms: Floats
    tpot_ms: Floats
    batch: Floats

    def value(self, metric: Metric, percentile: float | None) -> Floats:
        """A metric as a client sees it, in ms: NaN where the engines cannot carry the rate, infinite where the path
        cannot."""
        curve, slower = self.behind.curve, self.behind.slower
        at = self.mean_ms
        if percentile is not None and metric in (Metric.TTFT, Metric.E2E):
            at = interpolate(curve.rate_req_per_s, curve.ttft_ms(percentile), self.each_req_per_s)[0] * slower
        idle = curve.idle_ttft_ms[None, :] * slower
        return self.behind.seen(metric, percentile, self.load, idle, self.mean_ms, at, self.tpot_ms)
