"""A sweep of three windows as if it had been measured: one that meets its SLO, one that misses it, one invalid."""

from __future__ import annotations

from functools import cache

import numpy as np

from deploy.report.measure_page import MeasuredRun
from serve.load.endpoint import Endpoint
from serve.load.request_sample import Outcome, Sample
from serve.load.saturation import ClientBound, ClientLimit, ClientLoad
from serve.measure.engine_metrics import EngineFigures, EngineWindow, Scrape, window_of
from serve.measure.summary import figures
from serve.measure.window import Window
from serve.measure.window_requests import WindowOrder
from tuner.ask.arrivals import offered
from tuner.ask.request import Arrival, SloTarget, TokenLengths, Workload

SLO = (SloTarget.parse("ttft:p99:400"), SloTarget.parse("tpot:p90:30"))
SECONDS = 30.0


@cache
def measured_window(
    rate_req_per_s: float,
    index: int = 0,
    ttft_ms: float = 100.0,
    invalid: bool = False,
    broken: int | None = 17,
    seconds: float = SECONDS,
) -> Window:
    """A window with TTFT around ``ttft_ms`` in which the request number ``broken`` fails; the same at every call."""
    work = Workload(
        prompt_tokens=TokenLengths(mean=64),
        output_tokens=TokenLengths(mean=8),
        arrival=Arrival(requests_per_s=rate_req_per_s),
    )
    load = offered(work, rate_req_per_s, seconds, seed=index)
    order = WindowOrder(f"{rate_req_per_s:g} req/s", load, seconds, SLO, rate_req_per_s=rate_req_per_s)
    random = np.random.default_rng(index)
    times_s = load.offset_s.tolist()
    samples = [_sample(number, at_s, ttft_ms, random, number == broken) for number, at_s in enumerate(times_s)]
    start_s = 100.0 + 40 * index
    return Window(
        order=order,
        samples=tuple(samples),
        figures=figures(samples, SLO, seconds),
        client=ClientLoad((0.001,) * 100, 0.2),
        client_bound=ClientBound(ClientLimit.CPU, "the client used 99% of a core; add workers") if invalid else None,
        unsteady=None,
        engine=_engine(start_s, rate_req_per_s),
        start_s=start_s,
        ended_early=None,
    )


def _sample(number: int, at_s: float, ttft_ms: float, random: np.random.Generator, broken: bool) -> Sample:
    first_s = at_s + 0.002 + float(random.lognormal(np.log(ttft_ms / 1e3), 0.4))
    chunks = first_s + np.cumsum([0, *random.normal(0.02, 0.002, 7)])
    outcome = Outcome.RESET if broken else Outcome.OK
    return Sample(
        number, at_s, at_s + 0.002, first_s, tuple(chunks.tolist()), float(chunks[-1]), 64, 8, outcome,
        counted_prompt_tokens=64, asked_output_tokens=8,
    )  # fmt: skip


def _engine(start_s: float, busy: float) -> EngineWindow:
    rows = [
        Scrape(start_s + at_s, {"0": EngineFigures(busy * at_s / 30, busy / 4, 0.02 * at_s, at_s // 10, 100 * at_s, 0)})
        for at_s in range(31)
    ]
    return window_of(rows, start_s, start_s + 31)


@cache
def measured_run() -> MeasuredRun:
    """Three windows of a sweep."""
    windows = (
        measured_window(4.0, 0),
        measured_window(16.0, 1, ttft_ms=220),
        measured_window(64.0, 2, ttft_ms=900, invalid=True),
    )
    return MeasuredRun(
        Endpoint("http://127.0.0.1:8000", "tiny"),
        windows,
        windows[0],
        (("server", "http://127.0.0.1:8000"), ("SLO", "; ".join(map(str, SLO)))),
        "ttft p99 ≤ 400 ms and tpot p90 ≤ 30 ms is met under 4 req/s",
    )
