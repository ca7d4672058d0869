"""The HTML report of a study: one file, no network, legible in light and dark, on paper and on a phone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from html import escape

from deploy.report import charts, layout_charts
from deploy.report.belief_section import beliefs_section, latency_belief, objective_belief
from deploy.report.html_tables import NOTHING, Column, code, count, figure, share, table, yes_no
from deploy.report.page import card, chart, folded, page, pairs, section
from deploy.report.rank_map import rank_figure
from deploy.report.start_charts import phases_of, starts
from deploy.report.study_data import (
    Fate,
    ReportData,
    ShownLayout,
    ShownLayoutSummary,
    ShownMetric,
    ShownSpread,
    ShownStep,
)

_METRICS = {
    "ttft": "TTFT: time from sending a request to its first token",
    "tpot": "TPOT: mean time of each output token after the first",
    "itl": "ITL: time between two consecutive tokens",
    "e2e": "E2E: time from sending a request to its last token",
}


def render_report(data: ReportData) -> str:
    """The whole page, about 5 MB (nearly all of it plotly.js); every text from outside is escaped."""
    body = "\n".join(render_sections(data))
    skip = '<a class="skip" href="#layouts">Skip to the table of layouts</a>'
    about = f"Study <b>{escape(data.study)}</b> of <b>{escape(data.model)}</b>"
    return page(data.study, about, body, figures_of(data), skip)


def render_sections(data: ReportData) -> tuple[str, ...]:
    """The parts of the page as HTML, in their order; where a chart belongs there is an empty place with its name."""
    sections = (_headline, _request, _standings, _beliefs, _funnel, _latency, _predictions, _ranks, _layouts, _timeline)
    return tuple(filter(None, (render(data) for render in (*sections, _files, _reading))))


def figures_of(data: ReportData) -> dict[str, charts.Figure]:
    """The charts of the page by the names of their places."""
    figures: dict[str, charts.Figure | None] = {"funnel": charts.funnel(data), "timeline": charts.timeline(data)}
    figures["starts"] = starts(data)
    figures["front"] = layout_charts.front(data)
    figures["ranks"] = rank_figure(data.ranks) if data.ranks else None
    figures["belief"] = latency_belief(data.beliefs) if data.beliefs else None
    figures["belief-objective"] = objective_belief(data.beliefs) if data.beliefs else None
    for metric in data.metrics:
        figures[f"spread-{metric.key}"] = layout_charts.spread(data, metric)
        figures[f"load-{metric.key}"] = charts.latency_against_load(data, metric)
        figures[f"error-{metric.key}"] = charts.predicted_against_measured(data, metric)
    return {name: figure for name, figure in figures.items() if figure is not None}


def _headline(data: ReportData) -> str:
    winner = data.winner
    banner = '<p class="banner">Simulated: no figure on this page is from a real engine.</p>' if data.simulated else ""
    banner += "".join(f'<p class="banner">{escape(caution)}</p>' for caution in data.cautions)
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
    best = data.standings[0].slo_ms if data.standings else {}
    for metric in data.metrics:
        limit = f"SLO: at most {metric.slo_ms:g} ms" if metric.slo_ms is not None else "no target"
        value, found = winner.measured_ms.get(metric.key), best.get(metric.key)
        if found is not None:
            value = found.mean
            limit += f"; {figure(found.low)} to {figure(found.high)}" if found.high > found.low else ""
        yield card(str(metric), figure(value, "ms"), limit)
    at = f"at {winner.rate_req_per_s:g} requests/s offered" if winner.rate_req_per_s is not None else ""
    yield card("Goodput", figure(winner.measured_goodput_req_per_s, "req/s"), at)
    yield card("Attainment", share(winner.attainment), "requests that met every target")
    yield card("Devices", str(winner.devices), "")


def _request(data: ReportData) -> str:
    spent = f"<h2>What was spent</h2>{_budget(data)}" if data.budget else ""
    return f"""<section class="pair"><div><h2>What was asked</h2>{pairs(data.request)}</div>
<div><h2>Where it ran</h2>{pairs(data.facts)}{spent}</div></section>"""


def _budget(data: ReportData) -> str:
    rows = []
    for one in data.budget:
        of = NOTHING if one.limit is None else figure(one.limit)
        used = NOTHING if one.limit is None else _meter(one.name, one.spent / one.limit)
        rows.append([escape(one.name), figure(one.spent), of, used])
    columns = [Column("Budget"), Column("Spent", number=True), Column("Of", number=True), Column("Used")]
    return table("budget", "Each budget and what the study used of it", columns, rows)


def _meter(name: str, used: float) -> str:
    label = f"{escape(name)}: {used:.0%} used"
    return f'<meter min="0" max="1" value="{min(used, 1):.3f}" aria-label="{label}">{used:.0%}</meter> {used:.0%}'


def _standings(data: ReportData) -> str:
    if not data.standings:
        return ""
    body = ""
    if data.axes is not None and layout_charts.front(data) is not None:
        body += chart("front", f"{data.axes[1]} against {data.axes[0]}, of the layouts that meet the SLO")
    caption = "{} of each layout and its spread over repeated runs"
    body += _each_metric(data, "spread", caption, layout_charts.spread)
    targets = [metric for metric in data.metrics if metric.slo_ms is not None]
    columns = [Column("Layout"), Column("Meets SLO"), Column("Runs")]
    names = ["Devices", "Holds, req/s", *(f"{m}, ms (of {m.slo_ms:g})" for m in targets), "Attainment (at least)"]
    names += ["USD/hour", "USD per million tokens"]
    columns += [Column(name, number=True) for name in names]
    rows = [_summary_row(row, targets) for row in data.standings]
    body += table("standings-table", "All runs of a layout together, best first", columns, rows)
    return section("standings", "Where each layout stands", body)


def _summary_row(row: ShownLayoutSummary, targets: Iterable[ShownMetric]) -> list[str]:
    attained = NOTHING if row.attainment is None else f"{share(row.attainment)} ({share(row.attainment_at_least)})"
    held = figure(row.held_req_per_s)
    if row.held_req_per_s is None and row.at_req_per_s is not None:
        held = f"{NOTHING} ({figure(row.at_req_per_s)} missed)"
    figures = [str(row.devices), held, *(_spread(row.slo_ms.get(m.key)) for m in targets)]
    money = [figure(row.usd_per_hour), figure(row.usd_per_million_tokens)]
    return [code(row.layout), yes_no(row.meets_slo), escape(row.runs), *figures, attained, *money]


def _spread(found: ShownSpread | None) -> str:
    if found is None:
        return NOTHING
    around = f" ({figure(found.low)} to {figure(found.high)})" if found.high > found.low else ""
    return figure(found.mean) + around


def _beliefs(data: ReportData) -> str:
    return beliefs_section(data.beliefs, data.ended)


def _funnel(data: ReportData) -> str:
    rows = []
    for stage in data.funnel:
        reasons = "; ".join(f"{escape(reason)}: {number:,}" for reason, number in stage.dropped)
        rows.append([escape(stage.name), count(stage.kept), reasons or NOTHING])
    columns = [Column("Stage"), Column("Kept", number=True), Column("Dropped here")]
    body = chart("funnel", "Layouts kept by each stage (bar lengths are logarithmic)")
    body += table("stages", "Layouts kept and dropped, stage by stage", columns, rows)
    return section("funnel", "From candidates to the winner", body)


def _latency(data: ReportData) -> str:
    figures = _each_metric(data, "load", "{} against the offered rate, a line per layout", charts.latency_against_load)
    rows = [_step_row(row, step, data.metrics) for row in data.launched for step in row.steps]
    names = ("Offered, req/s", *(f"{metric}, ms" for metric in data.metrics))
    names = (*names, "Goodput, req/s", "Attainment", "Sent", "Failed")
    columns = [Column("Layout"), *(Column(name, number=True) for name in names), Column("Meets SLO")]
    steps = table("steps", "Every measured load step", columns, rows)
    return section("load", "Latency against load", figures + folded("As a table", steps))


def _step_row(row: ShownLayout, step: ShownStep, metrics: Iterable[ShownMetric]) -> list[str]:
    latencies = [figure(step.latency_ms.get(metric.key)) for metric in metrics]
    counts = [figure(step.goodput_req_per_s), share(step.attainment), count(step.sent), count(step.failed)]
    return [code(row.layout), f"{step.rate_req_per_s:.4g}", *latencies, *counts, yes_no(step.meets_slo)]


def _predictions(data: ReportData) -> str:
    caption = "{}: each point is a layout; on the dashed line the model was right"
    figures = _each_metric(data, "error", caption, charts.predicted_against_measured)
    return section("predictions", "Predicted against measured", figures) if figures else ""


def _each_metric(
    data: ReportData, prefix: str, caption: str, draw: Callable[[ReportData, ShownMetric], charts.Figure | None]
) -> str:
    shown = [metric for metric in data.metrics if draw(data, metric) is not None]
    figures = "".join(chart(f"{prefix}-{metric.key}", caption.format(metric)) for metric in shown)
    return f'<div class="grid">{figures}</div>' if figures else ""


def _ranks(data: ReportData) -> str:
    if data.ranks is None:
        return ""
    caption = f"Ranks of {data.ranks.layout} on their devices; a link's colour says how much a request sends over it"
    rows = [[code(link.first), code(link.second), escape(link.kind), figure(link.mb)] for link in data.ranks.links]
    columns = [Column("From"), Column("To"), Column("Kind"), Column("MB per request", number=True)]
    links = table("rank-links", "What one request sends over each link", columns, rows)
    return section("ranks", "Ranks, nodes and links", chart("ranks", caption) + folded("As a table", links))


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
        body += folded(f"Layouts that were not launched: {len(rest):,}", untried)
    return section("layouts", "All layouts", body)


def _full_row(row: ShownLayout, metrics: Iterable[ShownMetric]) -> list[str]:
    cells = [code(row.layout), _fate(row), str(row.devices), figure(row.rate_req_per_s)]
    for metric in metrics:
        cells += [figure(row.predicted_ms.get(metric.key)), figure(row.measured_ms.get(metric.key))]
    cells += [figure(row.predicted_goodput_req_per_s), figure(row.measured_goodput_req_per_s)]
    return [*cells, share(row.attainment), yes_no(row.meets_slo)]


def _short_row(row: ShownLayout, metrics: Iterable[ShownMetric]) -> list[str]:
    predicted = [figure(row.predicted_ms.get(metric.key)) for metric in metrics]
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
    body = chart("timeline", "What each trial did, over time")
    rest = table("times", "The trials in their order", columns, rows)
    if phases := phases_of(data):
        columns = [Column("Trial", number=True), *(Column(f"{name}, s".capitalize(), number=True) for name in phases)]
        timed = [t for row in data.launched if (t := row.trial) is not None and t.phases]
        cells = [[str(t.number), *(figure(dict(t.phases).get(name)) for name in phases)] for t in timed]
        rest += chart("starts", "What each start waited for")
        rest += table("starts-table", "Each start by phase", columns, cells)
    return section("trials", "Trials", body + rest)


def _files(data: ReportData) -> str:
    rows = [[code(f.name), escape(f.what), code(f.use) if f.use else NOTHING] for f in data.files]
    columns = [Column("File"), Column("What it is"), Column("Use")]
    return section("files", "Files written", table("written", "Beside this page", columns, rows)) if rows else ""


def _reading(data: ReportData) -> str:
    terms = "".join(f"<li>{_METRICS[m.name]}, at percentile {m.percentile:g}.</li>" for m in data.metrics)
    return section(
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


def _fate(row: ShownLayout) -> str:
    badge = f'<span class="fate {row.fate.value.replace(" ", "-")}">{row.fate.value}</span>'
    return f'{badge}<small class="reason">{escape(row.reason)}</small>' if row.reason else badge
