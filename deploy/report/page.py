"""The frame of every HTML page: one file, no network, legible in light and dark, on paper and on a phone.

plotly.js comes inlined from plotly's wheel; style and script from ``report.css`` and ``report.js`` beside this file.
A content security policy forbids the page to fetch anything. Bodies are HTML already; other texts are escaped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from html import escape
from importlib import resources

from deploy.report.charts import Figure
from deploy.report.html_tables import NOTHING


def page(title: str, about: str, body: str, figures: Mapping[str, Figure], skip: str = "") -> str:
    """A whole page of about 5 MB, nearly all of it plotly.js. ``about`` and ``skip`` (a link) are HTML."""
    from plotly.offline import get_plotlyjs

    drawn = json.dumps(figures, allow_nan=False).replace("<", "\\u003c")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; \
style-src 'unsafe-inline'; img-src data: blob:">
<title>{escape(title)} · Parlay</title>
<style>{_asset("report.css")}</style>
</head>
<body>
{skip}
<header><p class="brand">Parlay</p><p>{about}</p></header>
<main>
{body}
</main>
<script>{get_plotlyjs()}</script>
<script type="application/json" id="figures">{drawn}</script>
<script>{_asset("report.js")}</script>
</body>
</html>
"""


def section(anchor: str, title: str, body: str) -> str:
    """A titled part of the page."""
    return f'<section aria-labelledby="{anchor}"><h2 id="{anchor}">{escape(title)}</h2>{body}</section>'


def folded(title: str, body: str) -> str:
    """What only opens on request."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def chart(name: str, caption: str) -> str:
    """The place of a figure; its data are in a table on the same page."""
    label = escape(caption)
    return (
        f'<figure><figcaption>{label}</figcaption><div class="chart" data-figure="{name}" role="group" '
        f'aria-label="{label}; the figures are in a table on this page"></div></figure>'
    )


def card(label: str, value: str, note: str) -> str:
    """One large figure with its label and a note; ``value`` is HTML."""
    return f"<div><dt>{escape(label)}</dt><dd><b>{value}</b><small>{escape(note)}</small></dd></div>"


def pairs(rows: Iterable[tuple[str, str]]) -> str:
    """Labels and values as a list."""
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in rows)
    return f'<dl class="pairs">{cells}</dl>' if cells else f"<p>{NOTHING}</p>"


def _asset(name: str) -> str:
    return resources.files("deploy.report").joinpath(name).read_text(encoding="utf-8")
