"""Was the client itself the bottleneck? A window in which it was says more of the client than of the server.

Three signs are watched: requests that left late, an event loop that runs late (it stamps what it reads, so a late loop
makes every latency too long), and a processor that the client used up alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from serve.load.request_sample import Sample
from tuner.ask.request import Metric, SloTarget
from tuner.stats.intervals import lag_limit_ms, percentile

HEARTBEAT_S = 0.01
FULL_CPU_SHARE = 0.97


class ClientLimit(StrEnum):
    """Why a window is invalid."""

    SCHEDULE_LAG = "schedule_lag"  # requests left late
    LOOP_LAG = "loop_lag"  # answers were read late
    CPU = "cpu"  # the client used up its core
    FILE_LIMIT = "file_limit"  # no file descriptor was left for a connection


@dataclass(frozen=True, slots=True)
class ClientLoad:
    """How busy the client was in a window.

    ``loop_lag_s`` holds how late each heartbeat of each worker came, in seconds; ``cpu_share`` the processor seconds
    per second of wall time of the busiest worker, 1 being a whole core.
    """

    loop_lag_s: tuple[float, ...]
    cpu_share: float
    workers: int = 1

    @property
    def loop_lag_p99_ms(self) -> float | None:
        """Lateness of the event loop that 1 % of the heartbeats exceeded, in milliseconds."""
        value_s = percentile(self.loop_lag_s, 99)
        return None if value_s is None else value_s * 1e3

    @classmethod
    def merged(cls, loads: Sequence[ClientLoad]) -> ClientLoad:
        """Of several workers in one window."""
        lags = tuple(lag for load in loads for lag in load.loop_lag_s)
        return cls(lags, max((load.cpu_share for load in loads), default=0.0), sum(load.workers for load in loads))


@dataclass(frozen=True, slots=True)
class ClientBound:
    """The verdict on a window: which limit the client met, and the figures in words."""

    limit: ClientLimit
    words: str


def client_bound(
    samples: Iterable[Sample], load: ClientLoad | None, slo: Sequence[SloTarget] = ()
) -> ClientBound | None:
    """The first limit that the client met, or None when the window speaks of the server.

    Lateness counts when its 99th percentile passes ``lag_limit_ms``: 20 ms, or 5 % of the median TTFT where that is
    more; also below 5 % of the smallest TTFT or E2E target of an ``slo`` it cannot turn the verdict. Without ``load``
    only the samples are judged.
    """
    samples = list(samples)
    if starved := sum(sample.outcome.value == "client_limit" for sample in samples):
        return ClientBound(ClientLimit.FILE_LIMIT, f"{starved} requests found no free file descriptor (ulimit -n)")
    ttft_s = percentile([s.ttft_s for s in samples if s.ok and s.ttft_s is not None], 50)
    targets_ms = [target.ms for target in slo if target.metric in (Metric.TTFT, Metric.E2E)]
    limit_ms = max(lag_limit_ms(None if ttft_s is None else ttft_s * 1e3), lag_limit_ms(min(targets_ms, default=None)))
    lag_s = percentile([sample.lag_s for sample in samples], 99)
    busy = "" if load is None else f"; the client used {load.cpu_share:.0%} of a core"
    if lag_s is not None and lag_s * 1e3 > limit_ms:
        words = f"requests left late: p99 {lag_s * 1e3:.1f} ms, limit {limit_ms:.1f} ms{busy}"
        return ClientBound(ClientLimit.SCHEDULE_LAG, words)
    if load is None:
        return None
    if load.loop_lag_p99_ms is not None and load.loop_lag_p99_ms > limit_ms:
        words = f"answers were read late: p99 {load.loop_lag_p99_ms:.1f} ms, limit {limit_ms:.1f} ms{busy}"
        return ClientBound(ClientLimit.LOOP_LAG, words)
    if load.cpu_share > FULL_CPU_SHARE:
        return ClientBound(ClientLimit.CPU, f"the client used {load.cpu_share:.0%} of a core; add workers")
    return None


class Heartbeat:
    """Samples the lateness of the running event loop every 10 ms, and the processor time of this process."""

    def __init__(self) -> None:
        self._lags_s: list[float] = []
        self._loop = asyncio.get_running_loop()
        self._started_s = self._due_s = time.perf_counter()
        self._cpu_started_s = time.process_time()
        self._timer: asyncio.TimerHandle | None = None
        self._schedule()

    def _schedule(self) -> None:
        self._due_s = time.perf_counter() + HEARTBEAT_S
        self._timer = self._loop.call_later(HEARTBEAT_S, self._beat)

    def _beat(self) -> None:
        self._lags_s.append(max(0.0, time.perf_counter() - self._due_s))
        self._schedule()

    def stop(self) -> ClientLoad:
        """End the sampling; what it saw."""
        if self._timer is not None:
            self._timer.cancel()
        wall_s = time.perf_counter() - self._started_s
        share = (time.process_time() - self._cpu_started_s) / wall_s if wall_s > 0 else 0.0
        return ClientLoad(tuple(self._lags_s), share)
