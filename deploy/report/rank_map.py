"""The map of a layout: ranks on the devices of their nodes, and the links between them, coloured by what they carry."""

from __future__ import annotations

import math
from collections import defaultdict

from deploy.report.charts import Figure, base_layout, plain
from deploy.report.study_data import ShownLink, ShownRank, ShownRanks

_BANDS = (("$series2", "solid"), ("$series0", "solid"), ("$series1", "solid"))  # from little to much
_ROW = 46
_MOST_LINKS = 400  # more of them are a grey area


def rank_figure(shown: ShownRanks) -> Figure:
    """A row per node, a place per device; links curve away from the row, and fall into three bands of bytes."""
    nodes = 1 + max(rank.node for rank in shown.ranks)
    placed = {rank.name: rank for rank in shown.ranks}
    traces = [_band(placed, links, index) for index, links in enumerate(_banded(shown.links)) if links]
    traces.append(_ranks(shown.ranks))
    layout = base_layout("device of the node", "", log_y=False)
    layout["xaxis"] |= {"range": [-0.6, shown.gpus_per_node - 0.4], "dtick": 1, "showgrid": False}
    labels = [f"node {number}" for number in range(nodes)]
    layout["yaxis"] |= {"range": [nodes - 0.4, -0.6], "tickvals": list(range(nodes)), "ticktext": labels}
    layout["yaxis"].pop("rangemode", None)
    layout["height"] = 150 + _ROW * 2 * nodes
    return {"data": traces, "layout": layout}


def _banded(links: tuple[ShownLink, ...]) -> list[list[ShownLink]]:
    """Links in thirds of the range of their logarithms."""
    bands: list[list[ShownLink]] = [[] for _ in _BANDS]
    sizes = [math.log10(link.mb) for link in links if link.mb > 0]
    low, high = min(sizes, default=0.0), max(sizes, default=0.0)
    for link in links[:_MOST_LINKS]:
        share = (math.log10(link.mb) - low) / (high - low) if link.mb > 0 and high > low else 1.0
        bands[min(int(share * len(_BANDS)), len(_BANDS) - 1)].append(link)
    return bands


def _band(placed: dict[str, ShownRank], links: list[ShownLink], index: int) -> Figure:
    """One trace for all links of a band: a curve each, with a gap between them."""
    colour, dash = _BANDS[index]
    path: dict[str, list[float | str | None]] = defaultdict(list)
    for link in links:
        first, second = placed[link.first], placed[link.second]
        bend = 0.32 if first.node == second.node else 0.0
        told = plain(f"{link.first} → {link.second}, {link.kind}: {_mb(link.mb)} per request")
        for step in range(11):
            share = step / 10
            arch = 4 * share * (1 - share) * bend * math.copysign(1, second.device - first.device)
            path["x"].append(first.device + share * (second.device - first.device))
            path["y"].append(first.node + share * (second.node - first.node) - arch)
            path["text"].append(told)
        for axis in ("x", "y", "text"):
            path[axis].append(None)
    sizes = [link.mb for link in links]
    least, most = _mb(min(sizes)), _mb(max(sizes))
    name = least if least == most else f"{least} to {most}"
    line = {"color": colour, "dash": dash, "width": 1.5 + 1.5 * index}
    return {"type": "scatter", "mode": "lines", "name": name, "hoverinfo": "text", "line": line, **path}


def _mb(size: float) -> str:
    return f"{size:,.0f} MB" if size >= 100 else f"{size:.3g} MB"


def _ranks(ranks: tuple[ShownRank, ...]) -> Figure:
    return {
        "type": "scatter",
        "mode": "markers+text",
        "name": "rank",
        "showlegend": False,
        "x": [rank.device for rank in ranks],
        "y": [rank.node for rank in ranks],
        "text": [plain(rank.name) for rank in ranks],
        "textposition": "bottom center",
        "hoverinfo": "text",
        "marker": {"size": 20, "color": "$surface", "symbol": "square", "line": {"color": "$text", "width": 2}},
    }
