"""The page of measured windows: says what was seen, marks what is invalid, draws, and fetches nothing."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.report import measure_charts as charts
from deploy.report.measure_page import render_measure_report
from serve.measure.engine_metrics import EngineWindow
from tests import tools
from tests.measure_sample import SLO, measured_run, measured_window
from tests.unit.test_study_page import Outline, embedded, without_library
from tuner.ask.request import Metric

METRICS = [metric.value for metric in Metric]


@pytest.mark.slow
def test_the_page_is_well_formed_and_says_what_was_seen() -> None:
    run = measured_run()
    page = render_measure_report(run)
    outline = Outline(page)
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    text = " ".join(outline.text.split())
    for words in (run.headline, "tiny", "16 req/s", "Attainment", "Schedule lag p99"):
        assert words in text
    assert "Invalid: 1 of 3 windows." in text
    assert "64 req/s: the client was the bottleneck: the client used 99% of a core; add workers" in text
    assert all(target.startswith("#") for target in outline.targets)
    assert "://" not in without_library(page).replace("http://127.0.0.1:8000", "")


@pytest.mark.slow
def test_every_chart_has_its_figure_and_every_figure_its_place() -> None:
    page = render_measure_report(measured_run())
    places = re.findall(r'data-figure="([^"]+)"', page)
    assert sorted(places) == sorted(embedded(page))
    assert set(places) == {
        *(f"{kind}-{metric}" for kind in ("rate", "share") for metric in METRICS),
        *("requests", "engine", "kv"),
    }


@pytest.mark.slow
def test_plotly_knows_every_property_that_the_charts_use() -> None:
    graph_objects = pytest.importorskip("plotly.graph_objects")
    for name, figure in embedded(render_measure_report(measured_run())).items():
        text = re.sub(r'"\$[a-z]+\d?"', '"#000000"', json.dumps(figure))
        assert graph_objects.Figure(json.loads(text)).data, name


@pytest.mark.slow
def test_latency_rises_over_the_answered_rate_with_its_intervals_and_the_target() -> None:
    windows = measured_run().windows
    figure = charts.latency_against_rate(windows, Metric.TTFT)
    assert figure is not None
    median, high, target = figure["data"]
    assert median["x"] == sorted(window.figures.achieved_req_per_s for window in windows)
    latency = windows[1].figures.latency[Metric.TTFT]
    low_ms, high_ms = latency.interval_ms[50.0] or (0, 0)
    assert median["y"][1] - median["error_y"]["arrayminus"][1] == pytest.approx(low_ms)
    assert median["y"][1] + median["error_y"]["array"][1] == pytest.approx(high_ms)
    assert high["error_y"]["array"][0] == 0  # too few requests for an interval of the p99
    assert target["y"] == [400, 400]
    assert [marker == "$surface" for marker in median["marker"]["color"]] == [False, False, True]


def test_a_distribution_ends_at_all_requests_and_holds_the_target() -> None:
    figure = charts.distribution([measured_window(16)], Metric.TTFT)
    assert figure is not None
    line, target = figure["data"]
    assert line["y"][-1] == 1
    assert line["x"] == sorted(line["x"])
    assert (target["x"], target["y"]) == ([SLO[0].ms], [0.99])


def test_requests_in_flight_are_those_sent_and_not_ended() -> None:
    window = measured_window(16)
    figure = charts.requests_over_time([window])
    assert figure is not None
    sent, answered, in_flight = figure["data"]
    width_s = sent["x"][1] - sent["x"][0]
    assert sum(value for value in sent["y"] if value is not None) * width_s == pytest.approx(len(window.samples))
    assert sum(value for value in answered["y"] if value is not None) * width_s == pytest.approx(
        window.figures.completed
    )
    for at_s, shown in list(zip(in_flight["x"], in_flight["y"], strict=True))[:-1]:
        assert shown == sum(one.sent_s <= at_s < one.end_s for one in window.samples)


@pytest.mark.slow
def test_windows_are_apart_on_the_time_axis_and_the_invalid_one_is_shaded() -> None:
    figure = charts.engine_over_time(measured_run().windows, "requests")
    assert figure is not None
    (band,) = figure["layout"]["shapes"]
    assert band["x0"] == 80
    assert [note["text"] for note in figure["layout"]["annotations"]] == ["4 req/s", "16 req/s", "64 req/s"]
    assert figure["data"][0]["y"].count(None) == 3


@pytest.mark.slow
def test_what_the_engine_did_not_say_is_not_drawn() -> None:
    silent = replace(measured_window(4), engine=EngineWindow(missing="no metrics"))
    run = replace(measured_run(), windows=(silent,), shown=silent)
    drawn = embedded(render_measure_report(run))
    assert set(drawn) == {*(f"share-{metric}" for metric in METRICS), "requests"}


@pytest.mark.slow
def test_no_text_from_outside_becomes_markup() -> None:
    hostile = "<script>alert(1)</script></style>\"'"
    window = replace(measured_window(4), order=replace(measured_window(4).order, name=hostile))
    run = replace(measured_run(), windows=(window,), shown=window, headline=hostile, facts=((hostile, hostile),))
    page = without_library(render_measure_report(run))
    assert "<script>alert" not in page
    assert Outline(page).open == []


@pytest.mark.tools
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_draws_every_chart_without_complaint(scheme: str, tmp_path: Path) -> None:
    browser = tools.chromium()
    if browser is None:
        pytest.skip("no Chromium on PATH")
    page = tmp_path / "report.html"
    page.write_text(render_measure_report(measured_run()), encoding="utf-8")
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
    colours = f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"  # Blink's numbers of them
    words = [str(browser), "--headless", "--no-sandbox", "--disable-gpu", *quiet, colours, "--virtual-time-budget=8000"]
    words += [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--dump-dom", page.as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    for name in embedded(page.read_text(encoding="utf-8")):
        place = done.stdout.index(f'data-figure="{name}"')
        assert "main-svg" in done.stdout[place : place + 4000], name
