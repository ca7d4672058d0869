"""The meter: one window of load on one endpoint, from the schedule to the figures.

``parlay measure`` and the trials of a study run the same code.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, runtime_checkable

from serve.load.client import Call, Endpoint, LoadRun, Then
from serve.load.request_sample import Outcome, Sample
from serve.load.saturation import ClientBound, ClientLoad, client_bound
from serve.load.workers import WorkerRun, run_fast
from serve.measure.engine_metrics import EngineWindow, Scraper
from serve.measure.summary import WindowFigures, figures, latency_s, one_ms, unsteady, warm_up_left_s
from serve.measure.window_requests import WindowOrder, expected_requests, order_of, share_of
from tuner.ask.request import Objective, TuneRequest
from tuner.ask.slo import Verdict
from tuner.errors import BadInput, FailureReason, LaunchFailed
from tuner.stats.intervals import Quantiles, percentile
from tuner.stats.sequential import SloTest, Waiting
from tuner.trial.cancel import CancelHandle
from tuner.trial.results import LoadStep, StepResult
from tuner.trial.seams import RunningDeployment, Watch

TICK_S = 0.25
LIVE_SAMPLES = 1000  # the medians while a window runs are over its latest answers: sorting all would delay the client
PROGRESS_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class LiveFigures:
    """A window while it runs; the medians are over the latest requests that completed. ``expected`` is None in a
    closed loop."""

    order: WindowOrder
    elapsed_s: float
    expected: int | None
    sent: int
    in_flight: int
    completed: int
    failed: int
    ttft_p50_ms: float | None
    tpot_p50_ms: float | None
    waiting: float | None = None
    kv_cache_share: float | None = None

    @property
    def words(self) -> str:
        """In one line, for a person."""
        asked = "" if self.expected is None else f"/{self.expected}"
        failed = f", {self.failed} failed" if self.failed else ""
        ttft = "–" if self.ttft_p50_ms is None else f"{self.ttft_p50_ms:,.0f}"
        tpot = "–" if self.tpot_p50_ms is None else f"{self.tpot_p50_ms:,.1f}"
        head = f"{self.order.name}, {self.completed}{asked} answered{failed}"
        return f"{head}, TTFT p50 {ttft} ms, TPOT p50 {tpot} ms"


@dataclass(frozen=True, slots=True)
class Window:
    """A measured window: everything that was seen, and the figures folded from it.

    ``client_bound`` says where the client was the bottleneck, ``unsteady`` how the queue grew; ``ended_early`` is the
    verdict that ended the window before its time, ``interrupted`` that its owner did. ``warm_up_s`` are the first
    seconds that count and look like warm-up all the same.
    """

    order: WindowOrder
    samples: tuple[Sample, ...]
    figures: WindowFigures
    client: ClientLoad | None
    client_bound: ClientBound | None
    unsteady: str | None
    engine: EngineWindow
    start_s: float
    ended_early: Verdict | None
    interrupted: bool = False
    warm_up_s: float | None = None

    @property
    def counted(self) -> tuple[Sample, ...]:
        """The samples that count: all but those of the lead-in."""
        return tuple(sample for sample in self.samples if sample.intended_s >= self.order.lead_s)

    @property
    def invalid(self) -> str | None:
        """Why the window tells nothing about the server; None where it does."""
        if self.client_bound is not None:
            return f"the client was the bottleneck: {self.client_bound.words}"
        if self.engine.restarted:
            return f"an engine restarted in the window: {', '.join(self.engine.restarted)}"
        if not self.figures.completed and self.ended_early is None:
            return failures(self.samples) if self.figures.failed else "no request ended in the window"
        if self.unsteady is not None and self._verdict(valid=True) is Verdict.MET:
            return f"not steady, so a longer window may miss the SLO: {self.unsteady}"
        return None

    @property
    def verdict(self) -> Verdict:
        """What the window says of the SLO; UNKNOWN too where none was asked."""
        return self._verdict(valid=self.invalid is None)

    def _verdict(self, valid: bool) -> Verdict:
        return self.figures.says(replace(self.figures.seen, ended_early=self.ended_early, valid=valid))

    @property
    def certain(self) -> bool:
        """True where chance in the arrivals cannot turn the verdict."""
        found = self.verdict
        return found is not Verdict.UNKNOWN and (self.ended_early is found or self.figures.certain)


@runtime_checkable
class ServesMetrics(Protocol):
    """A deployment that knows where its engines' own metrics are read."""

    @property
    def metrics_urls(self) -> tuple[str, ...]:
        """Addresses of Prometheus texts, each of other engines."""


class WindowRunner:
    """Runs windows of load one after another, reading the engines' metrics beside them.

    An open load ends as soon as it is certain that its SLO is met or missed (see ``tuner.stats.sequential``), unless
    ``whole_windows`` are asked for: then requests in flight are waited for where it is met, and cut off where it is
    missed, as an overloaded server may need long for them. Where latencies themselves are compared, not only held
    against the SLO, a window that meets it is no end (``met_is_enough`` False).
    With several ``workers`` as many processes send; with one, this process. ``on_progress`` is called about twice a
    second in the measuring thread and should be quick. ``partial`` is the window that a KeyboardInterrupt ended, with
    what had been seen of it.
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
            watch = _Watch(order, self._load(order), scraper, self.on_progress, test, self.met_is_enough, cancel)
            try:
                run_fast(watch.drive())
            except KeyboardInterrupt:
                self.partial = watch.window(interrupted=True)
                raise
            return watch.window()

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


class _Watch:
    """One window while it runs."""

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
            if self._ended_early is None and elapsed_s < self._order.end_s:
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
        if self._test is None:
            return
        asked = self._order.load.output_tokens
        waiting = (
            Waiting(call.index, call.sent_s, call.first_token_s, int(asked[call.index]))
            for call in self._run.open_calls()
        )
        verdict = self._test.update(elapsed_s, waiting)
        if verdict is Verdict.MISSED or (verdict is Verdict.MET and self._met_is_enough):
            self._ended_early = verdict
            self._stopped_s = elapsed_s
            self._run.stop(cut_off=self._ended_early is Verdict.MISSED)

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

    def window(self, interrupted: bool = False) -> Window:
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
        )


class HttpMeter:
    """Measures any deployment with an OpenAI-compatible completions endpoint; implements ``tuner.trial.seams.Meter``.

    It keeps nothing of what it measures: several threads may use one. A step's watch is told of it about twice a
    second, and at its end the samples of each metric in seconds, completed requests only; both in the measuring thread.
    Prompts are token ids drawn from ``token_ids`` (first, last), which must lie in the model's vocabulary and hold no
    special token.
    """

    def __init__(self, token_ids: tuple[int, int] = (10, 1000)) -> None:
        if not 0 <= token_ids[0] < token_ids[1]:
            raise BadInput("token_ids", token_ids, "two rising token ids of at least 0")
        self.token_ids = token_ids

    def measure(self, deployment: RunningDeployment, step: LoadStep, request: TuneRequest, watch: Watch) -> StepResult:
        """Run the step to its end; requests still in flight when the window closes are waited for and count.

        Raises LaunchFailed with the deployment's own reason when requests failed because it died, or CLIENT_ERROR
        when every request failed. Must not be called where an event loop runs. Raises Cancelled soon after the watch's
        handle was; that and KeyboardInterrupt close all connections.
        """
        urls = deployment.metrics_urls if isinstance(deployment, ServesMetrics) else ()
        endpoint, compared = Endpoint(deployment.url, deployment.model_id), Objective.MIN_LATENCY in request.objectives
        runner = WindowRunner(endpoint, urls, lambda seen: watch.progress(seen.words), met_is_enough=not compared)
        window = runner.run(order_of(step, request, self.token_ids), watch.cancel)
        _refuse_the_dead(deployment, window.samples)
        watch.samples(latency_s([sample for sample in window.samples if sample.ok]))
        return step_result(window, step)


def step_result(window: Window, step: LoadStep) -> StepResult:
    """The figures of a window as a study keeps them."""
    found = window.figures
    return StepResult(
        step=step,
        sent=found.sent,
        completed=found.completed,
        failed=found.failed,
        wall_s=found.wall_s,
        latency={
            metric: Quantiles(one.count, one.mean_ms, *(one.at_ms[level] for level in (50, 90, 95, 99)))
            for metric, one in found.latency.items()
        },
        slo_values_ms=found.seen.values_ms,
        attainment=found.attainment,
        goodput_req_per_s=found.goodput_req_per_s,
        output_tok_per_s=found.output_tok_per_s,
        schedule_lag_p99_ms=found.schedule_lag_p99_ms,
        errors=dict(found.errors),
        client_bound=window.client_bound is not None,
        slo_intervals_ms={one.target.key: one.interval_ms for one in found.targets},
        attainment_interval=found.attainment_interval,
        offered_s=found.offered_s,
        ended_early=window.ended_early,
        invalid=window.invalid,
        engine=window.engine.figures,
    )


def _refuse_the_dead(deployment: RunningDeployment, samples: Sequence[Sample]) -> None:
    failed = [sample for sample in samples if not sample.ok and sample.outcome is not Outcome.CUT_OFF]
    if not failed:
        return
    words = failures(samples)
    if (death := deployment.failure()) is not None:
        raise LaunchFailed(death[0], f"{death[1]}; {words}", deployment.log_tail())
    if len(failed) == len(samples):
        raise LaunchFailed(FailureReason.CLIENT_ERROR, words, deployment.log_tail())


def failures(samples: Sequence[Sample]) -> str:
    """How many requests failed and of what, with an example; at least one did."""
    failed = [sample for sample in samples if not sample.ok and sample.outcome is not Outcome.CUT_OFF]
    (name, count), *_ = Counter(sample.error for sample in failed).most_common(1)
    example = next((sample.detail for sample in failed if sample.error == name), None)
    words = f"{len(failed)} of {len(samples)} requests failed; most often ({count}): {name}"
    return words + (f", for example {example}" if example else "")
