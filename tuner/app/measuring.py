"""``parlay measure``: options become windows of load on an endpoint, an answer, and files.

Exit codes: 0 measured (and where there is an SLO, a window met it), 3 measured and no window met the SLO, 1 no window
could be judged, 130 interrupted; what had been measured by then is shown.
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from serve.endpoint import Endpoint, bearer
from serve.measure import Window, WindowRunner, failures
from serve.probe import EndpointFailed, base_url, choose_model, offered_models
from serve.records import check_records, write_records
from serve.sending import WindowOrder
from tuner.app.measure_answer import window_answer
from tuner.app.measure_screen import MeasureScreen, summary_tables
from tuner.arrivals import ClosedLoad, OfferedLoad, closed_load, offered, replay
from tuner.errors import BadInput
from tuner.request import Arrival, SloTarget, TokenLengths, Workload
from tuner.sequential import Verdict

INTERRUPTED = 130
CLOSED_LOOP_REQUESTS = 100_000  # lengths that are drawn for a closed loop; a longer one begins them anew


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """What the operator gave on the command line."""

    url: str
    rates: tuple[float, ...] = ()
    users: tuple[int, ...] = ()
    trace: Path | None = None
    slo: tuple[str, ...] = ()
    seconds: float = 30.0
    warmup_seconds: float = 5.0
    prompt_tokens: str = "256"
    output_tokens: str = "64"
    shared_prefix_tokens: int = 0
    process: str = "poisson"
    burstiness: float = 1.0
    chat: bool = False
    model: str | None = None
    api_key_env: str | None = None
    api_key_file: Path | None = None
    ca_file: Path | None = None
    metrics_urls: tuple[str, ...] = ()
    timeout_s: float = 120.0
    workers: int = 1
    seed: int = 0
    whole_windows: bool = False
    requests_out: Path | None = None
    report: Path | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """All windows of one command."""

    options: MeasureOptions
    endpoint: Endpoint
    slo: tuple[SloTarget, ...]
    windows: tuple[Window, ...]
    interrupted: bool
    seconds: float

    @property
    def shown(self) -> Window:
        """The window that stands for the run: the heaviest that met the SLO; without one the first that is valid."""
        met = [window for window in self.windows if window.verdict is Verdict.MET]
        if met:
            return max(met, key=lambda window: window.figures.offered_req_per_s or 0.0)
        return next((window for window in self.windows if window.invalid is None), self.windows[0])

    @property
    def exit_code(self) -> int:
        """See the head of this module."""
        if self.interrupted:
            return INTERRUPTED
        if all(window.invalid is not None for window in self.windows):
            return 1
        return 3 if self.slo and all(window.verdict is not Verdict.MET for window in self.windows) else 0


def run_measure(options: MeasureOptions, as_json: bool) -> int:
    """Measure, show and write what was asked; the exit code. Whatever can be refused is refused before load is sent."""
    out, err = (Console(file=file, width=None if file.isatty() else 180) for file in (sys.stdout, sys.stderr))
    slo = tuple(SloTarget.parse(text) for text in options.slo)
    endpoint, orders = _endpoint(options), _orders(options, slo)
    _check_files(options)
    endpoint = replace(endpoint, model=choose_model(offered_models(endpoint), options.model, endpoint.url))
    with MeasureScreen(err, endpoint) as screen:
        measured = _measure(options, endpoint, orders, slo, screen)
    if not measured.windows:
        return INTERRUPTED
    files = _write(measured)
    if as_json:
        sys.stdout.write(json.dumps(measure_answer(measured) | {"files": files}, indent=2) + "\n")
    else:
        summary_tables(out, measured.windows, measured.shown, files)
    return measured.exit_code


def measure_answer(measured: Measured) -> dict[str, Any]:
    """The window that stands for the run, then all windows."""
    return {
        "url": measured.endpoint.url,
        "model": measured.endpoint.model,
        "protocol": "chat" if measured.endpoint.chat else "completions",
        "seed": measured.options.seed,
        "interrupted": measured.interrupted,
        "seconds": measured.seconds,
        **window_answer(measured.shown),
        "windows": [window_answer(window) for window in measured.windows],
    }


def _measure(
    options: MeasureOptions,
    endpoint: Endpoint,
    orders: list[WindowOrder],
    slo: tuple[SloTarget, ...],
    screen: MeasureScreen,
) -> Measured:
    started = time.perf_counter()
    urls = options.metrics_urls or (f"{endpoint.url}/metrics",)
    runner = WindowRunner(endpoint, urls, screen.live, options.workers, whole_windows=options.whole_windows)
    windows: list[Window] = []
    interrupted = False
    try:
        _first_answer(WindowRunner(endpoint), orders[0])
        for order in orders:
            windows.append(runner.run(order))
            screen.measured(windows[-1])
    except KeyboardInterrupt:
        interrupted = True
        partial = runner.partial
        if partial is not None and partial.figures.sent:
            windows.append(partial)
            screen.measured(partial)
    return Measured(options, endpoint, slo, tuple(windows), interrupted, time.perf_counter() - started)


def _first_answer(runner: WindowRunner, order: WindowOrder) -> None:
    """One request before the load: what is wrong with all of them shows here, in one line."""
    load = order.load
    one = OfferedLoad(np.zeros(1), load.prompt_tokens[:1], load.output_tokens[:1])
    window = runner.run(replace(order, load=one, lead_s=0.0, duration_s=1.0, slo=(), stream=(*order.stream[:2], 2)))
    if window.figures.failed:
        raise EndpointFailed(f"{runner.endpoint.url} does not answer a first request: {failures(window.samples)}")


def _endpoint(options: MeasureOptions) -> Endpoint:
    headers = bearer(options.api_key_env, options.api_key_file)
    return Endpoint(base_url(options.url), "", headers, options.chat, options.ca_file)


def _check_files(options: MeasureOptions) -> None:
    if options.requests_out is not None:
        check_records(options.requests_out)
    if options.report is not None and not options.report.absolute().parent.is_dir():
        raise BadInput("--report", str(options.report), "a file in a directory that exists")


def _orders(options: MeasureOptions, slo: tuple[SloTarget, ...]) -> list[WindowOrder]:
    ways = {"--rate": options.rates, "--users": options.users, "--trace": options.trace}
    given = [name for name, value in ways.items() if value]
    if len(given) > 1:
        raise BadInput(given[1], f"also {given[0]}", "one of " + ", ".join(ways))
    return [
        WindowOrder(
            name=name,
            load=load,
            duration_s=seconds,
            slo=slo,
            lead_s=lead_s,
            rate_req_per_s=None if isinstance(load, ClosedLoad) else len(load) / (lead_s + seconds),
            shared_prefix_tokens=options.shared_prefix_tokens,
            timeout_s=options.timeout_s,
            stream=(options.seed, index + 1, 0),
        )
        for index, (name, load, lead_s, seconds) in enumerate(_loads(options))
    ]


def _loads(options: MeasureOptions) -> Iterator[tuple[str, OfferedLoad | ClosedLoad, float, float]]:
    """Name and load of each window, the seconds of it that do not count, and those that do: all of a trace."""
    if options.trace is not None:
        load = replay(options.trace)
        yield options.trace.name, load, 0.0, max(float(load.offset_s[-1]), 1e-3)
        return
    lead_s = options.warmup_seconds
    for users in options.users:
        if users < 1:
            raise BadInput("--users", users, "at least 1")
        drawn = closed_load(_workload(options, 1.0), users, max(CLOSED_LOOP_REQUESTS, users), options.seed)
        yield f"{users} user{'s' if users > 1 else ''}", drawn, lead_s, options.seconds
    for rate in () if options.users else options.rates or (1.0,):
        yield f"{rate:g} req/s", _open_load(options, rate), lead_s, options.seconds


def _open_load(options: MeasureOptions, rate_req_per_s: float) -> OfferedLoad:
    if not (math.isfinite(rate_req_per_s) and rate_req_per_s > 0):
        raise BadInput("--rate", rate_req_per_s, "a finite number above 0")
    seconds = options.warmup_seconds + options.seconds
    return offered(_workload(options, rate_req_per_s), rate_req_per_s, seconds, options.seed)


def _workload(options: MeasureOptions, rate_req_per_s: float) -> Workload:
    if options.process not in ("poisson", "constant", "gamma"):
        raise BadInput("--process", options.process, "poisson, constant, gamma")
    prompts = _lengths("--prompt-tokens", options.prompt_tokens)
    if options.shared_prefix_tokens >= prompts.bounds[0]:
        allowed = f"less than the shortest prompt, {prompts.bounds[0]} tokens"
        raise BadInput("--shared-prefix-tokens", options.shared_prefix_tokens, allowed)
    if options.burstiness != 1 and options.process != "gamma":
        raise BadInput("--burstiness", options.burstiness, "with --process gamma only")
    if not (math.isfinite(options.burstiness) and options.burstiness > 0):
        raise BadInput("--burstiness", options.burstiness, "a finite number above 0")
    arrival = Arrival.model_validate(
        {"process": options.process, "requests_per_s": rate_req_per_s, "burstiness": options.burstiness}
    )
    return Workload(
        prompt_tokens=prompts,
        output_tokens=_lengths("--output-tokens", options.output_tokens),
        arrival=arrival,
        shared_prefix_tokens=options.shared_prefix_tokens,
    )


def _lengths(where: str, text: str) -> TokenLengths:
    found = re.fullmatch(r"(\d{1,9})(?:\.\.(\d{1,9}))?", text.strip())
    low = int(found[1]) if found else 0
    high = int(found[2] or low) if found else 0
    if not 1 <= low <= high:
        raise BadInput(where, text, "a number of tokens of at least 1, or LOW..HIGH")
    return TokenLengths(mean=(low + high) // 2, min=low, max=high)


def _write(measured: Measured) -> dict[str, str]:
    options, files = measured.options, {}
    if options.requests_out is not None:
        write_records(options.requests_out, measured.windows)
        files["requests"] = str(options.requests_out)
    if options.report is not None:
        from deploy.measure_report import MeasuredRun, render_measure_report

        run = MeasuredRun(measured.endpoint, measured.windows, measured.shown, _facts(measured), _headline(measured))
        page = render_measure_report(run)
        options.report.write_text(page, encoding="utf-8")
        files["report"] = str(options.report)
    return files


def _headline(measured: Measured) -> str:
    """The run in one sentence."""
    shown, slo = measured.shown, " and ".join(map(str, measured.slo))
    if shown.invalid is not None:
        return "No window is valid"
    if not slo:
        return f"{measured.endpoint.model} under {shown.order.name}"
    kept = "met" if shown.verdict is Verdict.MET else "missed"
    return f"{slo} is {kept} under {shown.order.name}"


def _facts(measured: Measured) -> tuple[tuple[str, str], ...]:
    from tuner.app.wiring import facts

    options = measured.options
    return (
        ("server", measured.endpoint.url),
        ("model", measured.endpoint.model),
        ("protocol", "chat completions" if measured.endpoint.chat else "completions"),
        ("prompt tokens", "from the trace" if options.trace else options.prompt_tokens),
        ("output tokens", "from the trace" if options.trace else options.output_tokens),
        ("shared prefix", f"{options.shared_prefix_tokens} tokens"),
        ("arrivals", "closed loop" if options.users else "trace" if options.trace else options.process),
        ("SLO", "; ".join(map(str, measured.slo)) or "none"),
        ("seed", str(options.seed)),
        *(("client " + name, value) for name, value in facts().items() if name in ("machine", "parlay")),
    )
