"""The HTML report of a study: one file, no network, legible in light and dark, on paper and on a phone.

plotly.js comes inlined from plotly's wheel; style and script from ``report.css`` and ``report.js`` beside this file.
A content security policy forbids the page to fetch anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from html import escape
from importlib import resources

from deploy import charts
from deploy.report_data import Fate, ReportData, ShownLayout, ShownMetric, ShownStep
from deploy.tables import NOTHING, Column, code, count, figure, share, table, yes_no

_METRICS = {
    "ttft": "TTFT: time from sending a request to its first token",
    "tpot": "TPOT: mean time of each output token after the first",
    "itl": "ITL: time between two consecutive tokens",
    "e2e": "E2E: time from sending a request to its last token",
}


def render_report(data: ReportData) -> str:
    """The whole page, about 5 MB (nearly all of it plotly.js); every text from outside is escaped."""
    from plotly.offline import get_plotlyjs

    sections = (_headline, _request, _funnel, _latency, _predictions, _layouts, _timeline, _files, _reading)
    body = "\n".join(filter(None, (section(data) for section in sections)))
    figures = json.dumps(_figures(data), allow_nan=False).replace("<", "\\u003c")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; \
style-src 'unsafe-inline'; img-src data: blob:">
<title>{escape(data.study)} · Parlay</title>
<style>{_asset("report.css")}</style>
</head>
<body>
<a class="skip" href="#layouts">Skip to the table of layouts</a>
<header><p class="brand">Parlay</p><p>Study <b>{escape(data.study)}</b> of <b>{escape(data.model)}</b></p></header>
<main>
{body}
</main>
<script>{get_plotlyjs()}</script>
<script type="application/json" id="figures">{figures}</script>
<script>{_asset("report.js")}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
    return resources.files("deploy").joinpath(name).read_text(encoding="utf-8")


def _figures(data: ReportData) -> dict[str, charts.Figure]:
    figures: dict[str, charts.Figure | None] = {"funnel": charts.funnel(data), "timeline": charts.timeline(data)}
    for metric in data.metrics:
        figures[f"load-{metric.name}"] = charts.latency_against_load(data, metric)
        figures[f"error-{metric.name}"] = charts.predicted_against_measured(data, metric)
    return {name: figure for name, figure in figures.items() if figure is not None}


def _headline(data: ReportData) -> str:
    winner = data.winner
    banner = '<p class="banner">Simulated: no figure on this page is from a real engine.</p>' if data.simulated else ""
    cards = "".join(_cards(data, winner)) if winner else ""
    why = "".join(f"<p>{escape(paragraph)}</p>" for paragraph in data.why)
    kind = "verdict" if winner else "verdict none"
    chosen = (
        ""
        if winner is None or winner.layout in data.headline
        else f'<p class="chosen"><code>{escape(winner.layout)}</code></p>'
    )
    return f"""{banner}<section class="{kind}" aria-labelledby="headline">
<h1 id="headline">{escape(data.headline)}</h1>
{chosen}{f'<dl class="cards">{cards}</dl>' if cards else ""}
{why}</section>"""


def _cards(data: ReportData, winner: ShownLayout) -> Iterable[str]:
    for metric in data.metrics:
        limit = f"SLO: at most {metric.slo_ms:g} ms" if metric.slo_ms is not None else "no target"
        yield _card(str(metric), figure(winner.measured_ms.get(metric.name), "ms"), limit)
    at = f"at {winner.rate_req_per_s:g} requests/s offered" if winner.rate_req_per_s is not None else ""
    yield _card("Goodput", figure(winner.measured_goodput_req_per_s, "req/s"), at)
    yield _card("Attainment", share(winner.attainment), "requests that met every target")
    yield _card("Devices", str(winner.devices), "")


def _card(label: str, value: str, note: str) -> str:
    return f"<div><dt>{escape(label)}</dt><dd><b>{value}</b><small>{escape(note)}</small></dd></div>"


def _request(data: ReportData) -> str:
    return f"""<section class="pair"><div><h2>What was asked</h2>{_pairs(data.request)}</div>
<div><h2>Where it ran</h2>{_pairs(data.facts)}</div></section>"""


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="pairs">{rows}</dl>' if rows else f"<p>{NOTHING}</p>"


def _funnel(data: ReportData) -> str:
    rows = []
    for stage in data.funnel:
        reasons = "; ".join(f"{escape(reason)}: {number:,}" for reason, number in stage.dropped)
        rows.append([escape(stage.name), count(stage.kept), reasons or NOTHING])
    columns = [Column("Stage"), Column("Kept", number=True), Column("Dropped here")]
    body = _chart("funnel", "Layouts kept by each stage (bar lengths are logarithmic)")
    body += table("stages", "Layouts kept and dropped, stage by stage", columns, rows)
    return _section("funnel", "From candidates to the winner", body)


def _latency(data: ReportData) -> str:
    figures = _each_metric(data, "load", "{} against the offered rate, a line per layout", charts.latency_against_load)
    rows = [_step_row(row, step, data.metrics) for row in data.launched for step in row.steps]
    names = ("Offered, req/s", *(f"{metric}, ms" for metric in data.metrics))
    names = (*names, "Goodput, req/s", "Attainment", "Sent", "Failed")
    columns = [Column("Layout"), *(Column(name, number=True) for name in names), Column("Meets SLO")]
    steps = table("steps", "Every measured load step", columns, rows)
    return _section("load", "Latency against load", figures + _folded("As a table", steps))


def _step_row(row: ShownLayout, step: ShownStep, metrics: Iterable[ShownMetric]) -> list[str]:
    latencies = [figure(step.latency_ms.get(metric.name)) for metric in metrics]
    counts = [figure(step.goodput_req_per_s), share(step.attainment), count(step.sent), count(step.failed)]
    return [code(row.layout), f"{step.rate_req_per_s:.4g}", *latencies, *counts, yes_no(step.meets_slo)]


def _predictions(data: ReportData) -> str:
    caption = "{}: each point is a layout; on the dashed line the model was right"
    figures = _each_metric(data, "error", caption, charts.predicted_against_measured)
    return _section("predictions", "Predicted against measured", figures) if figures else ""


def _each_metric(
    data: ReportData, prefix: str, caption: str, draw: Callable[[ReportData, ShownMetric], charts.Figure | None]
) -> str:
    shown = [metric for metric in data.metrics if draw(data, metric) is not None]
    figures = "".join(_chart(f"{prefix}-{metric.name}", caption.format(metric)) for metric in shown)
    return f'<div class="grid">{figures}</div>' if figures else ""


def _layouts(data: ReportData) -> str:
    rows = sorted(data.layouts, key=lambda row: list(Fate).index(row.fate))
    tried = [_full_row(row, data.metrics) for row in rows if row.trial is not None]
    rest = [_short_row(row, data.metrics) for row in rows if row.trial is None]
    groups = [*(f"{metric}, ms" for metric in data.metrics), "Goodput, req/s"]
    pairs = [Column(name, number=True, group=group) for group in groups for name in ("predicted", "measured")]
    start = [Column("Layout"), Column("Outcome"), Column("Devices", number=True)]
    columns = [*start, Column("At req/s", number=True), *pairs, Column("Attainment", number=True), Column("Meets SLO")]
    body = table("tried", "Layouts that were launched", columns, tried)
    if rest:
        columns = [*start, *(Column("predicted", number=True, group=group) for group in groups)]
        untried = table("untried", "Layouts that were not launched", columns, rest)
        body += _folded(f"Layouts that were not launched: {len(rest):,}", untried)
    return _section("layouts", "All layouts", body)


def _full_row(row: ShownLayout, metrics: Iterable[ShownMetric]) -> list[str]:
    cells = [code(row.layout), _fate(row), str(row.devices), figure(row.rate_req_per_s)]
    for metric in metrics:
        cells += [figure(row.predicted_ms.get(metric.name)), figure(row.measured_ms.get(metric.name))]
    cells += [figure(row.predicted_goodput_req_per_s), figure(row.measured_goodput_req_per_s)]
    return [*cells, share(row.attainment), yes_no(row.meets_slo)]


def _short_row(row: ShownLayout, metrics: Iterable[ShownMetric]) -> list[str]:
    predicted = [figure(row.predicted_ms.get(metric.name)) for metric in metrics]
    return [code(row.layout), _fate(row), str(row.devices), *predicted, figure(row.predicted_goodput_req_per_s)]


def _timeline(data: ReportData) -> str:
    rows = [
        [str(t.number), code(row.layout), figure(t.started_s), figure(t.ready_after_s), figure(t.seconds)]
        for row in data.launched
        if (t := row.trial) is not None
    ]
    if not rows:
        return ""
    columns = [Column("Trial", number=True), Column("Layout")]
    columns += [Column(name, number=True) for name in ("Began at, s", "Ready after, s", "Took, s")]
    body = _chart("timeline", "What each trial did, over time")
    return _section("trials", "Trials", body + table("times", "The trials in their order", columns, rows))


def _files(data: ReportData) -> str:
    rows = [[code(f.name), escape(f.what), code(f.use) if f.use else NOTHING] for f in data.files]
    columns = [Column("File"), Column("What it is"), Column("Use")]
    return _section("files", "Files written", table("written", "Beside this page", columns, rows)) if rows else ""


def _reading(data: ReportData) -> str:
    terms = "".join(f"<li>{_METRICS[m.name]}, at percentile {m.percentile:g}.</li>" for m in data.metrics)
    return _section(
        "reading",
        "How to read this",
        f"""<ul>{terms}
<li>Goodput: requests per second that met every target. Attainment: their share of all requests sent; a request that
failed counts as one that missed.</li>
<li>A layout is written as its degrees of parallelism: tp tensor, pp pipeline, dp data; then what is not at its
default.</li>
<li>Dropped: the model showed that it cannot run or cannot win. Stopped: measured in part, then it had already lost.
Failed: the launch or the measurement broke, which says nothing about its speed.</li>
<li>“{NOTHING}” is a figure that does not exist; it is never zero.</li></ul>""",
    )


def _section(anchor: str, title: str, body: str) -> str:
    return f'<section aria-labelledby="{anchor}"><h2 id="{anchor}">{escape(title)}</h2>{body}</section>'


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def _chart(name: str, caption: str) -> str:
    label = escape(caption)
    return (
        f'<figure><figcaption>{label}</figcaption><div class="chart" data-figure="{name}" role="img" '
        f'aria-label="{label}; the figures are in a table on this page"></div></figure>'
    )


def _fate(row: ShownLayout) -> str:
    badge = f'<span class="fate {row.fate.value.replace(" ", "-")}">{row.fate.value}</span>'
    return f'{badge}<small class="reason">{escape(row.reason)}</small>' if row.reason else badge
