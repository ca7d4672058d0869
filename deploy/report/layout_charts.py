"""Charts of where the measured layouts stand: the Pareto front of two objectives, and the spread over runs."""

from __future__ import annotations

from deploy.report.charts import DASHES, SERIES, SYMBOLS, Figure, base_layout, plain, with_legend, wrapped
from deploy.report.study_data import ReportData, ShownMetric, ShownSpread


def front(data: ReportData) -> Figure | None:
    """A point per layout that meets the SLO, on the axes of the objectives, and the line of those that no other beats
    on both; bars show the spread over repeated runs."""
    rows = [(place, row) for place, row in enumerate(data.standings) if row.meets_slo and None not in row.at]
    if data.axes is None or not rows:
        return None
    traces = [_front_line(data)] if sum(row.on_front for _, row in rows) > 1 else []
    for place, row in rows:
        name = wrapped(row.layout) + (" (winner)" if place == 0 else "")
        x, y = (spread for spread in row.at if spread is not None)
        hover = f"{plain(row.layout)}<br>{data.axes[0]}: %{{x:.4~g}}<br>{data.axes[1]}: %{{y:.4~g}}<extra></extra>"
        size = 13 if row.on_front else 9
        marker = {"color": f"$series{place % SERIES}", "symbol": SYMBOLS[place % len(SYMBOLS)], "size": size}
        traces.append(
            {"type": "scatter", "mode": "markers", "name": name, "x": [x.mean], "y": [y.mean], "marker": marker}
            | {"error_x": _bar(x), "error_y": _bar(y), "hovertemplate": hover}
        )  # fmt: skip
    layout = base_layout(data.axes[0], data.axes[1], log_y=False)
    layout["xaxis"]["rangemode"] = "tozero"
    return with_legend({"data": traces, "layout": layout})


def _front_line(data: ReportData) -> Figure:
    points = sorted((x.mean, y.mean) for row in data.standings if row.on_front for x, y in [row.at] if x and y)
    line = {"color": "$muted", "dash": DASHES[2], "width": 1.5, "shape": "hv"}
    return {
        "type": "scatter", "mode": "lines", "name": "Pareto front", "x": [x for x, _ in points],
        "y": [y for _, y in points], "line": line, "hoverinfo": "skip",
    }  # fmt: skip


def _bar(spread: ShownSpread) -> Figure:
    return {
        "type": "data", "symmetric": False, "array": [spread.high - spread.mean],
        "arrayminus": [spread.mean - spread.low], "visible": spread.high > spread.low,
    }  # fmt: skip


def spread(data: ReportData, metric: ShownMetric) -> Figure | None:
    """The metric at its target's percentile, a row per layout: the mean over its runs, from the lowest to the highest,
    or the 95 % interval of a single run; and the target."""
    rows = [(row, found) for row in data.standings if (found := row.slo_ms.get(metric.key)) is not None]
    if metric.slo_ms is None or not any(found.high > found.low for _, found in rows):
        return None
    names = [wrapped(row.layout) for row, _ in rows]
    points = {
        "x": [found.mean for _, found in rows],
        "y": names,
        "mode": "markers",
        "name": "mean, lowest to highest run",
        "marker": {"color": "$series0", "size": 10, "symbol": "circle"},
        "error_x": {
            "type": "data", "symmetric": False, "array": [found.high - found.mean for _, found in rows],
            "arrayminus": [found.mean - found.low for _, found in rows],
        },
        "hovertemplate": f"%{{y}}<br>{metric}: %{{x:.4~g}} ms<extra></extra>",
    }  # fmt: skip
    target = {
        "x": [metric.slo_ms] * len(names), "y": names, "mode": "lines",
        "name": f"SLO: at most {metric.slo_ms:g} ms", "line": {"color": "$target", "dash": "longdash", "width": 2},
    }  # fmt: skip
    layout = base_layout(f"{metric}, ms", "", log_y=False)
    layout["xaxis"]["range"] = [0, 1.08 * max(metric.slo_ms, *(found.high for _, found in rows))]
    layout["yaxis"] |= {"type": "category", "range": [len(names) - 0.5, -0.5], "showgrid": False}
    layout["height"] = 130 + sum(30 + 18 * name.count("<br>") for name in names)
    traces = [{"type": "scatter", **points}, {"type": "scatter", **target, "hoverinfo": "skip"}]
    return with_legend({"data": traces, "layout": layout})
