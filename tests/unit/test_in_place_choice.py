"""Which other paths to an engine are measured while it runs, and in which order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.fakes import make_request, make_step
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import Metric
from tuner.ask.space import load_space
from tuner.search.in_place import MOST, InPlace, fewest_messages
from tuner.trial.results import LoadStep, TrialResult, TrialState

AXES = frozenset({"stream_interval_ms", "ingress_replicas"})
SPACE = {"tp": [1, 2], "stream_interval_ms": [0, 20, 40, 200], "ingress_replicas": [0, 4]}
CHANGES = {"objective": "min_gpus", "load.rates_req_per_s": [4, 8], "slo.0.ms": 100}


def looking(changes=None, space=None, legal=lambda layout: True):
    request = make_request({**CHANGES, **(changes or {})})
    return InPlace(request, load_space(space or SPACE), AXES, legal, fewest_messages)


def trial(number, layout="tp=1", *ttft_ms, request=None, **more):
    request = request or make_request(CHANGES)
    steps = tuple(
        make_step(LoadStep(i, rate, 1.0, i), request, ms)
        for i, (rate, ms) in enumerate(zip(request.rates_req_per_s, ttft_ms, strict=False))
    )
    return TrialResult(number, ParallelLayout.parse(layout), TrialState.MEASURED, steps, **more)


def words(proposals):
    return [str(one.layout).removeprefix("tp=1,pp=1,dp=1") for one in proposals]


def test_long_intervals_come_first_and_those_last_that_the_target_leaves_no_time_for():
    """150 ms where 100 are asked: 200 ms between messages would miss it by themselves."""
    found = looking().after(trial(0, "tp=1", 60, 150), [])
    assert words(found)[:4] == [
        ",stream_interval_ms=40",
        ",stream_interval_ms=40,ingress_replicas=4",
        ",stream_interval_ms=20",
        ",stream_interval_ms=20,ingress_replicas=4",
    ]
    assert words(found)[-2:] == [",stream_interval_ms=200", ",stream_interval_ms=200,ingress_replicas=4"]
    assert found[0].engine_of == 0
    assert found[0].why == "on the engine of trial 1, with stream_interval_ms=40"


def test_what_was_measured_or_would_be_refused_is_left_out():
    interval = looking(legal=lambda layout: layout.ingress_replicas == 0)
    tried = trial(1, "tp=1,stream_interval_ms=40", 60, 130, engine_of=0)
    assert words(interval.after(tried, [trial(0, "tp=1", 60, 150)])) == [
        ",stream_interval_ms=20",
        ",stream_interval_ms=200",
    ]
    assert interval.after(tried, [trial(0, "tp=1", 60, 150)])[0].engine_of == 0


def test_no_more_than_so_many_are_measured_on_one_engine():
    tried = [trial(n + 1, f"tp=1,stream_interval_ms={n + 1}", 60, 130, engine_of=0) for n in range(MOST)]
    first = trial(0, "tp=1", 60, 150)
    assert looking().after(tried[-2], [first, *tried[:-2]])
    assert not looking().after(tried[-1], [first, *tried[:-1]])
    assert looking().after(trial(9, "tp=2", 60, 150), [first, *tried])  # another engine


@pytest.mark.parametrize(
    ("objective", "ttft_ms", "wanted"),
    [
        ("min_gpus", (60, 90), False),  # it meets the SLO, and its devices stay as many
        ("max_goodput", (60, 90), False),  # it holds all that is offered
        ("max_goodput", (60, 900), True),  # it holds half of that, and is the best
        ("min_latency", (60, 90), True),
        ("min_gpus", (600, 900), False),
    ],
)
def test_what_can_be_better_depends_on_the_objective(objective, ttft_ms, wanted):
    changes = CHANGES | {"objective": objective}
    assert bool(looking(changes).after(trial(0, "tp=1", *ttft_ms), [])) == wanted


def test_once_one_meets_the_slo_no_other_is_measured():
    met = trial(1, "tp=1,stream_interval_ms=40", 60, 90, engine_of=0)
    assert not looking().after(met, [trial(0, "tp=1", 60, 150)])


def test_failed_requests_are_not_the_paths_fault():
    missed = trial(0, "tp=1", 150)
    failed = replace(missed.steps[0], failed=1)
    assert looking().after(missed, [])
    assert not looking().after(replace(missed, steps=(failed,)), [])
    assert not looking().after(replace(missed, state=TrialState.FAILED), [])
    assert not looking().after(replace(missed, steps=()), [])


def test_what_was_to_follow_on_an_engine_that_is_gone_is_launched_once():
    interval, missed = looking(), trial(0, "tp=1", 60, 150)
    proposal = interval.left_over([missed], [])
    assert (str(proposal.layout), proposal.engine_of) == ("tp=1,pp=1,dp=1,stream_interval_ms=40", None)
    assert proposal.why == "was to be measured on the engine of trial 1, which is gone"
    assert interval.left_over([missed], [ParallelLayout.parse("tp=1,stream_interval_ms=20")]) is None  # it runs
    assert interval.left_over([missed, trial(1, str(proposal.layout), 60, 90)], []) is None
    assert interval.left_over([trial(0, "tp=1", 60, 90)], []) is None


def test_a_tpot_that_is_too_long_is_the_engines_own():
    first, last = trial(0, "tp=1", 60, 90).steps
    slow = {key: 1e3 if key[0] is Metric.TPOT else ms for key, ms in last.slo_values_ms.items()}
    missed = trial(0, "tp=1", 60, 90)
    assert not looking().after(replace(missed, steps=(first, replace(last, slo_values_ms=slow))), [])
    both = slow | {key: 150.0 for key in slow if key[0] is Metric.TTFT}
    far = {key: min(ms, 100.0) if key[0] is Metric.TPOT else ms for key, ms in both.items()}
    assert looking().after(replace(missed, steps=(first, replace(last, slo_values_ms=far))), [])
