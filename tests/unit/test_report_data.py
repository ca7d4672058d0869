"""What the page of a study is filled with, from its record and its decision."""

from dataclasses import replace
from io import StringIO

from rich.console import Console

from deploy.report.study_page import render_report
from tests.fakes import NOTHING_SPENT, make_candidate, make_request, make_step
from tuner.app.tune.report_data import report_data
from tuner.app.tune.tables import decision_tables
from tuner.ask.layout import ParallelLayout
from tuner.decide.decision import decide
from tuner.study.lifecycle import StudyState
from tuner.study.records import StudyRecord
from tuner.trial.results import LoadStep, TrialResult, TrialState


def test_where_a_server_counted_otherwise_is_said_of_its_trial():
    request = make_request()
    step = replace(make_step(LoadStep(0, 4.0, 1.0, 0), request, 20.0), cautions=("the server counts 8 prompt tokens",))
    trial = TrialResult(0, ParallelLayout(tp=2), TrialState.MEASURED, (step,))
    candidate = make_candidate("tp=2,pp=1,dp=1")
    decision = decide("s", request, [trial], [candidate], [], NOTHING_SPENT)
    record = StudyRecord("s", 0.0, request, {}, 1, (candidate,), (), True, StudyState.DECIDED)
    (row,) = report_data(record, decision, {0: 0.0}, {}).launched
    assert "the server counts 8 prompt tokens" in (row.reason or "")
    console = Console(file=StringIO(), width=200)
    decision_tables(console, decision, request)
    assert "Trial 1: the server counts 8 prompt tokens." in console.file.getvalue()


def test_two_percentiles_of_one_metric_are_two_columns():
    slo = [{"metric": "ttft", "percentile": 50, "ms": 90}, {"metric": "ttft", "percentile": 99, "ms": 500}]
    request = make_request({"slo": slo})
    median, tail = (target.key for target in request.slo)
    step = make_step(LoadStep(0, 4.0, 1.0, 0), request, 20.0)
    step = replace(step, slo_values_ms={median: 41.5, tail: 321.5})
    trial = TrialResult(0, ParallelLayout(tp=2), TrialState.MEASURED, (step,))
    candidate = make_candidate("tp=2,pp=1,dp=1")
    steps = tuple((11.0, 12.0, 13.0) for _ in request.rates_req_per_s)
    candidate = replace(candidate, prediction=replace(candidate.prediction, steps=steps))
    decision = decide("s", request, [trial], [candidate], [], NOTHING_SPENT)
    record = StudyRecord("s", 0.0, request, {}, 1, (candidate,), (), True, StudyState.DECIDED)
    data = report_data(record, decision, {0: 0.0}, {})
    (row,) = [layout for layout in data.layouts if layout.measured_ms]
    assert (row.measured_ms["ttft-p50"], row.measured_ms["ttft-p99"]) == (41.5, 321.5)
    assert (row.predicted_ms["ttft-p50"], row.predicted_ms["ttft-p99"]) == (11.0, 12.0)
    (standing,) = data.standings
    assert (standing.slo_ms["ttft-p50"].mean, standing.slo_ms["ttft-p99"].mean) == (41.5, 321.5)
    page = render_report(data)
    assert "41.5" in page
    assert "321.5" in page or "322" in page
    assert 'data-figure="load-ttft-p50"' in page
    assert 'data-figure="load-ttft-p99"' in page
