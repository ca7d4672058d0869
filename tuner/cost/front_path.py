"""The path from client to engine under a steady load, in closed form: where it saturates, and what it adds to TTFT.

Every hop is an event loop, a single server. Of a request it works ``request_ms``, and ``message_ms`` for each message
of the answer, of whose tokens all but one cost ``token_ms``. Engines emit a token of every running sequence at the end
of a step, so messages come in bursts: of a hop that works ``c`` on each of ``B`` of them, and is busy for a share
``rho`` of the time, an arrival at any time finds ``B c`` with probability ``rho``, of which half is left on average,
and what piled up before: rho B c / (2 (1 - rho)). That is the mean wait of bulk arrivals (Kleinrock, Queueing Systems
I, 1975, sections 4.5 and 5.12, on the Pollaczek-Khinchine formula), where a bulk is one job of ``B c``. Streams that
are sent on at intervals tick each at their own time: their bulks are single messages. The first token leaves with its
burst, ``(B - 1) c`` later than alone. A request and its first token wait so ``passes`` times at each hop; the tail of
the wait is taken as exponential.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tuner.ask.cluster import Cluster
from tuner.ask.front import LAUNCHED, Front
from tuner.ask.front_fits import FrontFit, HopFit, front_fit, front_names
from tuner.ask.layout import ParallelLayout
from tuner.cost.front_cores import stretch
from tuner.cost.front_stream import first_ms, messages, next_tick_ms

Floats = NDArray[np.float64]
_FULL = 1e-6  # the share of its time that a loop is idle which keeps up
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
    interval_ms: Floats

    @property
    def busiest(self) -> Floats:
        """The utilisation of the busiest hop."""
        if not self.hops:
            return np.zeros(self.wait_ms.shape)
        return np.asarray(np.stack([hop.utilisation for hop in self.hops.values()]).max(axis=0))

    @property
    def carries(self) -> NDArray[np.bool_]:
        """Where every hop keeps up."""
        return np.isfinite(self.wait_ms)

    def ttft_ms(
        self,
        idle_ms: ArrayLike,
        mean_ms: ArrayLike,
        at_ms: ArrayLike | None = None,
        percentile: float = 50.0,
        *,
        ticks: bool = True,
    ) -> Floats:
        """TTFT behind the path, of an engine whose own is ``idle_ms`` alone and ``mean_ms`` at this load: its mean, or
        where ``at_ms`` is the engine's ``percentile``, that. Without ``ticks`` nothing is held until one.

        Engine and path wait independently of each other: the distances of both percentiles from their means add up as
        standard deviations do. Infinite where the path does not keep up.
        """
        interval_ms = self.interval_ms if ticks else np.zeros(())
        mean = np.asarray(mean_ms, dtype=float)
        held = first_ms(idle_ms, mean - np.asarray(idle_ms, dtype=float), interval_ms)
        if at_ms is None:
            return np.asarray(held + self.idle_ms + self.wait_ms)
        far = self.wait_ms * (-np.log(max(1 - percentile / 100, 1e-4)) - 1)
        engine = next_tick_ms(at_ms, interval_ms) - held
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
        """The path of a layout; where cores are devices, it shares them with the engines. One that was never measured
        counts as the one that is launched by default."""
        kind = cluster.profile.kind
        front = Front.of(layout, kind)
        shared = None if kind.own_memory else float(cluster.gpus_per_node)
        engines = 0.0 if shared is None else float(min(layout.devices, cluster.gpus_per_node))
        return cls(front_fit(front.name if front.name in front_names() else LAUNCHED), front, shared, engines)

    def servers(self, hop: HopFit) -> int:
        """Event loops that share a hop's load."""
        return self.front.servers(hop.per)

    def slowed(self, slower: float) -> Path:
        """The same path where all work takes ``slower`` times as long."""
        hops = tuple(
            replace(
                hop, request_ms=hop.request_ms * slower, message_ms=hop.message_ms * slower,
                token_ms=hop.token_ms * slower,
            ) for hop in self.fit.hops
        )  # fmt: skip
        return replace(self, fit=replace(self.fit, hops=hops, idle_ms=self.fit.idle_ms * slower))

    @property
    def claimed(self) -> int:
        """Processes of the path."""
        return sum(self.servers(hop) for hop in self.fit.hops)

    @property
    def loops(self) -> float:
        """Event loops of all hops, with their further threads."""
        return float(sum(self.servers(hop) * max(hop.cores, 1.0) for hop in self.fit.hops))

    def load(self, rate_req_per_s: ArrayLike, output_tokens: float, tpot_ms: ArrayLike) -> PathLoad:
        """The path while answers of ``output_tokens`` come at a rate, of all engines together, and stream at
        ``tpot_ms``; the two arrays broadcast."""
        return _Hops.of(self).load(np.asarray(rate_req_per_s, dtype=float), output_tokens, tpot_ms)

    def saturation(self, output_tokens: float, tpot_ms: float) -> tuple[str, float]:
        """(The hop that keeps up the least, requests/s at which it is busy all the time)."""
        if not self.fit.hops:
            return self.fit.name, np.inf
        count = float(messages(output_tokens, tpot_ms, self.front.interval_ms))
        works = {hop: _work_ms(hop, count, output_tokens) for hop in self.fit.hops}
        first = max(works, key=lambda hop: works[hop] / self.servers(hop))
        if not works[first]:
            return first.name, np.inf
        low, high = 0.0, 1e3 * self.servers(first) / works[first]
        if self.cores is None:
            return first.name, high
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            full = self.load(middle, output_tokens, tpot_ms).hops[first.name].utilisation >= 1
            low, high = (low, middle) if full else (middle, high)
        return first.name, low


def _work_ms(hop: HopFit, count: float, output_tokens: float) -> float:
    """A hop's work for a request and the ``count`` messages of its answer, in ms."""
    return hop.request_ms + count * hop.message_ms + (output_tokens - count) * hop.token_ms


class Paths:
    """Several paths at once, one for each place of the first axis."""

    def __init__(self, paths: Sequence[Path], axes: int) -> None:
        """Rates have ``axes`` axes."""
        self.paths, self._hops = tuple(paths), _Hops.of_all(paths, axes)

    def load(self, rate_req_per_s: Floats, output_tokens: float, tpot_ms: ArrayLike) -> PathLoad:
        """As ``Path.load``; hops are named by their place."""
        return self._hops.load(rate_req_per_s, output_tokens, tpot_ms)


@dataclass(frozen=True, slots=True)
class _Hops:
    """The figures of one path, or of several as arrays: by hop the names, and in rows request, message and token in ms,
    cores, the servers and how many of them share a burst; then what the whole has."""

    names: tuple[str, ...]
    rows: tuple[Floats, ...]
    idle_ms: Floats
    passes: Floats
    interval_ms: Floats
    engines: Floats
    loops: Floats
    cores: float | None
    engine_cores: Floats

    @classmethod
    def of(cls, path: Path) -> _Hops:
        return cls.of_all((path,), 0)

    @classmethod
    def of_all(cls, paths: Sequence[Path], axes: int) -> _Hops:
        names = max((tuple(hop.name for hop in path.fit.hops) for path in paths), key=len)
        table = np.array([_figures(path, len(names)) for path in paths])
        shape = (len(paths), *(1 for _ in range(axes - 1))) if axes else ()
        *rows, idle_ms, passes, interval_ms, engines, loops, engine_cores = (row.reshape(shape) for row in table.T)
        if len(paths) > 1:
            names = tuple(map(str, range(len(names))))
        return cls(names, tuple(rows), idle_ms, passes, interval_ms, engines, loops, paths[0].cores, engine_cores)

    def load(self, rate: Floats, output_tokens: float, tpot_ms: ArrayLike) -> PathLoad:
        tpot = np.asarray(tpot_ms, dtype=float)
        count = messages(output_tokens, tpot, self.interval_ms)
        kinds = [self.rows[place : place + 6] for place in range(0, len(self.rows), 6)]
        works = [request + count * message + (output_tokens - count) * token for request, message, token, *_ in kinds]
        busy = sum((kind[3] * work for kind, work in zip(kinds, works, strict=True)), np.zeros(())) * rate / 1e3
        longer = np.ones(()) if self.cores is None else stretch(self.cores, busy, self.loops, self.engine_cores)
        streams = rate * max(output_tokens - 1, 0.0) * tpot / 1e3 / self.engines  # a burst is one engine's
        ticks = bool(self.interval_ms.any())
        hops: dict[str, HopLoad] = {}
        total = np.zeros(np.broadcast_shapes(rate.shape, tpot.shape, self.interval_ms.shape))
        for name, (_, message, token, _, servers, shared), work in zip(self.names, kinds, works, strict=True):
            utilisation = rate * work * (longer / (1e3 * servers))
            each = message + (output_tokens / count - 1) * token if ticks else message
            burst = np.maximum(streams / shared, 1.0)
            burst = np.where(self.interval_ms > 0, 1.0, burst) if ticks else burst
            left = np.maximum(1 - utilisation, _FULL)
            wait = np.where(left > _FULL, (each * longer) * (burst - 1 + burst * utilisation / (2 * left)), np.inf)
            hops[name] = HopLoad(_shaped(utilisation, total.shape), wait)
            total = total + wait
        shape = total.shape
        count, busy, idle = (_shaped(np.asarray(value), shape) for value in (count, busy, self.idle_ms * longer))
        return PathLoad(hops, count, busy, idle, self.passes * total, self.interval_ms)


def _figures(path: Path, hops: int) -> list[float]:
    """Figures of a path as one row, with hops that do nothing where it is shorter than others."""
    row = list[float]()
    for hop in path.fit.hops:
        servers = float(path.servers(hop))
        shared = 1.0 if hop.per == "engine" else servers
        row += [hop.request_ms, hop.message_ms, hop.token_ms, hop.cores, servers, shared]
    row += [0.0, 0.0, 0.0, 0.0, 1.0, 1.0] * (hops - len(path.fit.hops))
    front, fit = path.front, path.fit
    return [*row, fit.idle_ms, fit.passes, front.interval_ms, front.engines, path.loops, path.engine_cores]


def _shaped(values: Floats, shape: tuple[int, ...]) -> Floats:
    return values if values.shape == shape else np.broadcast_to(values, shape)
