"""The decision is a pure function of the trials: who wins, why, and what it would take where nobody does."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import NOTHING_SPENT, make_candidate, make_request, make_step
from tuner.ask.layout import AXES, ParallelLayout
from tuner.ask.request import Metric
from tuner.ask.rules import DropReason
from tuner.decide.decision import decide
from tuner.errors import FailureReason
from tuner.plan.prune import DroppedGroup
from tuner.trial.results import LoadStep, Purpose, TrialResult, TrialState

SLO = "ttft p99 ≤ 100 ms and tpot p99 ≤ 50 ms"


def trial(number, layout, ttft_ms, request, failed=0):
    steps = tuple(
        make_step(LoadStep(i, rate, 1.0, i), request, ms, failed)
        for i, (rate, ms) in enumerate(zip(request.rates_req_per_s, ttft_ms, strict=False))
    )
    return TrialResult(number, ParallelLayout.parse(layout), TrialState.MEASURED, steps)


def repeated(one, number, purpose=Purpose.EXPLORE):
    """The same trial once more, under another number."""
    return replace(one, number=number, purpose=purpose, repeat=1)


def crash(number, layout, reason=FailureReason.ENGINE_CRASHED):
    return TrialResult(number, ParallelLayout.parse(layout), TrialState.FAILED, failure=reason)


def made(request, *trials):
    return decide("s", request, trials, [make_candidate(t.layout) for t in trials], [], NOTHING_SPENT)


def test_a_layout_that_missed_what_was_measured_shows_what_it_missed_by():
    request = make_request({"load.rates_req_per_s": [4, 8, 12, 16]})
    shown = request.rates_req_per_s
    high, low = (make_step(LoadStep(i, shown[i], 1.0, i), request, ms) for i, ms in ((2, 400), (1, 150)))
    one = TrialResult(0, ParallelLayout.parse("tp=1"), TrialState.MEASURED, (high, low))
    (standing,) = made(request, one).standings
    assert (standing.meets, standing.held_req_per_s, standing.at_req_per_s) == (False, None, 8)
    assert standing.slo_ms[request.slo[0].key].mean == 150
    assert standing.e2e_ms is not None
    assert one.shown_step(request) is low


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
            "on 2 devices. Second: tp=1,pp=1,dp=2, which meets it on 2 devices with "
            "an E2E latency of 150 ms against 90 ms, 66.7% more "
            "(ttft p99 50 ms, tpot p99 5 ms at 8 requests/s).",
        ),
        (
            "min_gpus",
            [("tp=2,pp=1,dp=1", [30, 30]), ("tp=1,pp=1,dp=1", [50, 150])],
            f"tp=2,pp=1,dp=1 meets {SLO} at 8 requests/s (ttft p99 30 ms, tpot p99 3 ms) "
            "on 2 devices; no other measured layout does. "
            "That leaves 70% of the ttft target and 94% of the tpot target to spare.",
        ),
        (
            "min_gpus",
            [("tp=2,pp=1,dp=1", [30, 30])],
            f"tp=2,pp=1,dp=1 meets {SLO} at 8 requests/s (ttft p99 30 ms, tpot p99 3 ms) "
            "on 2 devices; no other layout was measured. ",
        ),
    ],
)
def test_why_the_winner_won(objective, trials, why):
    request = make_request({"objective": objective})
    assert made(request, *(trial(i, *shown, request) for i, shown in enumerate(trials))).why.startswith(why)


def test_a_setting_that_may_change_answers_is_told(monkeypatch):
    said = "rounds what it computes, so answers may differ"
    monkeypatch.setitem(AXES, "executor", replace(AXES["executor"], cautions={"ray": said}))
    request = make_request()
    layouts = ("tp=2,pp=1,dp=1", "tp=2,pp=1,dp=1,executor=ray")
    whys = [made(request, trial(0, layout, [30, 30], request)).why for layout in layouts]
    assert [f"It {said}." in why for why in whys] == [False, True]


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
        ([], "nothing has been measured"),
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
    assert decide("s", make_request(), [], [], dropped, NOTHING_SPENT).dropped == tuple(dropped)


REQUEST = make_request({"load.rates_req_per_s": [4, 8, 12, 16]})
SHAPES = ["tp=1,pp=1,dp=1", "tp=2,pp=1,dp=1", "tp=1,pp=1,dp=2", "tp=4,pp=1,dp=1", "tp=8,pp=1,dp=1", "tp=1,pp=4,dp=1"]
SOME_TRIALS = st.lists(
    st.tuples(st.sampled_from(SHAPES), st.lists(st.integers(50, 150), max_size=4)),
    max_size=6,
    unique_by=lambda drawn: drawn[0],
).map(lambda drawn: [trial(i, layout, ttft_ms, REQUEST) for i, (layout, ttft_ms) in enumerate(drawn)])


@pytest.mark.slow
@given(trials=SOME_TRIALS, data=st.data())
def test_the_order_of_trials_does_not_matter(trials, data):
    one, other = made(REQUEST, *trials), made(REQUEST, *data.draw(st.permutations(trials)))
    assert (one.winner, one.runner_up, one.why, one.remedy) == (other.winner, other.runner_up, other.why, other.remedy)


@pytest.mark.slow
@given(trials=SOME_TRIALS)
def test_the_winner_meets_the_slo_with_the_fewest_devices(trials):
    holding = [t for t in trials if any(s.step.rate_req_per_s >= 8 and s.meets(REQUEST) for s in t.steps)]
    winner = made(REQUEST, *trials).winner
    assert (winner is None) == (not holding)
    if winner is not None:
        assert winner in holding
        assert winner.layout.devices == min(t.layout.devices for t in holding)


@pytest.mark.slow
@given(trials=SOME_TRIALS)
def test_the_front_holds_what_nothing_beats_on_devices_and_goodput(trials):
    feasible = [t for t in trials if any(s.step.rate_req_per_s >= 8 and s.meets(REQUEST) for s in t.steps)]

    def point(t):
        return (t.layout.devices, -t.best_step(REQUEST).goodput_req_per_s)

    front = [point(t) for t in made(REQUEST, *trials).pareto]
    assert front == sorted(set(front))
    for candidate in map(point, feasible):
        beaten = any(p[0] <= candidate[0] and p[1] <= candidate[1] and p != candidate for p in map(point, feasible))
        assert beaten != (candidate in front)


SMALL, LARGE = "tp=1,pp=1,dp=1", "tp=2,pp=1,dp=1"


@pytest.mark.parametrize(
    ("again", "purpose", "winner", "confirmed"),
    [
        ([50, 92], Purpose.CONFIRM, SMALL, True),
        ([50, 92], Purpose.EXPLORE, SMALL, None),
        ([50, 120], Purpose.CONFIRM, LARGE, None),  # contradicted: the next one wins
        ([50, 120], Purpose.EXPLORE, LARGE, None),
        ([120], Purpose.CONFIRM, LARGE, None),
    ],
)
def test_a_layout_meets_the_slo_only_if_no_run_of_it_contradicts(again, purpose, winner, confirmed):
    request = make_request()
    second = replace(trial(2, SMALL, again, request), purpose=purpose, repeat=1)
    decision = made(request, trial(0, SMALL, [50, 90], request), trial(1, LARGE, [30, 30], request), second)
    assert str(decision.winner.layout) == winner
    assert decision.standings[0].confirmed is confirmed
    assert len(decision.standings) == 2  # layouts, not trials


def test_the_spread_of_repeated_runs_is_told():
    request = make_request()
    decision = made(
        request, trial(0, SMALL, [50, 80], request), repeated(trial(0, SMALL, [50, 90], request), 1, Purpose.CONFIRM)
    )
    summary = decision.standings[0]
    ttft = summary.slo_ms[Metric.TTFT, 99]
    assert (ttft.mean, ttft.low, ttft.high, ttft.runs) == (85, 80, 90, 2)
    assert summary.e2e_ms.share == pytest.approx(30 / 255)
    assert decision.winner.number == 1  # the confirmation stands for the layout
    assert "ttft p99 85 ms, 80 to 90 over 2 runs" in decision.why
    assert "Its worst run leaves 10% of the ttft target and 82% of the tpot target to spare." in decision.why
    assert "A second run" in decision.why


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"invalid": "an engine restarted in the window"}, "show nothing: an engine restarted in the window"),
        ({"slo_values_ms": {}}, "show nothing: no answer has a value of every target"),
    ],
)
def test_windows_that_show_nothing_are_not_told_as_misses(changes, why):
    request = make_request()
    one = trial(0, SMALL, [50, 50], request)
    decision = made(request, replace(one, steps=tuple(replace(step, **changes) for step in one.steps)))
    assert decision.winner is None
    assert why in decision.why
    assert decision.remedy == "it would take another measurement"


def test_a_window_that_the_client_spoilt_decides_nothing():
    request = make_request()

    def spoilt(number, ttft_ms):
        one = trial(number, SMALL, ttft_ms, request)
        return replace(one, steps=tuple(replace(step, client_bound=True) for step in one.steps))

    alone = made(request, spoilt(0, [50, 50]))
    assert alone.winner is None
    assert "the client was the bottleneck" in alone.why
    both = made(request, trial(0, SMALL, [50, 90], request), replace(spoilt(1, [150, 150]), purpose=Purpose.CONFIRM))
    assert str(both.winner.layout) == SMALL  # not contradicted ...
    assert both.standings[0].confirmed is None  # ... and not confirmed


def test_ties_go_to_the_stabler_layout():
    request = make_request()
    steady, shaky = "tp=1,pp=1,dp=2", "tp=2,pp=1,dp=1"
    twice = [trial(0, steady, [50, 60], request), repeated(trial(0, steady, [50, 62], request), 1)]
    swings = [trial(2, shaky, [50, 50], request), repeated(trial(2, shaky, [50, 70], request), 3)]
    assert str(made(request, *twice, *swings).winner.layout) == steady
    crashed = crash(4, steady)
    assert str(made(request, *twice, *swings, crashed).winner.layout) == shaky  # fewer failures come first


def test_attainment_is_a_constraint_of_its_own():
    one = trial(0, SMALL, [50, 90], make_request())
    steps = tuple(replace(step, attainment=0.875) for step in one.steps)
    for share, met in ((0.85, True), (0.9, False)):
        request = make_request({"attainment": share})
        assert (made(request, replace(one, steps=steps)).winner is not None) is met
    (summary,) = made(make_request(), replace(one, steps=steps)).standings
    low, high = summary.attainment_interval
    assert low < 0.875 < high


MIXED = [
    {"gpu": "h100_sxm", "gpus_per_node": 8, "usd_per_gpu_hour": 4.0},
    {"gpu": "l40s", "gpus_per_node": 8, "usd_per_gpu_hour": 1.0},
]


@pytest.mark.parametrize(
    ("objective", "winner", "front"),
    [
        ("min_gpus", "h100_sxm", ["h100_sxm"]),
        ("min_cost", "l40s", ["l40s"]),
        (["min_cost", "min_latency"], "l40s", ["l40s", "h100_sxm"]),
        (["min_latency", "min_cost"], "h100_sxm", ["h100_sxm", "l40s"]),
        (["min_gpus", "min_cost"], "h100_sxm", ["h100_sxm", "l40s"]),
    ],
)
def test_the_first_objective_chooses_and_the_front_shows_both(objective, winner, front):
    request = make_request({"objective": objective, "cluster": MIXED})
    decision = made(
        request,
        trial(0, "tp=1,pp=1,dp=1,gpu=h100_sxm", [20, 30], request),
        trial(1, "tp=2,pp=1,dp=1,gpu=l40s", [40, 60], request),
        trial(2, "tp=4,pp=1,dp=1,gpu=l40s", [50, 70], request),
    )
    assert decision.winner.layout.gpu == winner
    assert [one.layout.gpu for one in decision.pareto] == front
    usd = {"h100_sxm": 4.0, "l40s": 2.0}[winner]
    assert decision.standings[0].usd_per_hour == usd
    tokens_per_s = decision.standings[0].output_tok_per_s.mean
    assert decision.standings[0].usd_per_million_tokens == pytest.approx(usd / 3600 / tokens_per_s * 1e6)
