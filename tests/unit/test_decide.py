"""The decision is a pure function of the trials: who wins, why, and what it would take where nobody does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import make_candidate, make_request, make_step
from tuner.decide import decide, pareto_front
from tuner.errors import FailureReason
from tuner.layout import ParallelLayout
from tuner.prune import DroppedGroup
from tuner.rules import DropReason
from tuner.trial import LoadStep, TrialResult, TrialState

SLO = "ttft p99 ≤ 100 ms and tpot p99 ≤ 50 ms"


def trial(number, layout, ttft_ms, request, failed=0):
    steps = tuple(
        make_step(LoadStep(i, rate, 1.0, i), request, ms, failed)
        for i, (rate, ms) in enumerate(zip(request.rates_req_per_s, ttft_ms, strict=False))
    )
    return TrialResult(number, ParallelLayout.parse(layout), TrialState.MEASURED, steps)


def crash(number, layout, reason=FailureReason.ENGINE_CRASHED):
    return TrialResult(number, ParallelLayout.parse(layout), TrialState.FAILED, failure=reason)


def made(request, *trials):
    return decide("s", request, trials, [make_candidate(t.layout) for t in trials], [])


@pytest.mark.parametrize(
    ("objective", "winner"),
    [
        ("min_gpus", "tp=1,pp=1,dp=1"),
        ("min_cost", "tp=1,pp=1,dp=1"),
        ("min_latency", "tp=4,pp=1,dp=1"),
        ("max_goodput", "tp=1,pp=1,dp=4"),
    ],
)
def test_the_objective_chooses(objective, winner):
    request = make_request({"objective": objective, "load.rates_req_per_s": [4, 8, 12, 16]})
    decision = made(
        request,
        trial(0, "tp=4,pp=1,dp=1", [20, 20, 20, 110], request),
        trial(1, "tp=1,pp=1,dp=1", [60, 90, 110], request),
        trial(2, "tp=1,pp=1,dp=4", [60, 60, 60, 60], request),
        trial(3, "tp=8,pp=1,dp=1", [110], request),
        crash(4, "tp=2,pp=1,dp=1"),
    )
    assert str(decision.winner.layout) == winner
    assert decision.remedy is None
    assert len(decision.trials) == 5
    assert set(decision.predictions) == {str(t.layout) for t in decision.trials}


@pytest.mark.parametrize(
    ("objective", "trials", "why"),
    [
        (
            "min_gpus",
            [("tp=1,pp=1,dp=1", [40, 90]), ("tp=2,pp=1,dp=1", [30, 30])],
            f"tp=1,pp=1,dp=1 meets {SLO} at 8 requests/s (ttft p99 90 ms, tpot p99 9 ms) "
            "on 1 device. Second: tp=2,pp=1,dp=1, which needs 2 devices.",
        ),
        (
            "max_goodput",
            [("tp=1,pp=1,dp=1", [40, 40, 40, 40]), ("tp=2,pp=1,dp=1", [40, 40, 110])],
            f"tp=1,pp=1,dp=1 meets {SLO} at 16 requests/s (ttft p99 40 ms, tpot p99 4 ms) "
            "on 1 device. Second: tp=2,pp=1,dp=1, which meets it only up to 8 requests/s.",
        ),
        (
            "min_latency",
            [("tp=2,pp=1,dp=1", [30, 30]), ("tp=1,pp=1,dp=2", [50, 50])],
            f"tp=2,pp=1,dp=1 meets {SLO} at 8 requests/s (ttft p99 30 ms, tpot p99 3 ms) "
            "on 2 devices. Second: tp=1,pp=1,dp=2, which meets it on 2 devices with no lower latency "
            "(ttft p99 50 ms, tpot p99 5 ms at 8 requests/s).",
        ),
        (
            "min_gpus",
            [("tp=2,pp=1,dp=1", [30, 30]), ("tp=1,pp=1,dp=1", [50, 150])],
            f"tp=2,pp=1,dp=1 meets {SLO} at 8 requests/s (ttft p99 30 ms, tpot p99 3 ms) "
            "on 2 devices; no other measured layout does.",
        ),
    ],
)
def test_why_the_winner_won(objective, trials, why):
    request = make_request({"objective": objective})
    assert made(request, *(trial(i, *shown, request) for i, shown in enumerate(trials))).why == why


@pytest.mark.parametrize(
    ("trials", "why", "remedy"),
    [
        (
            [("tp=2,pp=1,dp=1", [150]), ("tp=1,pp=1,dp=1", [300])],
            "the nearest is tp=2,pp=1,dp=1, 1.50 × the target at 4 requests/s (ttft p99 150 ms, tpot p99 15 ms)",
            "it would take targets of at least ttft p99 of 150 ms for 4 requests/s, "
            "or more devices than the 2 of tp=2,pp=1,dp=1",
        ),
        (
            [("tp=2,pp=1,dp=1", [90, 200]), ("tp=1,pp=1,dp=1", [110])],
            "the nearest is tp=2,pp=1,dp=1, 2.00 × the target at 8 requests/s (ttft p99 200 ms, tpot p99 20 ms)",
            "it would take a rate of at most 4 requests/s on 2 devices, "
            "or targets of at least ttft p99 of 200 ms for 8 requests/s, or more devices than the 2 of tp=2,pp=1,dp=1",
        ),
        (
            [("tp=1,pp=1,dp=1", [600])],
            "6.00 × the target at 4 requests/s (ttft p99 600 ms, tpot p99 60 ms)",
            "it would take targets of at least ttft p99 of 600 ms and tpot p99 of 60 ms for 4 requests/s, "
            "or more devices than the 1 of tp=1,pp=1,dp=1",
        ),
    ],
)
def test_how_far_the_best_one_misses_and_what_it_would_take(trials, why, remedy):
    request = make_request()
    decision = made(request, *(trial(i, *shown, request) for i, shown in enumerate(trials)))
    assert (decision.winner, decision.runner_up, decision.pareto) == (None, None, ())
    assert decision.why.startswith(f"no measured layout meets {SLO} at 8 requests/s; the nearest is ")
    assert decision.why.endswith(why)
    assert decision.remedy == remedy


def test_failed_requests_are_named_not_their_latency():
    request = make_request()
    decision = made(request, trial(0, "tp=1,pp=1,dp=1", [20], request, failed=2))
    assert decision.winner is None
    assert decision.why.endswith("the nearest is tp=1,pp=1,dp=1, where 2 of 4 requests failed at 4 requests/s")
    assert "targets" not in decision.remedy


@pytest.mark.parametrize(
    ("trials", "why"),
    [
        ([], "no layout could be measured"),
        ([crash(0, "tp=1,pp=1,dp=1")], "no layout could be measured (engine_crashed)"),
        (
            [crash(0, "tp=1,pp=1,dp=1"), crash(1, "tp=2,pp=1,dp=1", FailureReason.DOES_NOT_FIT)],
            "no layout could be measured (does_not_fit, engine_crashed)",
        ),
    ],
)
def test_nothing_measured(trials, why):
    decision = made(make_request(), *trials)
    assert decision.winner is None
    assert decision.why == why


def test_what_was_dropped_is_passed_on():
    dropped = [DroppedGroup(DropReason.MEMORY, 3, ParallelLayout(), "40 GiB exceed 30")]
    assert decide("s", make_request(), [], [], dropped).dropped == tuple(dropped)


REQUEST = make_request({"load.rates_req_per_s": [4, 8, 12, 16]})
SHAPES = ["tp=1,pp=1,dp=1", "tp=2,pp=1,dp=1", "tp=1,pp=1,dp=2", "tp=4,pp=1,dp=1", "tp=8,pp=1,dp=1", "tp=1,pp=4,dp=1"]
SOME_TRIALS = st.lists(st.tuples(st.sampled_from(SHAPES), st.lists(st.integers(50, 150), max_size=4)), max_size=6).map(
    lambda drawn: [trial(i, layout, ttft_ms, REQUEST) for i, (layout, ttft_ms) in enumerate(drawn)]
)


@given(trials=SOME_TRIALS, data=st.data())
def test_the_order_of_trials_does_not_matter(trials, data):
    one, other = made(REQUEST, *trials), made(REQUEST, *data.draw(st.permutations(trials)))
    assert (one.winner, one.runner_up, one.why, one.remedy) == (other.winner, other.runner_up, other.why, other.remedy)


@given(trials=SOME_TRIALS)
def test_the_winner_meets_the_slo_with_the_fewest_devices(trials):
    holding = [t for t in trials if any(s.step.rate_req_per_s >= 8 and s.meets(REQUEST) for s in t.steps)]
    winner = made(REQUEST, *trials).winner
    assert (winner is None) == (not holding)
    if winner is not None:
        assert winner in holding
        assert winner.layout.devices == min(t.layout.devices for t in holding)


@given(trials=SOME_TRIALS)
def test_the_front_holds_what_nothing_beats_on_devices_and_goodput(trials):
    feasible = [t for t in trials if t.best_step(REQUEST)]

    def point(t):
        return (t.layout.devices, -t.best_step(REQUEST).goodput_req_per_s)

    front = [point(t) for t in pareto_front(REQUEST, feasible)]
    assert front == sorted(set(front))
    for candidate in map(point, feasible):
        beaten = any(p[0] <= candidate[0] and p[1] <= candidate[1] and p != candidate for p in map(point, feasible))
        assert beaten != (candidate in front)
