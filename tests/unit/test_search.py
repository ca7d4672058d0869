"""What holds whatever the strategy: what ends a trial, what needs no launch, what others did; the order of trials."""

from dataclasses import replace

import pytest

from tests.fakes import make_candidate, make_request, make_step
from tests.in_order import InOrder
from tuner.ask.layout import ParallelLayout
from tuner.decide.comparison import meets_and_order, slo_ratio
from tuner.errors import FailureReason
from tuner.search.proposal import Proposal
from tuner.search.search import Search
from tuner.trial.results import LoadStep, TrialResult, TrialState

REQUEST = make_request({"objective": "max_goodput"})
RANKED = [
    make_candidate(text)
    for text in (
        "tp=2,pp=1,dp=1",
        "tp=2,pp=1,dp=1,executor=ray",
        "tp=1,pp=1,dp=2",
        "tp=1,pp=1,dp=2,max_num_seqs=128",
        "tp=1,pp=1,dp=2,executor=ray",
        "tp=1,pp=1,dp=2,max_num_batched_tokens=8192",
        "tp=1,pp=2,dp=1",
        "tp=4,pp=1,dp=1",
        "tp=4,pp=1,dp=1,executor=ray,max_num_seqs=128",
    )
]


def measured(number, layout, ttft_ms, request=REQUEST, failed=0):
    """A trial whose load steps had these TTFTs, in the order of the request's rates; a miss ends it."""
    layout = ParallelLayout.parse(layout) if isinstance(layout, str) else layout
    steps = tuple(
        make_step(LoadStep(i, rate, 1.0, i), request, ms, failed)
        for i, (rate, ms) in enumerate(zip(request.rates_req_per_s, ttft_ms, strict=False))
    )
    complete = len(steps) == len(request.rates_req_per_s)
    return TrialResult(number, layout, TrialState.MEASURED if complete else TrialState.STOPPED, steps)


def crashed(number, layout):
    layout = ParallelLayout.parse(layout) if isinstance(layout, str) else layout
    return TrialResult(number, layout, TrialState.FAILED, failure=FailureReason.ENGINE_CRASHED)


def searching(request=REQUEST, ranked=RANKED):
    return Search(request, ranked, InOrder(ranked))


def drive(search, outcome, launches=100):
    """Layouts proposed, with ``outcome(number, layout)`` told for each."""
    proposed = []
    while len(proposed) < launches and (proposal := search.ask()) is not None:
        proposed.append((str(proposal.layout), proposal.why))
        search.tell(outcome(len(proposed) - 1, proposal.layout))
    return proposed


def test_what_runs_is_not_proposed_again():
    search = searching()
    running = []
    while (proposal := search.ask(running)) is not None:
        running.append(proposal.layout)
    assert sorted(running) == sorted(c.layout for c in RANKED)
    assert len({layout.shape for layout in running[:4]}) == 4


def test_only_what_fits_is_proposed():
    search = searching()
    assert search.ask(fits=lambda layout: layout.devices > 8) is None
    assert search.ask(fits=lambda layout: layout.devices > 2).layout.tp == 4


def test_nothing_is_left_of_an_empty_ranking():
    assert Search(REQUEST, [], None).ask() is None


@pytest.mark.parametrize(
    ("ttft_ms", "failed", "lost"),
    [
        (99.0, 0, None),
        (100.0, 0, None),  # the target itself is met
        (150.0, 0, "the SLO is missed at 4 requests/s (1.50 × the target)"),
        (50.0, 1, "requests failed at 4 requests/s"),
    ],
)
def test_a_missed_step_ends_the_trial(ttft_ms, failed, lost):
    search = searching()
    proposal = search.ask()
    assert search.report(proposal, make_step(LoadStep(0, 4.0, 1.0, 0), REQUEST, ttft_ms, failed)) == lost


def test_a_step_that_holds_after_others_goes_on():
    search = searching()
    proposal = search.ask()
    told = [
        search.report(proposal, make_step(LoadStep(i, 4.0 * (i + 1), 1.0, 0), REQUEST, ms))
        for i, ms in enumerate([20, 60, 130])
    ]
    assert told[:2] == [None, None]
    assert "12 requests/s" in told[2]


def test_a_failed_trial_is_no_slow_trial():
    search = searching()
    proposed = drive(search, lambda n, layout: crashed(n, layout), launches=3)
    assert search.best() == ()
    assert len({layout for layout, _ in proposed}) == 3  # and it is not tried again


def test_larger_layouts_wait_until_a_smaller_one_meets_the_slo():
    request = make_request({"objective": "min_gpus"})
    search = searching(request)
    proposed = drive(search, lambda n, layout: measured(n, layout, [50, 150 if layout.tp == 1 else 90], request))
    launched = [layout for layout, _ in proposed]
    assert launched[0] == "tp=2,pp=1,dp=1"
    assert not [layout for layout in launched if layout.startswith("tp=4")]
    skipped = {str(candidate.layout): why for candidate, why in search.unbeatable()}
    assert set(skipped) == {"tp=4,pp=1,dp=1", "tp=4,pp=1,dp=1,executor=ray,max_num_seqs=128"}
    assert skipped["tp=4,pp=1,dp=1"] == "needs 4 devices; tp=2,pp=1,dp=1 meets the SLO with 2"
    assert set(launched) | set(skipped) == {str(c.layout) for c in RANKED}


@pytest.mark.parametrize("objective", ["max_goodput", "min_latency"])
def test_no_layout_is_skipped_where_devices_do_not_count(objective):
    request = make_request({"objective": objective})
    search = searching(request, RANKED[:4])
    assert len(drive(search, lambda n, layout: measured(n, layout, [50] * 4, request))) == 4
    assert search.unbeatable() == []


def test_nothing_is_skipped_while_the_slo_is_missed():
    request = make_request({"objective": "min_gpus"})
    search = searching(request, RANKED[:4])
    assert len(drive(search, lambda n, layout: measured(n, layout, [150], request))) == 4


@pytest.mark.parametrize("cut", [0, 3, 5])
def test_a_search_that_is_taken_up_proposes_the_same(cut):
    ranked = [RANKED[i] for i in (0, 1, 2, 3, 8)]
    speeds_ms = {c.layout: ms for c, ms in zip(ranked, (30, 20, 25, 70, 40), strict=True)}

    def outcome(number, layout):
        speed_ms = speeds_ms[layout]
        return crashed(number, layout) if speed_ms == 70 else measured(number, layout, [speed_ms] * 4)

    whole = drive(searching(ranked=ranked), outcome)
    first, finished = searching(ranked=ranked), []

    def remembered(number, layout):
        finished.append(outcome(number, layout))
        return finished[-1]

    before = drive(first, remembered, launches=cut)
    assert (first.ask() is None) == (cut == len(ranked))  # asked and never told: the process died
    second = searching(ranked=ranked)
    second.recall(finished)
    assert before + drive(second, lambda number, layout: outcome(number + cut, layout)) == whole


def test_what_a_driver_forgot_it_launches_again():
    search = searching()
    first = search.ask().layout
    search.tell(crashed(0, first))
    assert search.ask().layout != first
    search.recall([])
    assert search.ask().layout == first


def test_a_window_that_says_nothing_ends_nothing():
    step = replace(make_step(LoadStep(0, 4.0, 1.0, 0), REQUEST, 5000), invalid="the client was late")
    assert searching().report(Proposal(RANKED[0].layout, "a test"), step) is None


@pytest.mark.parametrize(
    ("objective", "better", "worse"),
    [
        ("min_gpus", ("tp=1,pp=1,dp=1", [90, 90]), ("tp=2,pp=1,dp=1", [20, 20])),
        ("min_gpus", ("tp=2,pp=1,dp=1", [20, 20]), ("tp=1,pp=1,dp=2", [20, 90])),
        ("min_gpus", ("tp=8,pp=1,dp=1", [90, 90]), ("tp=1,pp=1,dp=1", [20, 101])),
        ("min_cost", ("tp=1,pp=1,dp=1", [90, 90]), ("tp=2,pp=1,dp=1", [20, 20])),
        ("min_latency", ("tp=2,pp=1,dp=1", [20, 20]), ("tp=1,pp=1,dp=1", [20, 90])),
        ("min_latency", ("tp=1,pp=1,dp=1", [20, 20]), ("tp=2,pp=1,dp=1", [20, 20])),
        ("max_goodput", ("tp=2,pp=1,dp=1", [20, 30, 40, 90]), ("tp=1,pp=1,dp=1", [20, 20, 20, 101])),
        ("max_goodput", ("tp=1,pp=1,dp=1", [20, 30, 40]), ("tp=2,pp=1,dp=1", [20, 30, 50])),
        ("min_gpus", ("tp=8,pp=1,dp=1", [90, 300]), ("tp=1,pp=1,dp=1", [101])),  # holds half of the asked rate
        ("min_gpus", ("tp=8,pp=1,dp=1", [110]), ("tp=1,pp=1,dp=1", [120])),
        ("min_gpus", ("tp=1,pp=1,dp=1", [110]), ("tp=8,pp=1,dp=1", [110])),
    ],
)
def test_merit_orders_trials(objective, better, worse):
    request = make_request({"objective": objective})

    def rank(layout, ttft_ms):
        meets, key = meets_and_order(request, measured(0, layout, ttft_ms, request))
        return (not meets, key)

    assert rank(*better) < rank(*worse)


@pytest.mark.parametrize("objective", ["min_gpus", "min_latency"])
def test_latency_counts_at_the_asked_rate(objective):
    request = make_request({"objective": objective, "load.rates_req_per_s": [4, 8, 16]})
    further = meets_and_order(request, measured(0, "tp=2,pp=1,dp=1", [10, 20, 90], request))
    stopped = meets_and_order(request, measured(0, "tp=2,pp=1,dp=1", [10, 30, 110], request))
    assert further[0]
    assert stopped[0]
    assert further[1] < stopped[1]


def test_merit_puts_failed_requests_behind_slow_ones():
    request = make_request()
    slow = meets_and_order(request, measured(0, "tp=1,pp=1,dp=1", [5000], request))
    failing = meets_and_order(request, measured(0, "tp=1,pp=1,dp=1", [20], request, failed=1))
    assert not slow[0]
    assert not failing[0]
    assert slow[1] < failing[1]


def test_slo_ratio_is_the_worst_target():
    request = make_request({"slo.1.ms": 5})
    assert slo_ratio(request, make_step(LoadStep(0, 1.0, 1.0, 0), request, 80)) == pytest.approx(8 / 5)
    assert slo_ratio(request, make_step(LoadStep(0, 1.0, 1.0, 0), request, 40)) == pytest.approx(4 / 5)
