"""The path from client to engine under a steady load, in closed form: where it saturates, and what it adds to TTFT.

Every hop is an event loop, a single server. Of a request it works ``request_ms``, and ``message_ms`` for each message
of the answer, of whose tokens all but one cost ``token_ms``. Engines emit a token of every running sequence at the end
of a step, so messages come in bursts, of which the first token leaves with its own; streams that are sent on at
intervals tick each at their own time. What comes at any time finds what a loop has not done yet (``_wait_ms``). A
request and its first token are worked on in ``passes`` rounds of a loop, on the way in as on the way out, each with all
that has come during the last; the tail of the wait is taken as exponential. Where cores are few, all of it takes longer
(``tuner.cost.front_cores``).
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
from tuner.cost.front_cores import saturation, stretches
from tuner.cost.front_stream import first_ms, messages, next_tick_ms

Floats = NDArray[np.float64]
CORES = "cores"  # the name of what saturates where that is no hop
_FULL = 1e-6  # the share of its time that a loop is idle which keeps up
_SHORT = 1.02  # how much longer work takes at saturation from which on it is the cores that are full


@dataclass(frozen=True, slots=True)
class HopLoad:
    """One hop at some rates: the share of the time that each of its loops works, how many times as long that takes on
    the cores that there are, and the mean wait for it in ms, both ways together."""

    utilisation: Floats
    longer: Floats
    wait_ms: Floats


@dataclass(frozen=True, slots=True)
class PathLoad:
    """The path at some rates; arrays have the axes of the rates. ``hops`` are in the order of the path.

    ``messages`` are those of an answer, ``cores`` what the path keeps busy, ``busiest`` is the rate's share of the one
    at which the path saturates. ``idle_ms`` is what it adds to TTFT when idle, longer where cores are short, and
    ``wait_ms`` the mean that a request and its first token wait on top, infinite where it does not keep up.
    """

    hops: Mapping[str, HopLoad]
    messages: Floats
    cores: Floats
    busiest: Floats
    idle_ms: Floats
    wait_ms: Floats
    interval_ms: Floats

    @property
    def carries(self) -> NDArray[np.bool_]:
        """Where the path keeps up."""
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

    def load(self, rate_req_per_s: ArrayLike, output_tokens: float, tpot_ms: ArrayLike) -> PathLoad:
        """The path while answers of ``output_tokens`` come at a rate, of all engines together, and stream at
        ``tpot_ms``; the two arrays broadcast."""
        return _Hops.of(self).load(np.asarray(rate_req_per_s, dtype=float), output_tokens, tpot_ms)

    def saturation(self, output_tokens: float, tpot_ms: float) -> tuple[str, float]:
        """(The hop that keeps up the least, or ``CORES`` where those of the node are full before it is; requests/s from
        which on the path does not keep up)."""
        if not self.fit.hops:
            return self.fit.name, np.inf
        most, first, longer = _Hops.of(self).saturation(output_tokens, np.asarray(float(tpot_ms)))
        return (CORES if longer > _SHORT else self.fit.hops[first].name), float(most)


class Paths:
    """Several paths at once, one for each place of the first axis."""

    def __init__(self, paths: Sequence[Path], axes: int) -> None:
        """Rates have ``axes`` axes."""
        self.paths, self._hops = tuple(paths), _Hops.of_all(paths, axes)

    def load(self, rate_req_per_s: Floats, output_tokens: float, tpot_ms: ArrayLike) -> PathLoad:
        """As ``Path.load``; hops are named by their place."""
        return self._hops.load(rate_req_per_s, output_tokens, tpot_ms)


@dataclass(frozen=True, slots=True)
class _Hop:
    """Figures of a hop of one path, or of several as arrays: of ``servers`` loops, ``shared`` divide a burst."""

    name: str
    request_ms: Floats
    message_ms: Floats
    token_ms: Floats
    cores: Floats
    servers: Floats
    shared: Floats

    def work_ms(self, count: Floats, output_tokens: float) -> Floats:
        """What each loop works for a request and the ``count`` messages of its answer, spread over all of them."""
        whole = self.request_ms + count * self.message_ms + (output_tokens - count) * self.token_ms
        return np.asarray(whole / self.servers)


@dataclass(frozen=True, slots=True)
class _Hops:
    """The hops of one path, or of several as arrays, and what the whole has; ``others`` are cores that engines and
    further threads take without end."""

    hops: tuple[_Hop, ...]
    idle_ms: Floats
    passes: Floats
    interval_ms: Floats
    engines: Floats
    others: Floats
    cores: float | None

    @classmethod
    def of(cls, path: Path) -> _Hops:
        return cls.of_all((path,), 0)

    @classmethod
    def of_all(cls, paths: Sequence[Path], axes: int) -> _Hops:
        names = max((tuple(hop.name for hop in path.fit.hops) for path in paths), key=len)
        table = np.array([_figures(path, len(names)) for path in paths])
        shape = (len(paths), *(1 for _ in range(axes - 1))) if axes else ()
        *rows, idle_ms, passes, interval_ms, engines, others = (row.reshape(shape) for row in table.T)
        if len(paths) > 1:
            names = tuple(map(str, range(len(names))))
        hops = tuple(_Hop(name, *rows[6 * place : 6 * place + 6]) for place, name in enumerate(names))
        return cls(hops, idle_ms, passes, interval_ms, engines, others, paths[0].cores)

    def load(self, rate: Floats, output_tokens: float, tpot_ms: ArrayLike) -> PathLoad:
        tpot, per_ms = np.asarray(tpot_ms, dtype=float), rate / 1e3
        shape = np.broadcast_shapes(rate.shape, tpot.shape, self.interval_ms.shape)
        count = messages(output_tokens, tpot, self.interval_ms)
        works = [hop.work_ms(count, output_tokens) for hop in self.hops]
        busiest = rate / self._most(works) if works else np.zeros(())
        longer = [np.ones(())] * len(works)
        if self.cores is not None and works:
            longer = stretches(self.cores, self.others, *self._loops(), [per_ms * work for work in works])
        streams = per_ms * max(output_tokens - 1, 0.0) * tpot
        hops: dict[str, HopLoad] = {}
        idle, total, busy = np.zeros(()), np.zeros(shape), np.zeros(())
        for hop, work, times in zip(self.hops, works, longer, strict=True):
            wait = self._wait_ms(hop, per_ms, times, work, count, output_tokens, streams)
            wait = np.where(busiest < 1 - _FULL, wait, np.inf)
            hops[hop.name] = HopLoad(_shaped(per_ms * work, shape), _shaped(times, shape), _shaped(wait, shape))
            idle = idle + (times - 1) * (hop.request_ms + hop.message_ms)
            total, busy = total + wait, busy + per_ms * work * hop.servers * hop.cores
        idle = self.idle_ms + idle
        count, busy, busiest, idle = (_shaped(np.asarray(one), shape) for one in (count, busy, busiest, idle))
        return PathLoad(hops, count, busy, busiest, idle, total, self.interval_ms)

    def saturation(self, output_tokens: float, tpot_ms: Floats) -> tuple[Floats, int, float]:
        """Of one path: (requests/s, the place of the hop that is full, how much longer its work takes then)."""
        count = messages(output_tokens, tpot_ms, self.interval_ms)
        works = [hop.work_ms(count, output_tokens) for hop in self.hops]
        longer = [np.ones(())] * len(works)
        if self.cores is not None:
            longer = saturation(self.cores, self.others, *self._loops(), works)[1]
        first = int(np.argmax([float(work * times) for work, times in zip(works, longer, strict=True)]))
        return self._most(works), first, float(longer[first])

    def _most(self, works: Sequence[Floats]) -> Floats:
        """Requests/s at which the path saturates."""
        if self.cores is not None:
            return np.asarray(1e3 * saturation(self.cores, self.others, *self._loops(), works)[0])
        most = np.max(np.broadcast_arrays(*works), axis=0)
        with np.errstate(divide="ignore"):
            return np.asarray(1e3 / most)

    def _loops(self) -> tuple[list[Floats], list[Floats]]:
        return [hop.servers for hop in self.hops], [hop.cores for hop in self.hops]

    def _wait_ms(
        self, hop: _Hop, per_ms: Floats, longer: Floats, work_ms: Floats, count: Floats, output_tokens: float,
        streams: Floats,
    ) -> Floats:  # fmt: skip
        """How long a request and its first message wait at a hop.

        A loop that is busy for a share rho of the time has half of a request's work, or of a burst's, left for what
        comes at any time (Pollaczek and Khinchine; Kleinrock, Queueing Systems I, 1975, section 5.12). A first message
        comes with the burst of its engine's step, and stands behind that. During each round comes work for the next,
        of the share ``at_any`` that comes at any time: so p rounds take (1 - at_any^p) / (1 - at_any) times as long as
        the first. Bursts of one engine come one after the other, but for the share of the time in which they pile up:
        with N streams at once, Poisson, exp(-2/3 (1 - rho)^2 N / rho^2), of the most probable path of a Gaussian input
        to a backlog (Addie, Mannersalo and Norros, Most probable paths, 2002), with the variance of streams of one
        length.
        """
        ticks = self.interval_ms > 0
        each = longer * (hop.message_ms + np.where(ticks, output_tokens / count - 1, 0.0) * hop.token_ms)
        burst = np.where(ticks, 1.0, np.maximum(streams / (self.engines * hop.shared), 1.0))  # one engine's
        request, rate, running = longer * hop.request_ms, per_ms / hop.servers, streams / hop.servers
        rho = np.minimum(per_ms * work_ms * longer, 1 - _FULL)
        far = ((1 - rho) / np.maximum(rho, 1e-12)) ** 2
        piled = running / (1 + running) * np.exp(-2 / 3 * far * running)
        in_turn = np.where(ticks, 0.0, (1 - piled) * hop.shared / (self.engines * hop.servers))
        at_any = np.maximum(rho - in_turn * rate * count * each, 0.0)
        rounds = (1 - at_any**self.passes) / (1 - at_any)
        left = rate * (request**2 + count * burst * each**2) / (2 * (1 - at_any))
        own = (request + longer * hop.message_ms) / self.passes  # of each round
        return np.asarray(rounds * (each * (burst - 1) + 2 * left) + (rounds - 1) * own)


def _figures(path: Path, hops: int) -> list[float]:
    """Figures of a path as one row, with hops that do nothing where it is shorter than others."""
    row, others = list[float](), path.engine_cores
    for hop in path.fit.hops:
        servers = float(path.servers(hop))
        shared = 1.0 if hop.per == "engine" else servers
        row += [hop.request_ms, hop.message_ms, hop.token_ms, hop.cores, servers, shared]
        others += hop.standing * servers
    row += [0.0, 0.0, 0.0, 0.0, 1.0, 1.0] * (hops - len(path.fit.hops))
    front, fit = path.front, path.fit
    return [*row, fit.idle_ms, fit.passes, front.interval_ms, front.engines, others]


def _shaped(values: Floats, shape: tuple[int, ...]) -> Floats:
    return values if values.shape == shape else np.broadcast_to(values, shape)
