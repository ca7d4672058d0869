"""``parlay measure``: options become windows of load on an endpoint, an answer, and files.

Exit codes: 0 measured (and where there is an SLO, a window met it), 3 measured and no window met the SLO, 1 no window
could be judged, 130 interrupted; what had been measured by then is shown.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from rich.console import Console

from serve.load.endpoint import Endpoint, bearer, extra_headers
from serve.measure.first_answer import first_answer
from serve.measure.probe import base_url, choose_model, longest_served, offered_models
from serve.measure.request_records import check_records, write_records
from serve.measure.window import Window
from serve.measure.window_runner import WindowRunner
from tuner.app.answers.measure import MeasureAnswer, found_rate_answer, window_answer
from tuner.app.measure.options import MeasureOptions
from tuner.app.measure.rate_finder import RateFinder
from tuner.app.measure.screen import MeasureScreen, found_words, summary_tables
from tuner.app.measure.sweep import Sweep
from tuner.ask.request import SloTarget
from tuner.ask.slo import Verdict
from tuner.errors import BadInput
from tuner.stats.rate_search import RateFound

INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Measured:
    """All windows of one command; ``fallbacks`` say what the server refused and what was sent in its place."""

    options: MeasureOptions
    endpoint: Endpoint
    slo: tuple[SloTarget, ...]
    windows: tuple[Window, ...]
    found: RateFound | None
    interrupted: bool
    seconds: float
    fallbacks: tuple[str, ...] = ()

    @property
    def shown(self) -> Window:
        """The window that stands for the run: the heaviest that met the SLO; without one the first that is valid."""
        met = [window for window in self.windows if window.verdict is Verdict.MET]
        found = [w for w in met if self.found is not None and w.order.rate_req_per_s == self.found.rate_req_per_s]
        if found or met:
            met = found or met
            return max(met, key=lambda window: window.figures.offered_req_per_s or 0.0)
        return next((window for window in self.windows if window.invalid is None), self.windows[0])

    @property
    def exit_code(self) -> int:
        """See the head of this module."""
        if self.interrupted:
            return INTERRUPTED
        if all(window.invalid is not None or (self.slo and window.verdict.holds is None) for window in self.windows):
            return 1
        if self.found is not None:
            return 3 if self.found.rate_req_per_s is None else 0
        return 3 if self.slo and all(window.verdict is not Verdict.MET for window in self.windows) else 0


def run_measure(options: MeasureOptions) -> int:
    """Measure, show and write what was asked; the exit code. Whatever can be refused is refused before load is sent."""
    out, err = (Console(file=file, width=None if file.isatty() else 180) for file in (sys.stdout, sys.stderr))
    slo = tuple(SloTarget.parse(text) for text in options.slo)
    endpoint = _endpoint(options)
    source = RateFinder(options, slo) if options.find_rate else Sweep(options, slo)
    _check_files(options)
    endpoint = replace(
        endpoint, model=choose_model(offered_models(endpoint, options.model is not None), options.model, endpoint.url)
    )
    source.within(longest_served(endpoint))
    with MeasureScreen(err, endpoint) as screen:
        measured = _measure(options, endpoint, source, slo, screen)
    if not measured.windows:
        return INTERRUPTED
    files = _write(measured)
    if options.as_json:
        sys.stdout.write(measure_answer(measured, files).to_json())
    else:
        summary_tables(out, measured.windows, measured.shown, measured.found, files, measured.fallbacks)
    return measured.exit_code


def measure_answer(measured: Measured, files: Mapping[str, str]) -> MeasureAnswer:
    """The window that stands for the run, then all windows; ``files`` are the paths of what was written, by kind."""
    return MeasureAnswer(
        url=measured.endpoint.url,
        model=measured.endpoint.model,
        protocol="chat" if measured.endpoint.chat else "completions",
        seed=measured.options.seed,
        fallbacks=list(measured.fallbacks),
        interrupted=measured.interrupted,
        seconds=measured.seconds,
        found_rate=None if measured.found is None else found_rate_answer(measured.found),
        **dict(window_answer(measured.shown)),
        windows=[window_answer(window) for window in measured.windows],
        files=dict(files),
    )


def _measure(
    options: MeasureOptions,
    endpoint: Endpoint,
    source: Sweep | RateFinder,
    slo: tuple[SloTarget, ...],
    screen: MeasureScreen,
) -> Measured:
    started = time.perf_counter()
    urls = options.metrics_urls or (f"{endpoint.url}/metrics",)
    runner = WindowRunner(endpoint, urls, screen.live, options.workers, whole_windows=options.whole_windows)
    windows: list[Window] = []
    fallbacks: tuple[str, ...] = ()
    interrupted = False
    try:
        order = source.ask()
        if order is not None:
            agreed = first_answer(endpoint, order, options.ignore_eos)
            endpoint = runner.endpoint = agreed.endpoint
            fallbacks = agreed.fallbacks
            screen.agreed(fallbacks)
        while order is not None:
            windows.append(runner.run(order))
            screen.measured(windows[-1])
            source.tell(windows[-1])
            order = source.ask()
    except KeyboardInterrupt:
        interrupted = True
        partial = runner.partial
        if partial is not None and partial.figures.sent:
            windows.append(partial)
            screen.measured(partial)
    seconds = time.perf_counter() - started
    return Measured(options, endpoint, slo, tuple(windows), source.found, interrupted, seconds, fallbacks)


def _endpoint(options: MeasureOptions) -> Endpoint:
    headers = bearer(options.api_key_env, options.api_key_file) + extra_headers(options.headers, options.headers_env)
    return Endpoint(base_url(options.url), "", headers, options.chat, options.ca_file)


def _check_files(options: MeasureOptions) -> None:
    if options.requests_out is not None:
        check_records(options.requests_out)
    if options.report is not None and not options.report.absolute().parent.is_dir():
        raise BadInput("--report", str(options.report), "a file in a directory that exists")


def _write(measured: Measured) -> dict[str, str]:
    options, files = measured.options, {}
    if options.requests_out is not None:
        write_records(options.requests_out, measured.windows)
        files["requests"] = str(options.requests_out)
    if options.report is not None:
        from deploy.report.measure_page import MeasuredRun, render_measure_report

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
    if measured.found is not None:
        return f"{found_words(measured.found)}, within {slo}"
    kept = {True: "is met", False: "is missed", None: "is neither met nor missed"}[shown.verdict.holds]
    return f"{slo} {kept} under {shown.order.name}"


def _facts(measured: Measured) -> tuple[tuple[str, str], ...]:
    from tuner.app.wiring import facts

    options = measured.options
    return (
        ("server", measured.endpoint.url),
        ("model", measured.endpoint.model),
        ("protocol", "chat completions" if measured.endpoint.chat else "completions"),
        *(("sent otherwise", words) for words in measured.fallbacks),
        ("prompt tokens", "from the trace" if options.trace else options.prompt_tokens),
        ("output tokens", "from the trace" if options.trace else options.output_tokens),
        ("shared prefix", f"{options.shared_prefix_tokens} tokens"),
        ("arrivals", _arrivals(options)),
        ("SLO", "; ".join(map(str, measured.slo)) or "none"),
        ("seed", str(options.seed)),
        *(("client " + name, value) for name, value in facts().items() if name in ("machine", "parlay")),
    )


def _arrivals(options: MeasureOptions) -> str:
    if options.users:
        return "closed loop" + (f", {options.think_seconds:g} s after each answer" if options.think_seconds else "")
    if options.trace:
        return "trace" + (f", its seconds {options.trace_window}" if options.trace_window else "")
    extra = {"gamma": f", burstiness {options.burstiness:g}"} | dict.fromkeys(
        ("ramp", "step"), f", from {options.start_share:g} of the mean rate"
    )
    return options.process + extra.get(options.process, "")
