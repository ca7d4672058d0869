"""One figure over time: the SLO's attainment, the requests with those that were lost, and the layouts, with what
happened as numbered lines through all three."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from deploy.report.charts import DASHES, SERIES, SYMBOLS, Figure, base_layout, plain, wrapped
from deploy.report.timeline import SeenPoint, ServedSpan, Timeline

_ROWS = {"layouts": (0.0, 0.24), "requests": (0.33, 0.58), "attainment": (0.67, 1.0)}
_BAR = 0.62
_LEAST = 10.0  # requests of one point of an attainment
_NEAR = 0.035  # share of the whole time within which marks share a line


def timeline_figure(data: Timeline) -> Figure | None:
    """None where nothing was seen."""
    if not data.points and not data.spans:
        return None
    traces = [*_attainment(data), *_requests(data), *_layouts(data)]
    layout = base_layout("minutes since the beginning", "within target, %", log_y=False)
    layout["height"] = 640 + 26 * len(data.spans)
    axis = {key: value for key, value in layout["yaxis"].items() if key not in ("title", "rangemode")}
    names = [_name(span) for span in data.spans]
    layout["xaxis"] |= {"anchor": "y3", "range": [0, max(0.1, _minutes(data, data.end_s))]}
    layout["yaxis"] |= {"domain": list(_ROWS["attainment"]), "range": [-3, 103]}
    layout["yaxis2"] = {
        **axis,
        "domain": list(_ROWS["requests"]),
        "title": {"text": "requests/s"},
        "rangemode": "tozero",
    }
    layout["yaxis3"] = {**axis, "type": "category", "domain": list(_ROWS["layouts"]), "showgrid": False}
    layout["yaxis3"] |= {"categoryorder": "array", "categoryarray": names, "autorange": "reversed"}
    layout["barmode"] = "stack"
    layout["shapes"], layout["annotations"] = _marks(data)
    return {"data": traces, "layout": layout}


def _minutes(data: Timeline, at_s: float) -> float:
    return (at_s - data.begin_s) / 60


def _by_time(data: Timeline) -> list[tuple[float, list[SeenPoint]]]:
    """Points of all deployments that were seen at one moment, the oldest first."""
    found: dict[float, list[SeenPoint]] = defaultdict(list)
    for point in data.points:
        found[point.at_s].append(point)
    return sorted(found.items())


def _attainment(data: Timeline) -> list[Figure]:
    """By target, over all that serves together, in steps of at least ``_LEAST`` requests; a gap where none ended."""
    traces = []
    for index, target in enumerate(sorted({key for point in data.points for key in point.shares})):
        x: list[float] = []
        y: list[Any] = []
        ended, met = 0.0, 0.0
        for at_s, points in _by_time(data):
            weights = [(p.arrived or 0.0, p.shares[target]) for p in points if target in p.shares and p.arrived]
            ended, met = ended + sum(n for n, _ in weights), met + sum(n * share for n, share in weights)
            if ended >= _LEAST:
                x.append(_minutes(data, at_s))
                y.append(100 * met / ended)
                ended, met = 0.0, 0.0
        line = {"color": f"$series{index % SERIES}", "dash": DASHES[index % len(DASHES)], "width": 2.5}
        marker = {"symbol": SYMBOLS[index % len(SYMBOLS)], "size": 6}
        style = {"mode": "lines+markers", "line": line, "marker": marker}
        traces.append(_scatter(f"within {target}", x, y, "y", style))
    for share in sorted(set(data.required.values())):
        asked = {"mode": "lines", "line": {"color": "$target", "dash": "longdash", "width": 1.5}}
        ends = [0.0, _minutes(data, data.end_s)]
        traces.append(_scatter(f"asked: {100 * share:.4g} %", ends, [100 * share, 100 * share], "y", asked))
    return traces


def _requests(data: Timeline) -> list[Figure]:
    """Stacked bars by deployment, and those that were lost, in another colour and pattern."""
    traces = []
    for index, span in enumerate(data.spans):
        points = [p for p in data.points if p.deployment == span.name and p.arrived is not None]
        well = [((p.arrived or 0.0) - (p.failed or 0.0)) / p.seconds for p in points]
        traces.append(_bars(f"answered by {span.name}", data, points, well, f"$series{index % SERIES}", ""))
    lost = [p for p in data.points if p.failed]
    traces.append(_bars("lost", data, lost, [(p.failed or 0.0) / p.seconds for p in lost], "$bad", "x"))
    return traces


def _bars(name: str, data: Timeline, points: list[SeenPoint], y: list[float], colour: str, shape: str) -> Figure:
    return {
        "type": "bar",
        "name": plain(name),
        "yaxis": "y2",
        "x": [_minutes(data, p.at_s - p.seconds / 2) for p in points],
        "width": [p.seconds / 60 for p in points],
        "y": y,
        "marker": {"color": colour, "line": {"width": 0}, "pattern": {"shape": shape}},
        "hovertemplate": f"{plain(name)}<br>%{{y:.3~g}} requests/s<extra></extra>",
    }


def _layouts(data: Timeline) -> list[Figure]:
    """A bar for each deployment: while it comes up, and while it serves."""
    traces = []
    for what, colour, shape in (("comes up", "$muted", "/"), ("has traffic", "$series2", "")):
        x, base, names, hover = [], [], [], []
        for span in data.spans:
            begin, end = _part(span, what, data.end_s)
            if begin is not None and end > begin:
                base.append(_minutes(data, begin))
                x.append((end - begin) / 60)
                names.append(_name(span))
                hover.append(f"{span.name}: {plain(span.layout)} ({what}; {span.state})")
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": what,
                "yaxis": "y3",
                "x": x,
                "base": base,
                "y": names,
                "width": _BAR,
                "text": hover,
                "textposition": "none",
                "hovertemplate": "%{text}<extra></extra>",
                "marker": {"color": colour, "pattern": {"shape": shape}},
            }
        )
    return traces


def _part(span: ServedSpan, what: str, end_s: float) -> tuple[float | None, float]:
    over = end_s if span.ended_s is None else span.ended_s
    if what == "comes up":
        return span.ordered_s, over if span.serving_s is None else span.serving_s
    return span.serving_s, over


def _name(span: ServedSpan) -> str:
    return f"{span.name}<br>{wrapped(_short(span.layout))}"


def _short(layout: str) -> str:
    """The degrees of parallelism alone."""
    return ",".join(part for part in layout.split(",") if part.split("=")[0] in ("tp", "pp", "dp"))


def _marks(data: Timeline) -> tuple[list[Any], list[Any]]:
    """A line for what happened; of several at nearly one time one, with the numbers of the first and the last."""
    shapes, notes = [], []
    near = (data.end_s - data.begin_s) / 60 * _NEAR
    groups: list[list[int]] = []
    for number, mark in enumerate(data.marks):
        close = groups and _minutes(data, mark.at_s) - _minutes(data, data.marks[groups[-1][0]].at_s) < near
        if close:
            groups[-1].append(number)
        else:
            groups.append([number])
    for group in groups:
        at = _minutes(data, data.marks[group[0]].at_s)
        where = {"xref": "x", "yref": "paper", "x0": at, "x1": at, "y0": 0, "y1": 1}
        shapes.append({"type": "line", "line": {"color": "$accent", "width": 1, "dash": "dot"}, **where})
        text = str(group[0] + 1) if len(group) == 1 else f"{group[0] + 1}–{group[-1] + 1}"
        told = "<br>".join(plain(data.marks[number].text) for number in group[:6])
        note = {"xref": "x", "yref": "paper", "x": at, "y": 1.0, "yanchor": "bottom", "showarrow": False}
        notes.append(note | {"text": text, "hovertext": told, "font": {"color": "$accent", "size": 11}})
    return shapes, notes


def _scatter(name: str, x: list[float], y: list[Any], axis: str, style: Figure) -> Figure:
    hover = f"{plain(name)}<br>%{{y:.3~g}} %<extra></extra>"
    return {"type": "scatter", "name": plain(name), "x": x, "y": y, "yaxis": axis, "hovertemplate": hover, **style}
