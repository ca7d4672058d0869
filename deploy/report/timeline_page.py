"""The page about a watched deployment over time: one file, no network, in the style of a study's report."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape

from deploy.report.html_tables import NOTHING
from deploy.report.page import card, chart, page, pairs, section
from deploy.report.timeline import Timeline
from deploy.report.timeline_charts import timeline_figure


def render_timeline(data: Timeline) -> str:
    """The whole page; every text from outside is escaped."""
    figure = timeline_figure(data)
    figures = {} if figure is None else {"timeline": figure}
    drawn = chart("timeline", "Attainment, requests and layouts over time") if figure else f"<p>{NOTHING}</p>"
    notes = "".join(f"<p><b>{escape(one)}</b></p>" for one in data.notes)
    parts = [_cards(data), section("time", "Over time", notes + drawn), _happened(data), _served(data), _facts(data)]
    head = f"What serves of <b>{escape(data.study)}</b>"
    return page(f"{data.study} over time", head, "\n".join(filter(None, parts)), figures)


def _cards(data: Timeline) -> str:
    arrived = sum(point.arrived or 0.0 for point in data.points)
    failed = [point.failed for point in data.points if point.failed is not None]
    moves = sum(span.serving_s is not None for span in data.spans) - 1
    lost = f"{sum(failed):.0f}" if failed else NOTHING
    cells = (
        card("requests", f"{arrived:.0f}", "that came while it was watched"),
        card("lost", lost, "answered with an error of the server, or not at all"),
        card("changes", str(max(0, moves)), "of what has the traffic"),
    )
    return f'<dl class="cards">{"".join(cells)}</dl>'


def _happened(data: Timeline) -> str:
    rows = "".join(
        f"<tr><td>{number}</td><td>{_clock(mark.at_s)}</td><td>{escape(mark.kind)}</td><td>{escape(mark.text)}</td></tr>"
        for number, mark in enumerate(data.marks, 1)
    )
    if not rows:
        return ""
    head = "<tr><th>line</th><th>when (UTC)</th><th>what</th><th>in words</th></tr>"
    table = f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"
    return section("happened", "What happened", f'<div class="scroll">{table}</div>')


def _served(data: Timeline) -> str:
    rows = "".join(
        f"<tr><td>{escape(span.name)}</td><td>{escape(span.layout)}</td><td>{escape(span.state)}</td>"
        f"<td>{_clock(span.ordered_s)}</td><td>{_clock(span.serving_s)}</td><td>{_clock(span.ended_s)}</td></tr>"
        for span in data.spans
    )
    head = (
        "<tr><th>deployment</th><th>layout</th><th>state</th><th>ordered</th><th>traffic from</th><th>ended</th></tr>"
    )
    table = f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"
    return section("served", "What served", f'<div class="scroll">{table}</div>')


def _facts(data: Timeline) -> str:
    return section("facts", "Facts", pairs(data.facts)) if data.facts else ""


def _clock(at_s: float | None) -> str:
    return NOTHING if at_s is None else f"{datetime.fromtimestamp(at_s, UTC):%H:%M:%S}"
