"""Runs a window of load on one endpoint, from the schedule to the figures.

``parlay measure`` and the trials of a study run the same code.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from serve.load.client import LoadRun, Then
from serve.load.endpoint import Endpoint
from serve.load.request_sample import Sample
from serve.load.request_spec import Call
from serve.load.saturation import client_bound
from serve.load.workers import WorkerRun, run_fast
from serve.measure.engine_metrics import Scraper
from serve.measure.summary import figures, one_ms, unsteady, warm_up_left_s
from serve.measure.window import LiveFigures, Window
from serve.measure.window_requests import WindowOrder, expected_requests, share_of
from tuner.ask.slo import Verdict
from tuner.stats.intervals import percentile
from tuner.stats.sequential import SloTest, Waiting
from tuner.stats.warm_up import Heard, WarmUp
from tuner.trial.cancel import CancelHandle

TICK_S = 0.25
LIVE_SAMPLES = 1000  # the medians while a window runs are over its latest answers: sorting all would delay the client
PROGRESS_EVERY_S = 0.5


class WindowRunner:
    """Runs windows of load one after another, reading the engines' metrics beside them.

    An open load ends as soon as it is certain that its SLO is met or missed (see ``tuner.stats.sequential``), unless
    ``whole_windows`` are asked for: then requests in flight are waited for where it is met, and cut off where it is
    missed, as an overloaded server may need long for them. Where latencies themselves are compared, not only held
    against the SLO, a window that meets it is no end (``met_is_enough`` False).
    A warm-up ends when it is over (see ``tuner.stats.warm_up``); a verdict says only whether requests in flight are
    then waited for. With several ``workers`` as many processes send; with one, this process. ``on_progress`` is called
    about twice a second in the measuring thread and should be quick. ``partial`` is the window that a KeyboardInterrupt
    ended, with what had been seen of it.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        metrics_urls: Sequence[str] = (),
        on_progress: Callable[[LiveFigures], None] | None = None,
        workers: int = 1,
        *,
        whole_windows: bool = False,
        met_is_enough: bool = True,
    ) -> None:
        self.endpoint, self.metrics_urls, self.on_progress = endpoint, tuple(metrics_urls), on_progress
        self.workers, self.whole_windows, self.met_is_enough = workers, whole_windows, met_is_enough
        self.partial: Window | None = None

    def run(self, order: WindowOrder, cancel: CancelHandle | None = None) -> Window:
        """Run the window to its end, or until its verdict is certain; requests then in flight are waited for and count.

        Must not be called where an event loop runs. Raises Cancelled soon after ``cancel`` was asked; that and
        KeyboardInterrupt close all connections.
        """
        cancel = cancel or CancelHandle()
        with Scraper(self.metrics_urls, dict(self.endpoint.headers), self.endpoint.tls()) as scraper:
            test = None
            if self._stops(order):
                test = SloTest(order.slo, order.end_s, attainment=order.attainment, first_index=order.first_counted)
            window = _RunningWindow(
                order, self._load(order), scraper, self.on_progress, test, self.met_is_enough, cancel
            )
            try:
                run_fast(window.drive())
            except KeyboardInterrupt:
                self.partial = window.seen(interrupted=True)
                raise
            return window.seen()

    def _stops(self, order: WindowOrder) -> bool:
        return bool(order.slo) and order.users is None and not (order.rate_changes or self.whole_windows)

    def _load(self, order: WindowOrder) -> _Load:
        if self.workers > 1:
            return _Load(
                WorkerRun(self.endpoint, order.timeout_s, partial(share_of, order, self.endpoint), self.workers)
            )
        share = share_of(order, self.endpoint)
        return _Load(LoadRun(self.endpoint, order.timeout_s), (share.calls, share.then))


@dataclass(frozen=True, slots=True)
class _Load:
    """A run of one process or several, and what it is started with."""

    run: LoadRun | WorkerRun
    share: tuple[Iterable[Call], Then | None] = ((), None)

    async def samples(self) -> list[Sample]:
        return await (self.run.run() if isinstance(self.run, WorkerRun) else self.run.run(*self.share))


class _RunningWindow:
    """A window while it runs: it is looked at several times a second, and may end before its time."""

    def __init__(
        self,
        order: WindowOrder,
        load: _Load,
        scraper: Scraper,
        tell: Callable[[LiveFigures], None] | None,
        test: SloTest | None,
        met_is_enough: bool,
        cancel: CancelHandle,
    ) -> None:
        self._met_is_enough, self._cancel = met_is_enough, cancel
        self._order, self._load, self._scraper, self._tell, self._test = order, load, scraper, tell, test
        self._run = load.run
        self._start_s = time.perf_counter()
        self._ended_early: Verdict | None = None
        self._stopped_s = order.end_s
        self._told_s = 0.0
        self._counted = self._completed = 0
        self._warmed = False

    async def drive(self) -> None:
        """Offer the load, look at it several times a second, and end it early where that is decided."""
        run = self._run
        task = asyncio.create_task(self._load.samples())
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=TICK_S)
                self._tick()
            self._report()
        except BaseException:
            self._stopped_s = min(self._stopped_s, run.elapsed_s)
            if run.elapsed_s > 0:
                run.stop(cut_off=True)
            else:
                task.cancel()
            await asyncio.wait({task})
            raise
        task.result()

    def _tick(self) -> None:
        self._cancel.raise_if_cancelled()
        elapsed_s = self._run.elapsed_s
        if elapsed_s > 0:
            self._start_s = time.perf_counter() - elapsed_s
        if elapsed_s - self._told_s >= PROGRESS_EVERY_S:
            self._told_s = elapsed_s
            self._report()
            if self._order.warm_up is not None:
                self._end_if_warm(elapsed_s, self._order.warm_up)
            elif self._ended_early is None and elapsed_s < self._order.end_s:
                self._judge(elapsed_s)

    def _report(self) -> None:
        new = self._run.samples[self._counted :]
        self._counted += len(new)
        self._completed += sum(sample.ok for sample in new)
        if self._test is not None:
            for sample in new:
                self._test.ended(sample.index, sample.sent_s, one_ms(sample) if sample.ok else None)
        if self._tell is not None:
            self._tell(self._live())

    def _judge(self, elapsed_s: float) -> None:
        """End the window where its verdict is certain."""
        verdict = self._verdict(elapsed_s)
        if verdict is Verdict.MISSED or (verdict is Verdict.MET and self._met_is_enough):
            self._ended_early = verdict
            self._stopped_s = elapsed_s
            self._run.stop(cut_off=self._ended_early is Verdict.MISSED)

    def _verdict(self, elapsed_s: float) -> Verdict:
        if self._test is None:
            return Verdict.UNKNOWN
        asked = self._order.load.output_tokens
        waiting = (
            Waiting(call.index, call.sent_s, call.first_token_s, int(asked[call.index]))
            for call in self._run.open_calls()
        )
        return self._test.update(elapsed_s, waiting)

    def _end_if_warm(self, elapsed_s: float, warm_up: WarmUp) -> None:
        if self._warmed or not warm_up.over(elapsed_s, self._heard(elapsed_s)):
            return
        self._warmed, self._stopped_s = True, min(elapsed_s, self._order.end_s)
        self._run.stop(cut_off=self._verdict(elapsed_s) is Verdict.MISSED)

    def _heard(self, now_s: float) -> Heard:
        ended = [(s.sent_s, s.ttft_s, s.end_s, s.tpot_s) for s in self._run.samples if s.ok]
        waiting = [
            (call.sent_s, None if call.first_token_s is None else call.first_token_s - call.sent_s, None, None)
            for call in self._run.open_calls()
        ]
        sent_s, ttft_s, end_s, tpot_s = np.array([*ended, *waiting], dtype=np.float64).reshape(-1, 4).T
        return Heard.by(now_s, sent_s, sent_s + ttft_s, end_s, tpot_s)

    def _not_warm(self, warm_up: WarmUp) -> str | None:
        return warm_up.caution(self._stopped_s, self._heard(self._stopped_s))

    def _live(self) -> LiveFigures:
        run, scrape = self._run, self._scraper.latest
        latest = [sample for sample in run.samples[-LIVE_SAMPLES:] if sample.ok]
        ttft_s = percentile([s.ttft_s for s in latest if s.ttft_s is not None], 50)
        tpot_s = percentile([s.tpot_s for s in latest if s.tpot_s is not None], 50)
        return LiveFigures(
            order=self._order,
            elapsed_s=run.elapsed_s,
            expected=expected_requests(self._order),
            sent=run.sent,
            in_flight=run.in_flight,
            completed=self._completed,
            failed=self._counted - self._completed,
            ttft_p50_ms=None if ttft_s is None else ttft_s * 1e3,
            tpot_p50_ms=None if tpot_s is None else tpot_s * 1e3,
            waiting=None if scrape is None else scrape.total("waiting"),
            kv_cache_share=None if scrape is None else scrape.total("kv_cache_share"),
        )

    def seen(self, interrupted: bool = False) -> Window:
        """What was seen, folded."""
        order, load = self._order, self._run.client_load
        samples = tuple(sorted(self._run.samples, key=lambda sample: sample.index))
        counted = [sample for sample in samples if sample.intended_s >= order.lead_s]
        return Window(
            order=order,
            samples=samples,
            figures=figures(
                counted, order.slo, max(0.0, self._stopped_s - order.lead_s), order.lead_s, order.attainment
            ),
            client=load,
            client_bound=client_bound(counted, load, order.slo),
            unsteady=None if order.rate_changes else unsteady(counted),
            engine=self._scraper.window(self._start_s + order.lead_s, time.perf_counter()),
            start_s=self._start_s,
            ended_early=self._ended_early,
            interrupted=interrupted,
            warm_up_s=warm_up_left_s(counted),
            fields=self._run.endpoint.fields,
            not_warm=None if order.warm_up is None else self._not_warm(order.warm_up),
        )
