"""The report page: says what the study knows, escapes what it is told, draws, and fetches nothing."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.report import charts, layout_charts
from deploy.report import html_tables as tables
from deploy.report.study_data import Fate, ReportData, ShownLayout, ShownMetric, ShownSpread, Stage
from deploy.report.study_page import render_report
from tests import tools
from tests.report_sample import TPOT, TTFT, sample

VOID = {"meta", "br", "wbr", "link", "img", "hr", "input"}


class Outline(HTMLParser):
    """Text of the page outside scripts, its anchors, and the tags left open at its end."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.targets += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data


def embedded(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    assert found
    figures: dict[str, Any] = json.loads(found[1])
    return figures


def without_library(page: str) -> str:
    return re.sub(r"<script>/\*\*.*?</script>", "", page, count=1, flags=re.DOTALL)


def test_the_page_is_well_formed_and_says_what_the_study_knows() -> None:
    data = sample()
    outline = Outline(render_report(data))
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    text = " ".join(outline.text.split())
    for words in (data.headline, *data.why, "588 ms", "SLO: at most 900 ms", "heads not divisible by tp: 8"):
        assert words in text
    for row in data.layouts:
        assert row.layout in text
        assert row.reason is None or row.reason in text
    for file in data.files:
        assert file.name in text
    assert "Simulated" not in text
    assert "Simulated" in Outline(render_report(sample(simulated=True))).text


def test_the_page_fetches_nothing_and_is_small_enough_to_send() -> None:
    page = render_report(sample())
    assert all(target.startswith("#") for target in Outline(page).targets)
    assert "default-src 'none'" in page
    assert "://" not in without_library(page)
    assert len(page.encode()) < 5_500_000


def test_every_chart_has_its_figure_and_every_figure_its_place() -> None:
    page = render_report(sample())
    places = re.findall(r'data-figure="([^"]+)"', page)
    assert sorted(places) == sorted(embedded(page))
    assert set(places) == {"funnel", "timeline", "load-ttft-p95", "load-tpot-p95", "error-ttft-p95", "error-tpot-p95",
        "front", "spread-ttft-p95", "spread-tpot-p95",
    }  # fmt: skip


@pytest.mark.slow
def test_plotly_knows_every_property_that_the_charts_use() -> None:
    graph_objects = pytest.importorskip("plotly.graph_objects")
    for name, figure in embedded(render_report(sample())).items():
        text = re.sub(r'"\$[a-z]+\d?"', '"#000000"', json.dumps(figure))
        assert graph_objects.Figure(json.loads(text)).data, name


def test_latency_is_shown_for_each_measured_layout_with_the_target() -> None:
    figure = charts.latency_against_load(sample(), TTFT)
    assert figure is not None
    *lines, target = figure["data"]
    assert [line["y"] for line in lines] == [[271, 355, 588], [335, 690, 2901], [366, 402, 524], [305, 1290]]
    assert target["y"] == [900.0, 900.0]
    assert len({(line["line"]["color"], line["line"]["dash"]) for line in lines}) == len(lines)


def test_a_step_without_a_figure_is_left_out_and_not_drawn_as_zero() -> None:
    figure = charts.latency_against_load(sample(), TPOT)
    assert figure is not None
    stopped = figure["data"][3]
    assert (stopped["x"], stopped["y"]) == ([0.5], [28.4])


def test_predictions_lie_beside_their_measurements() -> None:
    figure = charts.predicted_against_measured(sample(), TTFT)
    assert figure is not None
    diagonal, *points = figure["data"]
    assert diagonal["x"] == diagonal["y"]
    assert [(point["x"][0], point["y"][0]) for point in points] == [(500, 588), (590, 2901), (680, 524), (770, 1290)]


def test_the_front_joins_the_layouts_that_no_other_beats_on_both() -> None:
    figure = layout_charts.front(sample())
    assert figure is not None
    line, *points = figure["data"]
    assert list(zip(line["x"], line["y"], strict=True)) == [(1, 0.99), (2, 1.98)]
    assert [point["name"] for point in points] == ["tp=2,pp=1,dp=1 (winner)", "tp=1,pp=1,dp=2", "tp=1,pp=1,dp=1"]
    assert points[0]["error_y"]["array"] == [pytest.approx(0.05)]
    assert points[0]["error_x"]["visible"] is False


def test_the_spread_over_runs_is_drawn_around_their_mean() -> None:
    figure = layout_charts.spread(sample(), TTFT)
    assert figure is not None
    points, target = figure["data"]
    assert points["x"] == [588, 524, 690, 1290]
    assert (points["error_x"]["array"][0], points["error_x"]["arrayminus"][0]) == (17, 17)
    assert target["x"] == [900.0] * 4
    certain = tuple(replace(row, slo_ms={"ttft-p95": ShownSpread(5, 5, 5)}) for row in sample().standings)
    assert layout_charts.spread(replace(sample(), standings=certain), TTFT) is None


def test_what_was_spent_is_beside_its_limit() -> None:
    text = " ".join(Outline(render_report(sample())).text.split())
    assert "minutes5.8872% 72%" in text
    assert "GPU-hours0.2––" in text
    assert "99.0 % (95.1 %)" in text
    assert "588 (571 to 605)" in text


def test_a_trial_is_split_where_its_engine_was_ready() -> None:
    figure = charts.timeline(sample())
    assert figure is not None
    spans = {trace["name"]: trace for trace in figure["data"]}
    assert spans["waiting for the engine"]["x"] == [31.0, 36.0, 41.0, 46.0]
    assert spans["measuring"]["base"][0] == 31.0
    assert (spans["failed"]["base"], spans["failed"]["x"]) == ([280.0], [64.0])


def test_a_study_without_winner_or_trials_still_has_a_page() -> None:
    data = ReportData(
        study="none",
        model="m",
        headline="No layout meets the SLO",
        why=("Every layout was dropped.",),
        metrics=(ShownMetric("ttft", 99, 1.0),),
        request=(),
        funnel=(Stage("in the space", 1), Stage("legal", 0, (("too large", 1),))),
        layouts=(ShownLayout("tp=1,pp=1,dp=1", 1, Fate.DROPPED, "140 GB needed, 80 GB there"),),
    )
    page = render_report(data)
    assert Outline(page).open == []
    assert list(embedded(page)) == ["funnel"]
    assert "140 GB needed, 80 GB there" in page


@pytest.mark.slow
@settings(max_examples=25)
@given(st.text(max_size=40))
def test_no_text_from_outside_becomes_markup(text: str) -> None:
    hostile = f"<script>alert(1)</script></style>\"'{text}"
    rows = tuple(replace(row, reason=hostile) for row in sample().layouts)
    data = replace(sample(), study=hostile, model=hostile, headline=hostile, why=(hostile,), layouts=rows)
    data = replace(data, request=((hostile, hostile),), funnel=(Stage(hostile, 3, ((hostile, 1),)),))
    page = without_library(render_report(data))
    assert "<script>alert" not in page
    assert Outline(page).open == []
    assert page.count("</style>") == 1


@pytest.mark.parametrize(
    ("value", "written"), [(None, "–"), (0.0, "0 ms"), (0.1234, "0.123 ms"), (38.44, "38.4 ms"), (2901.4, "2,901 ms")]
)
def test_figures_have_three_digits_and_absence_is_a_dash(value: float | None, written: str) -> None:
    assert tables.figure(value, "ms") == written


def test_absent_shares_counts_and_verdicts_are_dashes() -> None:
    assert (tables.share(None), tables.count(None), tables.yes_no(None)) == ("–", "–", "–")
    assert (tables.share(0.0), tables.count(0), tables.yes_no(False)) == ("0.0 %", "0", "✗ no")


@pytest.mark.tools
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_draws_every_chart_without_complaint(scheme: str, tmp_path: Path) -> None:
    browser = tools.chromium()
    if browser is None:
        pytest.skip("no Chromium on PATH")
    page = tmp_path / "report.html"
    page.write_text(render_report(sample()), encoding="utf-8")
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
    # Blink numbers its schemes: 0 is dark, 1 is light.
    colours = f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"
    words = [str(browser), "--headless", "--no-sandbox", "--disable-gpu", *quiet, colours, "--virtual-time-budget=8000"]
    words += [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--dump-dom", page.as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    dom = done.stdout
    for name in embedded(page.read_text(encoding="utf-8")):
        place = dom.index(f'data-figure="{name}"')
        assert "main-svg" in dom[place : place + 4000], name
    assert dom.count('class="trace scatter') == (4 + 1) * 2 + (4 + 1) + (3 + 1) + (3 + 1) + (1 + 1) * 2
    surface = "23, 27, 33" if scheme == "dark" else "255, 255, 255"
    assert f"background: rgb({surface})" in dom
