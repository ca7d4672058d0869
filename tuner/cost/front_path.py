"""The path from client to engine under a steady load, in closed form: where it saturates, and what it adds to TTFT.

Every hop is an event loop, a single server. Of a request it works ``request_ms``, and ``message_ms`` for each message
of the answer, of whose tokens all but one cost ``token_ms``. Engines emit a token of every running sequence at the end
of a step, so messages come in bursts: of a hop that works ``c`` on each of ``B`` of them, and is busy for a share
``rho`` of the time, an arrival at any time finds ``B c`` with probability ``rho``, of which half is left on average,
and what piled up before: rho B c / (2 (1 - rho)). That is the mean wait of bulk arrivals (Kleinrock, Queueing Systems
I, 1975, sections 4.5 and 5.12, on the Pollaczek-Khinchine formula), where a bulk is one job of ``B c``. Streams that
are sent on at intervals tick each at their own time: their bulks are single messages. A request and its first token
wait for ``passes`` loops of each hop; the tail of the wait is taken as exponential.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tuner.ask.cluster import Cluster
from tuner.ask.front import Front
from tuner.ask.front_fits import FrontFit, HopFit, front_fit
from tuner.ask.layout import ParallelLayout
from tuner.cost.front_cores import stretch
from tuner.cost.front_stream import first_ms, messages, next_tick_ms

Floats = NDArray[np.float64]
_FULL = 1 - 1e-6  # the share of its time from which on a loop no longer keeps up
_HALVINGS = 40


@dataclass(frozen=True, slots=True)
class HopLoad:
    """One hop at some rates: the share of the time that each of its loops is busy, and the mean wait for it in ms,
    infinite where it does not keep up."""

    utilisation: Floats
    wait_ms: Floats


@dataclass(frozen=True, slots=True)
class PathLoad:
    """The path at some rates; arrays have the axes of the rates. ``hops`` are in the order of the path.

    ``messages`` are those of an answer, ``cores`` what the path keeps busy, ``idle_ms`` what it adds to TTFT when idle,
    ``wait_ms`` the mean that a request and its first token wait on top. Both are stretched where cores are short.
    """

    hops: Mapping[str, HopLoad]
    messages: Floats
    cores: Floats
    idle_ms: Floats
    wait_ms: Floats
    interval_ms: float

    @property
    def carries(self) -> NDArray[np.bool_]:
        """Where every hop keeps up."""
        return np.isfinite(self.wait_ms)

    def ttft_ms(
        self, idle_ms: ArrayLike, mean_ms: ArrayLike, at_ms: ArrayLike | None = None, percentile: float = 50.0
    ) -> Floats:
        """TTFT behind the path, of an engine whose own is ``idle_ms`` alone and ``mean_ms`` at this load: its mean, or
        where ``at_ms`` is the engine's ``percentile``, that.

        Engine and path wait independently of each other: the distances of both percentiles from their means add up as
        standard deviations do. Infinite where the path does not keep up.
        """
        mean = np.asarray(mean_ms, dtype=float)
        held = first_ms(idle_ms, mean - np.asarray(idle_ms, dtype=float), self.interval_ms)
        if at_ms is None:
            return np.asarray(held + self.idle_ms + self.wait_ms)
        far = self.wait_ms * (-np.log(max(1 - percentile / 100, 1e-4)) - 1)
        engine = next_tick_ms(at_ms, self.interval_ms) - held
        return np.asarray(held + self.idle_ms + self.wait_ms + _together(engine, far))


def _together(one: Floats, other: Floats) -> Floats:
    """The distance from the mean of a sum, of the distances of its independent parts; signs as they are."""
    squares = np.sign(one) * one**2 + np.sign(other) * other**2
    return np.asarray(np.sign(squares) * np.sqrt(np.abs(squares)))


@dataclass(frozen=True, slots=True)
class Path:
    """A path with so many of each hop; ``cores`` are those of the node that it shares (None: enough for all), of which
    ``engine_cores`` compute while requests are served."""

    fit: FrontFit
    front: Front
    cores: float | None = None
    engine_cores: float = 0.0

    @classmethod
    def of(cls, layout: ParallelLayout, cluster: Cluster) -> Path:
        """The path of a layout; where cores are devices, it shares them with the engines."""
        kind = cluster.profile.kind
        front = Front.of(layout, kind)
        shared = None if kind.own_memory else float(cluster.gpus_per_node)
        engines = 0.0 if shared is None else float(min(layout.devices, cluster.gpus_per_node))
        return cls(front_fit(front.name), front, shared, engines)

    def servers(self, hop: HopFit) -> int:
        """Event loops that share a hop's load."""
        return self.front.servers(hop.per)

    def messages(self, output_tokens: ArrayLike, tpot_ms: ArrayLike) -> Floats:
        """Mean messages of an answer."""
        return messages(output_tokens, tpot_ms, self.front.interval_ms)

    def load(self, rate_req_per_s: ArrayLike, output_tokens: float, tpot_ms: ArrayLike) -> PathLoad:
        """The path while answers of ``output_tokens`` come at a rate, of all engines together, and stream at
        ``tpot_ms``; the two arrays broadcast."""
        rate, tpot = np.asarray(rate_req_per_s, dtype=float), np.asarray(tpot_ms, dtype=float)
        count = self.messages(output_tokens, tpot)
        works = [_work_ms(hop, count, output_tokens) for hop in self.fit.hops]
        busy = rate * sum(hop.cores * work for hop, work in zip(self.fit.hops, works, strict=True)) / 1e3
        loops = sum(self.servers(hop) * max(hop.cores, 1.0) for hop in self.fit.hops)
        longer = stretch(self.cores, busy, loops, self.engine_cores)
        streams = rate * np.maximum(output_tokens - 1, 0.0) * tpot / 1e3
        hops: dict[str, HopLoad] = {}
        total = np.zeros(np.broadcast_shapes(rate.shape, tpot.shape))
        for hop, work in zip(self.fit.hops, works, strict=True):
            servers = self.servers(hop)
            utilisation = np.asarray(rate * work * longer / 1e3 / servers)
            each = hop.message_ms + (output_tokens / count - 1) * hop.token_ms
            burst = 1.0 if self.front.interval_ms else np.maximum(streams / servers, 1.0)
            with np.errstate(divide="ignore", invalid="ignore"):
                wait = utilisation * burst * each * longer / (2 * (1 - utilisation))
            wait = np.where(utilisation < _FULL, wait, np.inf)
            hops[hop.name] = HopLoad(np.broadcast_to(utilisation, total.shape), np.broadcast_to(wait, total.shape))
            total = total + self.fit.passes * wait
        shape = total.shape
        return PathLoad(hops, np.broadcast_to(count, shape), np.broadcast_to(busy, shape),
                        np.broadcast_to(self.fit.idle_ms * longer, shape),
                        np.asarray(total), float(self.front.interval_ms))  # fmt: skip

    def saturation(self, output_tokens: float, tpot_ms: float) -> tuple[str, float]:
        """(The hop that keeps up the least, requests/s at which it is busy all the time)."""
        count = float(self.messages(output_tokens, tpot_ms))
        works = {hop: float(_work_ms(hop, count, output_tokens)) for hop in self.fit.hops}
        first = max(works, key=lambda hop: works[hop] / self.servers(hop))
        most = 1e3 * self.servers(first) / works[first] if works[first] else np.inf
        if self.cores is None or not np.isfinite(most):
            return first.name, most
        low, high = 0.0, most
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            full = self.load(middle, output_tokens, tpot_ms).hops[first.name].utilisation >= 1
            low, high = (low, middle) if full else (middle, high)
        return first.name, low


def _work_ms(hop: HopFit, count: ArrayLike, output_tokens: float) -> Floats:
    """A hop's work for a request and the ``count`` messages of its answer, in ms."""
    sent = np.asarray(count, dtype=float)
    return np.asarray(hop.request_ms + sent * hop.message_ms + (output_tokens - sent) * hop.token_ms)
