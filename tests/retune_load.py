"""The load under which a deployment is watched, and what its client saw of it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from serve.load.client import LoadRun
from serve.load.endpoint import Endpoint
from serve.load.request_sample import Sample
from serve.load.request_spec import Timeouts
from serve.load.workers import run_fast
from serve.measure.summary import one_ms
from serve.measure.window_requests import WindowOrder, share_of
from tuner.ask.arrivals import offered
from tuner.ask.request import SloTarget, TuneRequest
from tuner.ask.slo import attained


class Load:
    """Our load generator in a thread, from the block's beginning to its end, with what a request asks; then what is
    under way is waited for. ``timeout_s``: after which a client gives up."""

    def __init__(self, request: TuneRequest, url: str, limit_s: float, timeout_s: float = 300.0) -> None:
        from serve.launch.engine import served_model_id

        self._endpoint, self._timeout_s = Endpoint(url, served_model_id(request)), timeout_s
        rate = request.workload.arrival.requests_per_s
        load = offered(request.workload, rate, limit_s, seed=1)
        self._order = WindowOrder("watched", load, limit_s, request.slo, rate_req_per_s=rate)
        self._thread = threading.Thread(target=self._go, name="load")
        self._stop = threading.Event()
        self._run = LoadRun(self._endpoint, Timeouts(timeout_s))
        self.began_s = 0.0

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def asked(self) -> tuple[Asked, ...]:
        """All requests that have ended by now."""
        return tuple(Asked.of(one, self.began_s, self._order.slo) for one in tuple(self._run.samples))

    def _go(self) -> None:
        run_fast(self._drive())

    async def _drive(self) -> None:
        share, begins_s = share_of(self._order, self._endpoint), time.perf_counter()
        self.began_s = time.time()

        async def end() -> None:
            while not self._stop.is_set():
                await asyncio.sleep(0.2)
            self._run.stop()

        ending = asyncio.create_task(end())
        try:
            await self._run.run(share.calls, share.then, begins_s)
        finally:
            ending.cancel()


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as its client saw it, in s since 1970. ``within``: it was answered, and met every target."""

    sent_s: float
    ended_s: float
    ok: bool
    within: bool
    outcome: str

    @classmethod
    def of(cls, sample: Sample, began_s: float, slo: Sequence[SloTarget]) -> Asked:
        """Of a window that began then."""
        within = sample.ok and attained(one_ms(sample), slo)
        return cls(began_s + sample.sent_s, began_s + sample.end_s, sample.ok, within, sample.error)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Requests of one stretch of time."""

    sent: int
    lost: Counter[str]
    within: int

    @classmethod
    def of(cls, asked: Iterable[Asked], from_s: float, to_s: float = float("inf")) -> Stretch:
        """Those that were sent from ``from_s`` on and before ``to_s``."""
        mine = [one for one in asked if from_s <= one.sent_s < to_s]
        return cls(len(mine), Counter(one.outcome for one in mine if not one.ok), sum(one.within for one in mine))

    @property
    def attainment(self) -> str:
        """Share of them that met every target, lost ones among those that did not."""
        return f"{self.within / self.sent:.0%} of {self.sent}" if self.sent else "nothing was sent"


def silence_s(asked: Iterable[Asked], from_s: float, to_s: float) -> float:
    """The longest time between these moments in which no answer was completed, in s."""
    ended = sorted(one.ended_s for one in asked if one.ok and from_s < one.ended_s < to_s)
    moments = [from_s, *ended, to_s]
    return max(after - before for before, after in pairwise(moments))


def answered_after(asked: Iterable[Asked], moment_s: float) -> float | None:
    """When the first request that was sent after a moment was answered whole, in s since 1970; None: none was."""
    return min((one.ended_s for one in asked if one.ok and one.sent_s > moment_s), default=None)
