"""``parlay measure`` for people: a live table while windows run, then the figures with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from serve.load.endpoint import Endpoint
from serve.measure.summary import Latency
from serve.measure.window import LiveFigures, Window
from tuner.app.cli.tables import ABSENT, number
from tuner.ask.request import Metric
from tuner.ask.slo import Verdict
from tuner.stats.rate_search import RateFound, SearchEnd

_LEVELS = (50.0, 90.0, 95.0, 99.0)


class MeasureScreen:
    """Shows windows while they run: a table where there is a terminal, else a line per finished window."""

    def __init__(self, console: Console, endpoint: Endpoint) -> None:
        self._console, self._endpoint = console, endpoint
        self._done: list[Window] = []
        self._now: LiveFigures | None = None
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> MeasureScreen:
        self._console.print(f"{self._endpoint.model} at {self._endpoint.url}", highlight=False, soft_wrap=True)
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def agreed(self, fallbacks: Sequence[str]) -> None:
        """A first request was answered, with what the server refuses sent otherwise."""
        for words in fallbacks:
            self._console.print(words, style="yellow", highlight=False, markup=False, soft_wrap=True)

    def live(self, figures: LiveFigures) -> None:
        """What the running window shows now."""
        self._now = figures
        self._refresh()

    def measured(self, window: Window) -> None:
        """A window is over."""
        self._now = None
        self._done.append(window)
        self._refresh()
        if self._live is None:
            found = window.figures
            ttft, tpot = (found.latency.get(metric) for metric in (Metric.TTFT, Metric.TPOT))
            self._console.print(
                f"{window.order.name}: {found.completed}/{found.sent} answered in {found.wall_s:.1f} s, TTFT p50 "
                f"{_at(ttft, 50)} p99 {_at(ttft, 99)} ms, TPOT p50 {_at(tpot, 50)} p99 {_at(tpot, 99)} ms, "
                f"{verdict_words(window)}",
                highlight=False,
                soft_wrap=True,
            )
            for caution in window.cautions:
                self._console.print(f"  {caution}", style="yellow", highlight=False, markup=False, soft_wrap=True)

    def _refresh(self) -> None:
        if self._live is None:
            return
        table = Table()
        for name in (
            "load",
            "time s",
            "sent",
            "in flight",
            "answered",
            "failed",
            "TTFT p50",
            "TPOT p50",
            "queue",
            "KV",
        ):
            table.add_column(name, justify="left" if name == "load" else "right")
        for window in self._done:
            found, engine = window.figures, window.engine
            ttft, tpot = (found.latency.get(metric) for metric in (Metric.TTFT, Metric.TPOT))
            counts = (str(found.sent), "0", str(found.completed), str(found.failed))
            waiting, fullest = number(engine.waiting_mean), _share(engine.kv_cache_share_max)
            name = window.order.name + (" [yellow](invalid)[/yellow]" if window.invalid else "")
            table.add_row(
                name, f"{found.wall_s:.1f}", *counts, _at(ttft, 50), _at(tpot, 50), waiting, fullest, style="dim"
            )
        if (now := self._now) is not None:
            counts = (str(now.sent), str(now.in_flight), str(now.completed), str(now.failed))
            queue, fullest = number(now.waiting, 0), _share(now.kv_cache_share)
            medians = (number(now.ttft_p50_ms, 0), number(now.tpot_p50_ms))
            elapsed = f"{now.elapsed_s:.0f} / {now.order.end_s:.0f}"
            table.add_row(now.order.name, elapsed, *counts, *medians, queue, fullest)
        self._live.update(table, refresh=True)


def summary_tables(
    console: Console,
    windows: Sequence[Window],
    shown: Window,
    found: RateFound | None,
    files: Mapping[str, str],
    fallbacks: Sequence[str] = (),
) -> None:
    """All windows, then the latencies of the shown one with their intervals, then what else it says."""
    if len(windows) > 1:
        console.print(_windows_table(windows))
    console.print(_latency_table(shown))
    if found is not None:
        console.print(found_words(found), style="bold", highlight=False, soft_wrap=True)
    for line in _lines(shown):
        console.print(line, highlight=False, soft_wrap=True)
    for words in (*fallbacks, *shown.cautions):
        console.print(words, style="yellow", highlight=False, markup=False, soft_wrap=True)
    for window in windows:
        if window.invalid is not None:
            console.print(f"{window.order.name} is invalid: {window.invalid}", style="yellow", markup=False)
    for kind, path in files.items():
        console.print(f"{kind}: {path}", highlight=False, soft_wrap=True)


def found_words(found: RateFound) -> str:
    """What a search for the highest rate ended with, in one sentence."""
    between = f"{_rate(found.at_least_req_per_s)} and {_rate(found.at_most_req_per_s)} requests/s"
    if found.rate_req_per_s is None:
        words = "no rate was seen to meet the SLO"
    else:
        words = f"the SLO holds up to {found.rate_req_per_s:.3g} requests/s; the limit is between {between} (90 %)"
    end = {
        SearchEnd.LOWEST_FAILS: "not even the lowest rate meets it",
        SearchEnd.HIGHEST_PASSES: "the highest rate that was allowed still meets it",
        SearchEnd.CLIENT_SATURATED: "the client cannot send more",
        SearchEnd.NO_WINDOWS_LEFT: "more windows would narrow it",
        None: "the search was not finished",
    }
    after = f", after {found.windows} windows"
    return words + after + (f"; {end[found.end]}" if found.end in end else "")


def _rate(value: float | None) -> str:
    return "an unknown rate" if value is None else f"{value:.3g}"


def verdict_words(window: Window) -> str:
    """What a window says of the SLO, in a few words."""
    if window.invalid is not None:
        return "invalid"
    if window.verdict is Verdict.UNKNOWN:
        return "shows nothing of the SLO" if window.order.slo else "no SLO"
    words = "meets the SLO" if window.verdict is Verdict.MET else "misses the SLO"
    if window.ended_early is not None:
        return words + f" (certain after {window.figures.offered_s:.1f} s)"
    return words if window.certain else words + " (by chance it could be otherwise)"


def _windows_table(windows: Sequence[Window]) -> Table:
    table = Table()
    heads = (
        "load",
        "answered/s",
        "goodput/s",
        "TTFT p50",
        "p99 ms",
        "TPOT p50",
        "p99 ms",
        "attainment",
        "lag p99",
        "SLO",
    )
    for place, name in enumerate(heads):
        table.add_column(name, justify="left" if place in (0, len(heads) - 1) else "right")
    for window in windows:
        found = window.figures
        ttft, tpot = (found.latency.get(metric) for metric in (Metric.TTFT, Metric.TPOT))
        table.add_row(
            window.order.name,
            number(found.achieved_req_per_s, 2),
            number(found.goodput_req_per_s, 2),
            *(_at(one, level) for one in (ttft, tpot) for level in (50, 99)),
            _share(found.attainment),
            number(found.schedule_lag_p99_ms),
            verdict_words(window),
            style="yellow" if window.invalid is not None else None,
        )
    return table


def _latency_table(window: Window) -> Table:
    table = Table(title=f"{window.order.name}: ms, with 95 % intervals", title_justify="left")
    table.add_column("")
    for name in ("count", "mean", *(f"p{level:g}" for level in _LEVELS)):
        table.add_column(name, justify="right")
    rows = {metric.value.upper(): window.figures.latency.get(metric) for metric in Metric}
    rows["TTFT from intended send"] = window.figures.ttft_from_intended
    for name, one in rows.items():
        if one is not None:
            table.add_row(name, f"{one.count:,}", number(one.mean_ms), *(_with_interval(one, p) for p in _LEVELS))
    return table


def _lines(window: Window) -> list[str]:
    found = window.figures
    lines = []
    for target in found.targets:
        spread = target.interval_ms
        interval = f", 95 % between {number(spread[0])} and {number(spread[1])}" if spread else ""
        mark = {True: "met", False: "missed", None: "not measured"}[target.met]
        lines.append(f"{target.target}: {number(target.value_ms)} ms{interval}: {mark}")
    if found.targets:
        bounds = found.attainment_interval
        interval = f" (95 % between {bounds[0]:.1%} and {bounds[1]:.1%})" if bounds else ""
        lines.append(f"attainment {_share(found.attainment)}{interval}; {verdict_words(window)}")
    errors = f" ({', '.join(f'{count} {name}' for name, count in found.errors.items())})" if found.errors else ""
    lines.append(
        f"{found.sent} requests in {found.offered_s:.1f} s, {found.completed} answered, {found.failed} failed{errors}: "
        f"{number(found.achieved_req_per_s, 2)} requests/s, {number(found.output_tok_per_s, 0)} output tokens/s"
    )
    if window.unsteady is not None:
        lines.append(f"not steady: {window.unsteady}; the figures depend on the window's length")
    if window.warm_up_s is not None:
        words = f"the first {window.warm_up_s:.1f} s that count were much slower than the rest"
        lines.append(f"{words}: if that was warm-up, lengthen --warmup-seconds ({window.order.lead_s:g})")
    lines.append(_client_line(window))
    lines.append(_engine_line(window))
    return lines


def _client_line(window: Window) -> str:
    found, client = window.figures, window.client
    words = f"schedule lag p50 {number(found.schedule_lag_p50_ms, 2)}, p99 {number(found.schedule_lag_p99_ms, 2)} ms"
    if client is not None:
        words += (
            f"; client: {client.cpu_share:.0%} of a core, event loop late by p99 {number(client.loop_lag_p99_ms)} ms"
        )
    return words


def _engine_line(window: Window) -> str:
    engine = window.engine
    if engine.missing is not None:
        return f"engine: no figures ({engine.missing})"
    queue = f"queue {number(engine.waiting_mean)} (at most {number(engine.waiting_max, 0)})"
    running = f"running {number(engine.running_mean)} (at most {number(engine.running_max, 0)})"
    cache = f"KV cache {_share(engine.kv_cache_share_mean)} (at most {_share(engine.kv_cache_share_max)})"
    rest = f"preemptions {number(engine.preemptions, 0)}, prefix cache hits {_share(engine.prefix_hit_share)}"
    return f"engine: {queue}, {running}, {cache}, {rest}"


def _with_interval(latency: Latency, level: float) -> str:
    spread = latency.interval_ms[level]
    value = number(latency.at_ms[level])
    return f"{value} [dim]({number(spread[0])}–{number(spread[1])})[/dim]" if spread else value


def _at(latency: Latency | None, level: float) -> str:
    return number(None if latency is None else latency.at_ms[level])


def _share(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.1%}"
