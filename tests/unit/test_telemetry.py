"""What Prometheus reads from the endpoint of a running study."""

import re
import socket
import urllib.request

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tuner.app.tune.telemetry import Telemetry
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Metric
from tuner.ask.request_document import parse_request
from tuner.errors import BadInput, FailureReason
from tuner.trial.ledger import Spent
from tuner.trial.results import LoadStep, StepResult, TrialResult, TrialState

LAYOUT = ParallelLayout(tp=2)
LABELS = {"study": "s1", "layout": str(LAYOUT)}
REQUEST = parse_request(
    {
        "model": "tiny",
        "cluster": {"gpu": "cpu", "gpus_per_node": 2},
        "workload": {"prompt_tokens": 16, "output_tokens": 4, "arrival": {"requests_per_s": 2}},
        "slo": [{"metric": "ttft", "percentile": 99, "ms": 500}, {"metric": "itl", "percentile": 99.9, "ms": 30}],
    }
)
SAMPLES_S = {Metric.TTFT: [0.03, 0.2], Metric.TPOT: [0.004], Metric.ITL: [0.004, 0.3, 9.0], Metric.E2E: [1.0, 400.0]}
UNIT = re.compile(r"_(seconds|ratio|requests_per_second|requests|trials|candidates|info|launches|usd)$")


@pytest.fixture
def telemetry():
    made = Telemetry()
    yield made
    made.stop()


def scrape(telemetry):
    """What the HTTP endpoint shows."""
    port = telemetry.start_http()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        return parsed(answer.read())


def shown(telemetry):
    """The same without HTTP, which takes half a second to stop."""
    return parsed(generate_latest(telemetry.registry))


def parsed(text):
    return {family.name: family for family in text_string_to_metric_families(text.decode())}


def value(families, family, labels, suffix=""):
    found = [s.value for s in families[family].samples if s.name == family + suffix and s.labels == labels]
    return found[0] if len(found) == 1 else None


def result(warmup=False, attainment=0.75, goodput=1.5):
    step = LoadStep(0, 2.0, 10.0, 1, warmup)
    return StepResult(
        step, 20, 18, 2, 11.0, {}, {(Metric.TTFT, 99.0): 1.0}, attainment, goodput, 5.0, 3.0, {"reset": 2}
    )


def a_whole_study(telemetry):
    telemetry.study_started("s1", REQUEST)
    telemetry.candidates("s1", {"does_not_fit": 7, "slower": 2}, kept=3)
    telemetry.trial_started("s1", LAYOUT, 0)
    telemetry.step_started("s1", LAYOUT, LoadStep(0, 2.0, 10.0, 1))
    telemetry.step_measured("s1", LAYOUT, result(), SAMPLES_S)
    telemetry.ratio("s1", LAYOUT, Metric.TTFT, predicted_ms=30, measured_ms=40)
    telemetry.spent("s1", Spent(3, 2.5, 0.5, 6.0, lost=1))


@pytest.mark.slow
def test_a_study_is_shown_figure_by_figure(telemetry):
    a_whole_study(telemetry)
    families = scrape(telemetry)
    expected = {
        ("parlay_slo_target_seconds", "study=s1 metric=ttft percentile=99"): 0.5,
        ("parlay_slo_target_seconds", "study=s1 metric=itl percentile=99.9"): 0.03,
        ("parlay_dropped_candidates", "study=s1 reason=does_not_fit"): 7,
        ("parlay_dropped_candidates", "study=s1 reason=slower"): 2,
        ("parlay_kept_candidates", "study=s1"): 3,
    }
    for (family, labels), figure in expected.items():
        assert value(families, family, dict(part.split("=") for part in labels.split())) == figure
    assert value(families, "parlay_attainment_ratio", LABELS) == 0.75
    assert value(families, "parlay_goodput_requests_per_second", LABELS) == 1.5
    assert value(families, "parlay_offered_load_requests_per_second", LABELS) == 2.0
    assert value(families, "parlay_schedule_lag_p99_seconds", LABELS) == 0.003
    assert value(families, "parlay_requests", LABELS | {"outcome": "failed"}, "_total") == 2
    assert value(families, "parlay_requests", LABELS | {"outcome": "completed"}, "_total") == 18
    assert value(families, "parlay_predicted_to_measured_ratio", LABELS | {"metric": "ttft"}) == 0.75
    assert value(families, "parlay_running_trial_info", LABELS | {"trial": "0"}) == 1


@pytest.mark.parametrize(
    ("family", "metric"),
    [
        ("parlay_time_to_first_token_seconds", Metric.TTFT),
        ("parlay_time_per_output_token_seconds", Metric.TPOT),
        ("parlay_inter_token_latency_seconds", Metric.ITL),
        ("parlay_end_to_end_latency_seconds", Metric.E2E),
    ],
)
def test_histograms_hold_every_sample(telemetry, family, metric):
    telemetry.step_measured("s1", LAYOUT, result(), SAMPLES_S)
    families = shown(telemetry)
    assert families[family].type == "histogram"
    assert value(families, family, LABELS, "_count") == len(SAMPLES_S[metric])
    assert value(families, family, LABELS, "_sum") == pytest.approx(sum(SAMPLES_S[metric]))
    buckets = {s.labels["le"]: s.value for s in families[family].samples if s.name.endswith("_bucket")}
    for limit, count in buckets.items():
        assert count == sum(sample <= float(limit) for sample in SAMPLES_S[metric])


def test_names_end_in_their_unit_and_no_label_is_of_a_request(telemetry):
    a_whole_study(telemetry)
    telemetry.trial_finished("s1", TrialResult(0, LAYOUT, TrialState.MEASURED))
    families = shown(telemetry)
    allowed = {"study", "layout", "metric", "percentile", "outcome", "reason", "trial", "le"}
    for family in families.values():
        if family.name.endswith("_created"):
            continue
        assert family.name.startswith("parlay_")
        assert UNIT.search(family.name), family.name
        assert family.documentation
        assert all(set(s.labels) <= allowed for s in family.samples)


@pytest.mark.parametrize(
    ("state", "failure", "reason"),
    [
        (TrialState.MEASURED, None, "none"),
        (TrialState.STOPPED, None, "none"),
        (TrialState.FAILED, FailureReason.DOES_NOT_FIT, "does_not_fit"),
    ],
)
def test_a_finished_trial_is_counted_and_runs_no_more(telemetry, state, failure, reason):
    a_whole_study(telemetry)
    telemetry.trial_finished("s1", TrialResult(0, LAYOUT, state, failure=failure))
    families = shown(telemetry)
    labels = {"study": "s1", "outcome": state.value, "reason": reason}
    assert value(families, "parlay_trials", labels, "_total") == 1
    assert families["parlay_running_trial_info"].samples == []
    assert families["parlay_offered_load_requests_per_second"].samples == []
    assert value(families, "parlay_goodput_requests_per_second", LABELS) == 1.5


def test_a_running_trial_is_not_counted(telemetry):
    with pytest.raises(BadInput):
        telemetry.trial_finished("s1", TrialResult(0, LAYOUT, TrialState.RUNNING))


def test_a_warm_up_is_not_shown(telemetry):
    telemetry.step_measured("s1", LAYOUT, result(warmup=True), SAMPLES_S)
    assert all(family.samples == [] for family in shown(telemetry).values())


def test_what_is_absent_is_not_shown_as_an_old_value_or_zero(telemetry):
    telemetry.step_measured("s1", LAYOUT, result())
    telemetry.step_measured("s1", LAYOUT, result(attainment=None, goodput=None))
    telemetry.ratio("s1", LAYOUT, Metric.TPOT, predicted_ms=30, measured_ms=0)
    families = shown(telemetry)
    for name in ("attainment_ratio", "goodput_requests_per_second", "predicted_to_measured_ratio"):
        assert families[f"parlay_{name}"].samples == []


def test_what_was_spent_is_shown_in_base_units(telemetry):
    telemetry.spent("s1", Spent(3, 2.5, 0.5, 6.0, lost=1))
    families = shown(telemetry)
    units = {"launches": 3, "seconds": 150, "device_seconds": 1800, "usd": 6}
    assert {unit: value(families, f"parlay_spent_{unit}", {"study": "s1"}) for unit in units} == units
    telemetry.spent("s1", Spent(4, 2.5, 0.5, None))
    assert shown(telemetry)["parlay_spent_usd"].samples == []


def test_two_of_them_do_not_mix(telemetry):
    other = Telemetry()
    other.study_started("s2", REQUEST)
    assert shown(telemetry)["parlay_slo_target_seconds"].samples == []


@pytest.mark.slow
def test_a_port_in_use_is_refused_and_free_again_after_stop(telemetry):
    port = telemetry.start_http()
    other = Telemetry()
    with pytest.raises(BadInput, match=str(port)):
        other.start_http(port=port)
    telemetry.stop()
    telemetry.stop()
    assert other.start_http(port=port) == port
    other.stop()


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 70000), ("127.0.0.1", -1), ("192.0.2.1", 0)])
def test_an_address_that_cannot_be_taken_is_refused(telemetry, host, port):
    with pytest.raises(BadInput):
        telemetry.start_http(host, port)


@pytest.mark.slow
def test_it_listens_on_loopback_unless_told(telemetry):
    telemetry.start_http()
    assert telemetry._server is not None
    assert telemetry._server.socket.family == socket.AF_INET
    assert telemetry._server.socket.getsockname()[0] == "127.0.0.1"


@pytest.mark.slow
def test_a_second_endpoint_is_refused(telemetry):
    telemetry.start_http()
    with pytest.raises(BadInput):
        telemetry.start_http()
