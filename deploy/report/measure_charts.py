"""Charts of measured windows: latency against rate, distributions, and what happened when.

In plain dictionaries of plotly.js, with the colours of ``deploy.report.charts``. Invalid windows have hollow
markers and say so in their name.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deploy.report.charts import DASHES, SERIES, SYMBOLS, Figure, base_layout, plain, wide, with_legend
from serve.measure.engine_metrics import Scrape
from serve.measure.summary import latency_s
from serve.measure.window import Window
from tuner.ask.request import Metric, SloTarget

CDF_POINTS = 300
TIMELINE_BINS = 150
Floats = NDArray[np.float64]


def latency_against_rate(windows: Sequence[Window], metric: Metric) -> Figure | None:
    """p50 and p99 of a metric over the answered rate with their 95 % intervals, and the targets."""
    rows = [w for w in windows if metric in w.figures.latency and w.figures.achieved_req_per_s is not None]
    if not rows:
        return None
    rows.sort(key=lambda window: window.figures.achieved_req_per_s or 0.0)
    traces = [_level(rows, metric, level, index) for index, level in enumerate((50.0, 99.0))]
    ordinates = [value for trace in traces for value in trace["y"]]
    targets = _targets(windows, metric)
    logarithmic = wide([*ordinates, *(target.ms for target in targets)], None)
    layout = base_layout("answered, requests/s", f"{metric.value.upper()}, ms", log_y=logarithmic)
    layout["xaxis"]["rangemode"] = "tozero"
    last = 1.05 * (rows[-1].figures.achieved_req_per_s or 0.0)
    traces += [_line(f"SLO: {target}", [0.0, last], [target.ms] * 2, "$target", "longdash") for target in targets]
    return with_legend({"data": traces, "layout": layout})


def _level(rows: Sequence[Window], metric: Metric, level: float, index: int) -> Figure:
    """One percentile over the answered rate, with its intervals; ``index`` gives its colour, dashes and symbol."""
    found = [window.figures.latency[metric] for window in rows]
    values = [one.at_ms[level] for one in found]
    spreads = [one.interval_ms[level] or (value, value) for one, value in zip(found, values, strict=True)]
    colour = f"$series{index}"
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": f"p{level:g}",
        "x": [window.figures.achieved_req_per_s for window in rows],
        "y": values,
        "text": [_hover(w, f"{metric.value.upper()} p{level:g}", v) for w, v in zip(rows, values, strict=True)],
        "hovertemplate": "%{text}<extra></extra>",
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [high - value for (_, high), value in zip(spreads, values, strict=True)],
            "arrayminus": [value - low for (low, _), value in zip(spreads, values, strict=True)],
            "color": colour,
            "thickness": 1.5,
            "width": 5,
        },
        "line": {"color": colour, "dash": DASHES[index], "width": 2},
        "marker": {
            "color": [colour if w.invalid is None else "$surface" for w in rows],
            "line": {"color": colour, "width": 2},
            "symbol": SYMBOLS[index],
            "size": 9,
        },
    }


def distribution(windows: Sequence[Window], metric: Metric) -> Figure | None:
    """The share of requests (ITL: of gaps) up to each value, a line per window, and the targets."""
    traces = []
    for index, window in enumerate(windows):
        values = np.sort(np.asarray(latency_s(window.counted).get(metric, ()))) * 1e3
        if not values.size:
            continue
        shares = np.linspace(0, 1, min(values.size, CDF_POINTS) + 1)[1:]
        picked = values[np.ceil(shares * values.size - 1e-9).astype(int) - 1]
        name = _name(window)
        line = _line(name, picked.tolist(), shares.tolist(), f"$series{index % SERIES}", _dash(index))
        hover = f"{name}<br>%{{y:.1%}} within %{{x:.4~g}} ms<extra></extra>"
        traces.append(line | {"hovertemplate": hover, "hoverinfo": "all", "line": line["line"] | {"shape": "hv"}})
    if not traces:
        return None
    values_ms = [value for trace in traces for value in (trace["x"][0], trace["x"][-1])]
    layout = base_layout(f"{metric.value.upper()}, ms", "share", log_y=wide(values_ms, None))
    layout["xaxis"] |= {"type": layout["yaxis"]["type"], "dtick": layout["yaxis"].get("dtick")}
    layout["yaxis"] = layout["yaxis"] | {"type": "linear", "dtick": 0.25, "range": [0, 1.02], "tickformat": ".0%"}
    for target in _targets(windows, metric):
        place = target.percentile / 100
        mark = {"color": "$target", "symbol": "x", "size": 11}
        point = {"type": "scatter", "mode": "markers", "x": [target.ms], "y": [place], "marker": mark}
        traces.append(point | {"name": f"SLO: {target}", "hoverinfo": "name"})
    return with_legend({"data": traces, "layout": layout})


def requests_over_time(windows: Sequence[Window]) -> Figure | None:
    """Requests sent and answered per second and in flight, over the windows one after another."""
    traces: list[Figure] = []
    names = (("sent per second", "solid"), ("answered per second", "dash"), ("in flight", "dot"))
    series: list[tuple[list[float], list[float | None]]] = [([], []) for _ in names]
    for window in windows:
        shift_s = window.start_s - windows[0].start_s
        for (x, y), (at_s, values) in zip(series, _counts(window), strict=True):
            x += [*(at_s + shift_s).tolist(), float(at_s[-1] + shift_s) if at_s.size else shift_s]
            y += [*values.tolist(), None]  # a gap: windows do not follow from one another
    for index, ((name, dash), (x, y)) in enumerate(zip(names, series, strict=True)):
        traces.append(_line(name, x, y, f"$series{index}", dash))
    if not any(x for x, _ in series):
        return None
    layout = base_layout("time since the first window, s", "requests, or requests/s", log_y=False)
    return with_legend({"data": traces, "layout": layout | _bands(windows)})


def engine_over_time(windows: Sequence[Window], figure: str) -> Figure | None:
    """What the engines said of themselves: ``requests`` (running and waiting) or ``kv`` (share of the KV cache)."""
    names = {"requests": ("running", "waiting"), "kv": ("kv_cache_share",)}[figure]
    shown = {"running": "running", "waiting": "waiting in the queue", "kv_cache_share": "KV cache in use"}
    traces = []
    for index, name in enumerate(names):
        x: list[float] = []
        y: list[float | None] = []
        for window in windows:
            at_s, values = _scraped(window.engine.scrapes, name)
            x += [*(one - windows[0].start_s for one in at_s), *([at_s[-1] - windows[0].start_s] if at_s else [])]
            y += [*values, *([None] if at_s else [])]
        if x:
            traces.append(_line(shown[name], x, y, f"$series{index}", DASHES[index]))
    if not traces:
        return None
    layout = base_layout("time since the first window, s", "share" if figure == "kv" else "requests", log_y=False)
    if figure == "kv":
        layout["yaxis"] |= {"tickformat": "~%"}
    return with_legend({"data": traces, "layout": layout | _bands(windows)})


def _counts(window: Window) -> list[tuple[Floats, Floats]]:
    sent_s = np.asarray([sample.sent_s for sample in window.samples])
    end_s = np.asarray([sample.end_s for sample in window.samples])
    whole_s = np.asarray([sample.end_s for sample in window.samples if sample.ok])
    if not sent_s.size:
        return [(np.empty(0), np.empty(0))] * 3
    last_s = float(end_s.max())
    width_s = max(1.0, last_s / TIMELINE_BINS)
    edges_s = np.arange(0.0, last_s + width_s, width_s)
    middles_s = (edges_s[:-1] + edges_s[1:]) / 2
    per_second = [np.histogram(values, edges_s)[0] / width_s for values in (sent_s, whole_s)]
    moments_s = np.linspace(0.0, last_s, TIMELINE_BINS)
    in_flight = np.searchsorted(np.sort(sent_s), moments_s, "right") - np.searchsorted(
        np.sort(end_s), moments_s, "right"
    )
    return [(middles_s, per_second[0]), (middles_s, per_second[1]), (moments_s, in_flight.astype(np.float64))]


def _scraped(scrapes: Sequence[Scrape], figure: str) -> tuple[list[float], list[float]]:
    found = [(scrape.at_s, value) for scrape in scrapes if (value := scrape.total(figure)) is not None]
    return [at_s for at_s, _ in found], [value for _, value in found]


def _bands(windows: Sequence[Window]) -> Figure:
    """The windows' names along the top, and a shade behind those that are invalid."""
    shapes, notes = [], []
    for window in windows:
        start_s = window.start_s - windows[0].start_s
        end_s = start_s + window.figures.wall_s
        if window.invalid is not None:
            band = {"type": "rect", "xref": "x", "yref": "paper", "x0": start_s, "x1": end_s, "y0": 0, "y1": 1}
            shapes.append(band | {"fillcolor": "$target", "opacity": 0.14, "line": {"width": 0}, "layer": "below"})
        if len(windows) > 1:
            note = {"x": start_s, "y": 1.0, "xref": "x", "yref": "paper", "xanchor": "left", "yanchor": "bottom"}
            notes.append(
                note | {"text": plain(window.order.name), "showarrow": False, "font": {"size": 11, "color": "$muted"}}
            )
    return {"shapes": shapes, "annotations": notes}


def _line(name: str, x: Sequence[float], y: Sequence[float | None], color: str, dash: str) -> Figure:
    line = {"color": color, "dash": dash, "width": 2}
    return {"type": "scatter", "mode": "lines", "name": plain(name), "x": list(x), "y": list(y), "line": line}


def _targets(windows: Sequence[Window], metric: Metric) -> list[SloTarget]:
    return [target for target in windows[0].order.slo if target.metric is metric] if windows else []


def _name(window: Window) -> str:
    return plain(window.order.name) + (" (invalid)" if window.invalid is not None else "")


def _hover(window: Window, what: str, value_ms: float) -> str:
    rate = window.figures.achieved_req_per_s or 0.0
    return f"{_name(window)}<br>{rate:.4g} requests/s answered<br>{what}: {value_ms:.4g} ms"


def _dash(index: int) -> str:
    return DASHES[index % len(DASHES)]
