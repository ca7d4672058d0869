"""The report's charts as plotly figures, in plain dictionaries (``data`` and ``layout`` of plotly.js).

Colours are names (``$series0``, ``$grid``, …) that the page replaces by those of its theme, light or dark. No chart
says anything by colour alone: series differ in marker and dash too, outcomes in pattern.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

from deploy.report.study_data import Fate, ReportData, ShownLayout, ShownMetric, ShownTrial

Figure = dict[str, Any]

SERIES = 6
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon")
DASHES = ("solid", "dash", "dot", "dashdot")
_LINE_CHARACTERS = 26
_LOG_BEYOND_RATIO = 12.0
_OUTCOMES = {
    "ready": ("waiting for the engine", "$muted", "/"),
    "measured": ("measuring", "$series0", ""),
    "failed": ("failed", "$series1", "x"),
}


def latency_against_load(data: ReportData, metric: ShownMetric) -> Figure | None:
    """The metric at its percentile over the offered rate, a line per measured layout, and the target."""
    traces = []
    for index, row in enumerate(data.launched):
        steps = [(s.rate_req_per_s, s.latency_ms.get(metric.key)) for s in row.steps]
        points = [(rate, value) for rate, value in steps if value is not None]
        if points:
            traces.append(_line(row, index, points, metric))
    if not traces:
        return None
    values = [value for trace in traces for value in trace["y"]]
    rates = [rate for trace in traces for rate in trace["x"]]
    layout = base_layout("offered rate, requests/s", f"{metric}, ms", log_y=wide(values, metric.slo_ms))
    layout["xaxis"]["rangemode"] = "tozero"
    if metric.slo_ms is not None:
        traces.append(_target(metric, max(rates)))
    return with_legend({"data": traces, "layout": layout})


def predicted_against_measured(data: ReportData, metric: ShownMetric) -> Figure | None:
    """A point per measured layout; on the diagonal the model was right."""
    traces, seen = [], []
    for index, row in enumerate(data.launched):
        predicted, measured = row.predicted_ms.get(metric.key), row.measured_ms.get(metric.key)
        if predicted is None or measured is None:
            continue
        seen += [predicted, measured]
        hover = f"{plain(row.layout)}<br>predicted %{{x:.4~g}} ms<br>measured %{{y:.4~g}} ms<extra></extra>"
        point = {"x": [predicted], "y": [measured], "mode": "markers", "name": wrapped(row.layout)}
        traces.append({"type": "scatter", **point, "marker": _marker(index, 12), "hovertemplate": hover})
    if not seen:
        return None
    low, high = min(seen) / 1.3, max(seen) * 1.3
    diagonal = {"x": [low, high], "y": [low, high], "mode": "lines", "name": "predicted = measured"}
    line = {"color": "$muted", "dash": "dash", "width": 1.5}
    traces.insert(0, {"type": "scatter", **diagonal, "line": line, "hoverinfo": "skip"})
    logarithmic = wide(seen, None)
    layout = base_layout(f"predicted {metric}, ms", f"measured {metric}, ms", log_y=logarithmic)
    both = {"range": [math.log10(low), math.log10(high)] if logarithmic else [low, high]}
    layout["xaxis"] |= both | {"type": layout["yaxis"]["type"]}
    layout["yaxis"] |= both
    return with_legend({"data": traces, "layout": layout})


def funnel(data: ReportData) -> Figure | None:
    """How many layouts each stage kept. Bars are as long as log(1 + count): the first stage may hold a million."""
    if not data.funnel:
        return None
    names = [plain(stage.name) for stage in data.funnel]
    counts = [stage.kept for stage in data.funnel]
    bar = {
        "type": "bar",
        "orientation": "h",
        "y": names,
        "x": [math.log10(1 + count) for count in counts],
        "text": [f"{count:,}" for count in counts],
        "textposition": "outside",
        "cliponaxis": False,
        "marker": {"color": "$series0"},
        "hovertemplate": "%{y}: %{text} layouts<extra></extra>",
    }
    layout = base_layout("", "", log_y=False)
    layout["xaxis"] |= {"visible": False, "range": [0, 1.2 * math.log10(1 + max(counts)) + 0.01]}
    layout["yaxis"] |= {"type": "category", "autorange": "reversed", "showgrid": False}
    layout |= {"showlegend": False, "height": 60 + 42 * len(names)}
    return {"data": [bar], "layout": layout}


def timeline(data: ReportData) -> Figure | None:
    """When each trial waited for its engine and when it measured, in seconds from the study's start."""
    spans: dict[str, list[tuple[str, float, float]]] = {key: [] for key in _OUTCOMES}
    for row in data.launched:
        if row.trial is not None:
            for key, start, length in _spans(row, row.trial):
                spans[key].append((_trial_label(row.trial), start, length))
    used = {key: found for key, found in spans.items() if found}
    if not used:
        return None
    traces = [_span_trace(key, found) for key, found in used.items()]
    layout = base_layout("time since the start, s", "", log_y=False)
    names = [_trial_label(t) for row in data.launched if (t := row.trial) is not None and t.seconds is not None]
    layout["yaxis"] |= {"autorange": "reversed", "showgrid": False}
    layout["yaxis"] |= {"categoryorder": "array", "categoryarray": names, "type": "category"}
    layout |= {"barmode": "overlay", "height": 130 + 38 * len(names)}
    return {"data": traces, "layout": layout}


def _spans(row: ShownLayout, trial: ShownTrial) -> list[tuple[str, float, float]]:
    outcome = "failed" if row.fate is Fate.FAILED else "measured"
    if trial.seconds is None:
        return []  # it runs
    if trial.ready_after_s is None:
        return [(outcome, trial.started_s, trial.seconds)]
    ready = min(trial.ready_after_s, trial.seconds)
    return [("ready", trial.started_s, ready), (outcome, trial.started_s + ready, trial.seconds - ready)]


def _trial_label(trial: ShownTrial) -> str:
    return f"trial {trial.number}"


def _span_trace(key: str, spans: list[tuple[str, float, float]]) -> Figure:
    name, color, pattern = _OUTCOMES[key]
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "y": [label for label, _, _ in spans],
        "base": [start for _, start, _ in spans],
        "x": [length for _, _, length in spans],
        "marker": {
            "color": color,
            "pattern": {"shape": pattern, "fillmode": "overlay", "fgcolor": "$surface", "size": 7},
        },
        "hovertemplate": f"%{{y}}<br>{name}: %{{x:.3~g}} s<extra></extra>",
    }


def _line(row: ShownLayout, index: int, points: list[tuple[float, float]], metric: ShownMetric) -> Figure:
    name = plain(row.layout)
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": f"<b>{wrapped(row.layout)}</b> (winner)" if row.fate is Fate.WINNER else wrapped(row.layout),
        "x": [rate for rate, _ in points],
        "y": [value for _, value in points],
        "line": {"color": f"$series{index % SERIES}", "dash": DASHES[index // SERIES % len(DASHES)]}
        | {"width": 3.5 if row.fate is Fate.WINNER else 2},
        "marker": _marker(index, 9),
        "hovertemplate": f"{name}<br>%{{x:.4~g}} requests/s<br>{metric}: %{{y:.4~g}} ms<extra></extra>",
    }


def _target(metric: ShownMetric, up_to_rate: float) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"SLO: at most {metric.slo_ms:g} ms",
        "x": [0, up_to_rate * 1.05],
        "y": [metric.slo_ms, metric.slo_ms],
        "line": {"color": "$target", "dash": "longdash", "width": 2},
        "hoverinfo": "skip",
    }


def _marker(index: int, size: int) -> Figure:
    return {"color": f"$series{index % SERIES}", "symbol": SYMBOLS[index % len(SYMBOLS)], "size": size}


def wide(values: Sequence[float], slo_ms: float | None) -> bool:
    """True where the values (and the target) differ so much that only a logarithmic axis shows them all."""
    every = [*values, *([slo_ms] if slo_ms is not None else [])]
    return min(every) > 0 and max(every) / min(every) > _LOG_BEYOND_RATIO


def base_layout(x_title: str, y_title: str, *, log_y: bool) -> Figure:
    """Axes, colours and legend that all charts share."""
    axis = {"gridcolor": "$grid", "linecolor": "$muted", "zeroline": False, "automargin": True, "tickcolor": "$muted"}
    y_type = {"type": "log", "dtick": "D2"} if log_y else {"type": "linear", "rangemode": "tozero"}
    return {
        "xaxis": {**axis, "type": "linear", "title": {"text": x_title}},
        "yaxis": {**axis, **y_type, "title": {"text": y_title}},
        "paper_bgcolor": "$surface",
        "plot_bgcolor": "$surface",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "$text"},
        "hoverlabel": {"bgcolor": "$surface", "bordercolor": "$muted", "font": {"color": "$text"}},
        "margin": {"l": 16, "r": 24, "t": 36, "b": 16},
        "legend": {"orientation": "h", "yref": "container", "yanchor": "bottom", "y": 0, "x": 0},
        "height": 360,
        "showlegend": True,
    }


def with_legend(figure: Figure) -> Figure:
    """Room for a legend with a line per trace, as a narrow screen needs."""
    figure["layout"]["height"] += sum(22 + 18 * trace["name"].count("<br>") for trace in figure["data"])
    return figure


def wrapped(layout: str) -> str:
    """A layout over as many lines as a narrow screen needs."""
    lines = [""]
    for axis in layout.split(","):
        if lines[-1] and len(lines[-1]) + len(axis) > _LINE_CHARACTERS:
            lines.append("")
        lines[-1] += ("," if lines[-1] else "") + axis
    return ",<br>".join(map(plain, lines))


def plain(text: str) -> str:
    """Plotly reads a few HTML tags in its labels; names must not be read so."""
    return html.escape(text, quote=False)
