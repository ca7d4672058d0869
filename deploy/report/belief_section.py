"""What the search believes, as a part of the page: which layouts may still win, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from deploy.report.belief_data import ShownBelief, ShownBeliefs, ShownRange
from deploy.report.charts import Figure, base_layout, plain, wide, with_legend, wrapped
from deploy.report.html_tables import NOTHING, Column, code, figure, share, table
from deploy.report.page import chart, folded, section

_LIKELY = 0.01  # from this probability on a candidate could still win
_BEYOND = 1.25  # × the largest figure: where a range is drawn to that has no upper end

Pick = Callable[[ShownBelief], ShownRange | None]


def beliefs_section(shown: ShownBeliefs | None, ended: bool) -> str:
    """The charts and their figures; nothing where nothing is known of a belief."""
    if shown is None:
        return ""
    figures = chart("belief", "Latency as a share of its target at the asked rate, 5 to 95 % of what is believed")
    if shown.axis and objective_belief(shown):
        figures += chart("belief-objective", f"{shown.axis}, 5 to 95 % of what is believed")
    columns = [Column("Layout"), Column("Devices", number=True), Column("Wins", number=True)]
    columns += [Column("Meets the SLO", number=True), Column("Latency ÷ target", number=True)]
    columns += [Column(shown.axis, number=True)] if shown.axis else []
    rows = [_row(row, bool(shown.axis)) for row in shown.rows]
    told = table("beliefs", "What may still be launched, the likeliest winners first", columns, rows) if rows else ""
    body = f'<p>{_words(shown, ended)}</p><div class="grid">{figures}</div>'
    return section("belief-title", "What could still win", body + (folded("As a table", told) if told else ""))


def _words(shown: ShownBeliefs, ended: bool) -> str:
    when = "at the end" if ended else "now"
    left = f"{shown.left:,} layout{'s were' if ended else 's are'} left {when} that may be launched"
    if shown.left == 1:
        left = f"One layout {'was' if ended else 'is'} left {when} that may be launched"
    if not shown.left:
        return f"Nothing {'was' if ended else 'is'} left {when} that may be launched."
    chance = share(shown.anything)
    against = "beats the best measured one" if shown.best else "wins"
    could = f"{shown.could_win:,}" if shown.could_win else "none"
    return f"{left}; {could} of them could win. The probability that any of them {against}: {chance}."


def _row(row: ShownBelief, with_objective: bool) -> list[str]:
    cells = [code(row.layout), str(row.devices), share(row.wins), share(row.meets), _range(row.of_target)]
    return [*cells, _range(row.objective)] if with_objective else cells


def _range(shown: ShownRange | None) -> str:
    if shown is None or shown[1] is None:
        return NOTHING
    low, middle, high = shown
    return f"{figure(middle)} ({figure(low)} to {figure(high)})"


def latency_belief(shown: ShownBeliefs) -> Figure | None:
    """The latency of each candidate over its target; left of the line the SLO is met."""
    found = _ranges(shown, lambda row: row.of_target, "latency ÷ target")
    if found is not None:
        names = [row.layout for row in _listed(shown)]
        line = {"color": "$target", "dash": "longdash", "width": 2}
        target = {"x": [1, 1], "y": [-0.5, len(names) - 0.5], "mode": "lines", "name": "SLO", "line": line}
        found["data"].append({"type": "scatter", **target, "hoverinfo": "skip"})
        with_legend({"data": [target], "layout": found["layout"]})
    return found


def objective_belief(shown: ShownBeliefs) -> Figure | None:
    """The objective of each candidate, where that is no price."""
    return None if shown.axis is None else _ranges(shown, lambda row: row.objective, shown.axis)


def _listed(shown: ShownBeliefs) -> tuple[ShownBelief, ...]:
    return (*([shown.best] if shown.best else []), *shown.rows)


def _ranges(shown: ShownBeliefs, pick: Pick, title: str) -> Figure | None:
    """A row per candidate: the median with its range, and the probability of a win beside it."""
    rows = _listed(shown)
    ranges = [pick(row) for row in rows]
    known = [value for found in ranges if found for value in found if value is not None]
    if not known:
        return None
    names = [wrapped(row.layout) for row in rows]
    end = _BEYOND * max(known)
    kinds = (
        ("best measured", "$series2", "diamond", [bool(shown.best) and at == 0 for at in range(len(rows))]),
        ("could still win", "$series0", "circle", _of_rest(shown, rows, lambda wins: wins >= _LIKELY)),
        ("hardly", "$muted", "circle-open", _of_rest(shown, rows, lambda wins: wins < _LIKELY)),
    )
    traces = []
    for name, colour, symbol, chosen in kinds:
        points = [(at, f, rows[at].wins) for at, f in enumerate(ranges) if chosen[at] and f and f[1] is not None]
        if points:
            traces.append(_points(name, colour, symbol, points, rows, end))
    layout = base_layout(title, "", log_y=False)
    if min(known) > 0 and wide(known, None):
        layout["xaxis"] |= {"type": "log", "dtick": "D2"}
    else:
        layout["xaxis"]["rangemode"] = "tozero"
    layout["yaxis"] |= {"range": [len(rows) - 0.5, -0.5], "showgrid": False, "type": "linear"}
    layout["yaxis"] |= {"tickvals": list(range(len(rows))), "ticktext": names}
    layout["yaxis"].pop("rangemode", None)
    layout["height"] = 110 + sum(30 + 16 * name.count("<br>") for name in names)
    return with_legend({"data": traces, "layout": layout}) if traces else None


def _of_rest(shown: ShownBeliefs, rows: Sequence[ShownBelief], chosen: Callable[[float], bool]) -> list[bool]:
    first = 1 if shown.best else 0
    return [at >= first and chosen(row.wins) for at, row in enumerate(rows)]


def _points(
    name: str,
    colour: str,
    symbol: str,
    points: Sequence[tuple[int, ShownRange, float]],
    rows: Sequence[ShownBelief],
    end: float,
) -> Figure:
    middle = [found[1] or 0.0 for _, found, _ in points]
    said = [f"{plain(rows[at].layout)}<br>wins with {wins:.0%}" for at, _, wins in points]
    return {
        "type": "scatter",
        "mode": "markers+text",
        "name": name,
        "x": middle,
        "y": [at for at, _, _ in points],
        "text": [f"{wins:.0%}" if name == "could still win" else "" for _, _, wins in points],
        "textposition": "top center",
        "textfont": {"size": 11},
        "cliponaxis": False,
        "customdata": said,
        "marker": {"color": colour, "symbol": symbol, "size": 11},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "color": colour,
            "array": [(end if f[2] is None else f[2]) - at for (_, f, _), at in zip(points, middle, strict=True)],
            "arrayminus": [at - (f[0] or 0.0) for (_, f, _), at in zip(points, middle, strict=True)],
        },
        "hovertemplate": "%{customdata}<br>%{x:.3~g}<extra></extra>",
    }
