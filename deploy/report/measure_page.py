"""The HTML page of ``parlay measure``: one file, no network, in the style of a study's report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from deploy.report import measure_charts as charts
from deploy.report.charts import Figure
from deploy.report.html_tables import NOTHING, Column, count, figure, share, table
from deploy.report.page import card, chart, page, pairs, section
from serve.load.endpoint import Endpoint
from serve.measure.summary import Latency
from serve.measure.window import Window
from tuner.ask.request import Metric
from tuner.ask.slo import Verdict

_READING = """<ul>
<li>TTFT: from sending a request to its first token; TPOT: mean time of each token after the first; ITL: between two
events that carry tokens; E2E: from sending to the last token. All count from the actual send; “from the intended send”
adds how late the client was.</li>
<li>An interval holds the true percentile in 95 of 100 such windows; where there is none, the window has too few
requests for that percentile (p99 needs 368). Requests that follow each other are alike, and count as fewer.</li>
<li>Answered: completed requests per second, up to the last answer. Goodput: requests per second offered that met every
target. Attainment: their share of all requests sent; a request that failed counts as one that missed.</li>
<li>An invalid window says nothing about the server, not that it is slow: the client could not keep its schedule or
read in time, an engine restarted, or nothing was answered. More workers, a quieter machine or a lower rate help.</li>
<li>“–” is a figure that does not exist; it is never zero.</li></ul>"""


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """Everything on the page: the windows in their order, the one that stands for the run, and (label, value) pairs of
    what was measured how."""

    endpoint: Endpoint
    windows: Sequence[Window]
    shown: Window
    facts: tuple[tuple[str, str], ...]
    headline: str


def render_measure_report(run: MeasuredRun) -> str:
    """The whole page, about 5 MB (nearly all of it plotly.js); every text from outside is escaped."""
    figures = _figures(run)
    parts = (_headline(run), _cautions(run), _asked(run), _windows(run), *_charts(figures), _reading())
    title = f"{run.endpoint.model} at {run.endpoint.url}"
    head = f"Measured: <b>{escape(run.endpoint.model)}</b> at <b>{escape(run.endpoint.url)}</b>"
    return page(title, head, "\n".join(filter(None, parts)), {name: found for name, (_, found) in figures.items()})


def _figures(run: MeasuredRun) -> dict[str, tuple[str, Figure]]:
    """Name → caption and chart, those that there is something to draw for."""
    windows = list(run.windows)
    drawn: dict[str, tuple[str, Figure | None]] = {}
    for metric in Metric:
        name = metric.value.upper()
        rates = charts.latency_against_rate(windows, metric) if len(windows) > 1 else None
        drawn[f"rate-{metric.value}"] = (f"{name} against the rate that was answered, with 95 % intervals", rates)
        what = "gaps" if metric is Metric.ITL else "requests"
        drawn[f"share-{metric.value}"] = (f"Share of {what} within each {name}", charts.distribution(windows, metric))
    drawn["requests"] = ("Requests over time, as the client saw them", charts.requests_over_time(windows))
    drawn["engine"] = ("Requests in the engine", charts.engine_over_time(windows, "requests"))
    drawn["kv"] = ("KV cache of the fullest engine", charts.engine_over_time(windows, "kv"))
    return {name: (caption, found) for name, (caption, found) in drawn.items() if found is not None}


def _headline(run: MeasuredRun) -> str:
    found = run.shown.figures
    cards = []
    for metric in (Metric.TTFT, Metric.TPOT, Metric.E2E):
        if (one := found.latency.get(metric)) is not None:
            spread = one.interval_ms[99.0]
            note = f"95 %: {figure(spread[0])} to {figure(spread[1])}" if spread else "too few requests for an interval"
            cards.append(card(f"{metric.value.upper()} p99", figure(one.at_ms[99.0], "ms"), note))
    cards.append(card("Answered", figure(found.achieved_req_per_s, "req/s"), run.shown.order.name))
    if found.targets:
        bounds = found.attainment_interval
        note = f"95 %: {share(bounds[0])} to {share(bounds[1])}" if bounds else ""
        cards.append(card("Attainment", share(found.attainment), note))
    cards.append(card("Schedule lag p99", figure(found.schedule_lag_p99_ms, "ms"), "how late the client sent"))
    good = run.shown.invalid is None and run.shown.verdict is not Verdict.MISSED
    return f"""{_banner(run)}<section class="verdict{"" if good else " none"}" aria-labelledby="headline">
<h1 id="headline">{escape(run.headline)}</h1><dl class="cards">{"".join(cards)}</dl></section>"""


def _banner(run: MeasuredRun) -> str:
    """Which windows are invalid, and why, before anything else is read."""
    invalid = [(one.order.name, one.invalid) for one in run.windows if one.invalid is not None]
    if not invalid:
        return ""
    lines = "<br>".join(f"{escape(name)}: {escape(why)}" for name, why in invalid)
    return f'<p class="banner">Invalid: {len(invalid)} of {len(run.windows)} windows.<br>{lines}</p>'


def _cautions(run: MeasuredRun) -> str:
    """How the server counts and answers otherwise than asked, window by window."""
    found = [(one.order.name, words) for one in run.windows for words in one.cautions]
    lines = "<br>".join(f"{escape(name)}: {escape(words)}" for name, words in found)
    return f'<p class="banner">{lines}</p>' if found else ""


def _asked(run: MeasuredRun) -> str:
    return section("setting", "What was measured", pairs(run.facts))


def _windows(run: MeasuredRun) -> str:
    columns = [Column("Load"), Column("Says")]
    columns += [Column(name, number=True) for name in ("Sent", "Failed", "Answered/s", "Goodput/s")]
    columns += [Column(f"p{level}", number=True, group=f"{m.value.upper()}, ms") for m in Metric for level in (50, 99)]
    columns += [Column("Attainment", number=True), Column("Lag p99, ms", number=True)]
    columns += [Column(name, number=True, group="Engine") for name in ("Queue", "KV at most", "Preemptions")]
    rows = [_row(window) for window in run.windows]
    return section("windows", "Windows", table("all-windows", "Every window of load, in order", columns, rows))


def _row(window: Window) -> list[str]:
    found, engine = window.figures, window.engine
    cells = [escape(window.order.name), _says(window), count(found.sent), count(found.failed)]
    cells += [figure(found.achieved_req_per_s), figure(found.goodput_req_per_s)]
    for metric in Metric:
        cells += [figure(_at(found.latency.get(metric), level)) for level in (50.0, 99.0)]
    cells += [share(found.attainment), figure(found.schedule_lag_p99_ms)]
    return [*cells, figure(engine.waiting_mean), share(engine.kv_cache_share_max), figure(engine.preemptions)]


def _says(window: Window) -> str:
    if window.invalid is not None:
        return '<span class="fate failed">invalid</span>'
    if window.verdict is Verdict.UNKNOWN:
        return NOTHING
    met = window.verdict is Verdict.MET
    note = "" if window.certain else '<small class="reason">by chance it could be otherwise</small>'
    early = (
        f'<small class="reason">certain after {window.figures.offered_s:.1f} s</small>' if window.ended_early else ""
    )
    words = "✓ meets the SLO" if met else "✗ misses the SLO"
    return f'<span class="fate {"winner" if met else "failed"}">{words}</span>{early or note}'


def _at(latency: Latency | None, level: float) -> float | None:
    return None if latency is None else latency.at_ms[level]


def _charts(figures: dict[str, tuple[str, Figure]]) -> list[str]:
    groups = (
        ("rate", "Latency against rate", lambda name: name.startswith("rate-")),
        ("share", "Distributions", lambda name: name.startswith("share-")),
        ("time", "Over time", lambda name: name in ("requests", "engine", "kv")),
    )
    return [_group(figures, anchor, title, chosen) for anchor, title, chosen in groups]


def _group(figures: dict[str, tuple[str, Figure]], anchor: str, title: str, chosen: Callable[[str], bool]) -> str:
    drawn = "".join(chart(name, caption) for name, (caption, _) in figures.items() if chosen(name))
    return section(anchor, title, f'<div class="grid">{drawn}</div>') if drawn else ""


def _reading() -> str:
    return section("reading", "How to read this", _READING)
