"""Simulated engines keep the laws of queues and of vLLM's scheduler."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fakes import make_request
from tuner.ask.arrivals import ClosedLoad, OfferedLoad, closed_load, offered
from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.request import ClusterSpec, Metric, SloTarget
from tuner.ask.slo import Verdict, attained
from tuner.cost.breakdown import breakdown
from tuner.cost.front_path import Path
from tuner.cost.latency import StepCosts
from tuner.errors import BadInput
from tuner.simulate import SimulationSettings, Simulator, max_rate, simulate

COSTS = StepCosts(
    load_model("meta-llama/Llama-3.1-8B"),
    Cluster.from_spec(ClusterSpec(gpu="h100_sxm", nodes=2, gpus_per_node=8)),
)
ROOMY = 400_000  # KV tokens
WHOLE = st.integers


def layout(text="tp=1"):
    return ParallelLayout.parse(text)


def load(offsets_s, prompts, outputs, **extra):
    return OfferedLoad(np.asarray(offsets_s, float), np.asarray(prompts), np.asarray(outputs), **extra)


def poisson(rate=8.0, seconds=10.0, seed=0, **changes):
    request = make_request({"workload.prompt_tokens": 512, "workload.output_tokens": 64} | changes)
    return offered(request.workload, rate, seconds, seed)


@st.composite
def loads(draw, most=24):
    count = draw(WHOLE(1, most))
    gaps = draw(st.lists(st.floats(0, 0.3), min_size=count, max_size=count))
    prompts = draw(st.lists(WHOLE(1, 3000), min_size=count, max_size=count))
    outputs = draw(st.lists(WHOLE(1, 120), min_size=count, max_size=count))
    ranks = draw(st.none() | st.lists(WHOLE(0, 2), min_size=count, max_size=count).map(np.array))
    groups = draw(st.none() | st.lists(WHOLE(0, 3), min_size=count, max_size=count).map(np.array))
    return load(np.cumsum(gaps), prompts, outputs, priority=ranks, prefix_group=groups)


@st.composite
def set_ups(draw):
    """(layout, KV tokens, settings), from roomy to so tight that one long request fills the cache."""
    text = draw(st.sampled_from(["tp=1", "tp=1,pp=2", "tp=1,pp=3,dp=2", "tp=1,dp=3", "tp=2,max_num_seqs=4"]))
    chosen = replace(layout(text), max_num_batched_tokens=draw(st.sampled_from([256, 1000, 2048])))
    made = SimulationSettings(
        asynchronous=draw(st.booleans()),
        long_prefill_tokens=draw(st.sampled_from([0, 200])),
        router=draw(st.sampled_from(["round_robin", "power_of_two", "least_loaded", "prefix_aware"])),
        prefix_hit_rate=draw(st.sampled_from([0.0, 0.5])),
        shared_prefix_tokens=draw(st.sampled_from([0, 500])),
        gap_limits_ms=(8.0, 12.0),
    )
    return chosen, draw(st.sampled_from([3200, 6000, ROOMY])), made


# The less urgent stands first and gives way to itself: a step without any request, after which the next must follow.
GIVES_WAY = load([0.0, 0.1], [2900, 270], [120, 60], priority=np.array([1, 0]))
# A shared prefix is evicted in a step of decodes that can be repeated, and another request's copy takes its place.
EVICTED = load(
    [0, 0.01, 0.01, 0.01, 0.01, 0.9], [137, 500, 2500, 1, 1, 2999], [120, 1, 26, 100, 120, 2],
    priority=np.array([1, 0, 0, 0, 0, 1]),
)  # fmt: skip
SMALL = (layout("tp=1,max_num_batched_tokens=256"), 3200)
SYNCHRONOUS = SimulationSettings(asynchronous=False, gap_limits_ms=(8.0, 12.0))
KEPT = replace(SYNCHRONOUS, long_prefill_tokens=200, shared_prefix_tokens=500)

COLUMNS = ("arrival_s", "scheduled_s", "first_token_s", "end_s", "prefill_share", "decode_share", "kv_peak_share")
COUNTS = ("preemptions", "replica", "steps", "slow_gaps")


def assert_same(one, other, rel=1e-9):
    for name in COLUMNS:
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=rel, atol=1e-9, err_msg=name)
    for name in COUNTS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


@pytest.mark.slow
@settings(max_examples=150)
@given(set_up=set_ups(), sent=loads())
@example(set_up=(*SMALL, KEPT), sent=EVICTED)
def test_taking_steps_at_once_changes_nothing(set_up, sent):
    chosen, kv_tokens, made = set_up
    quick = simulate(COSTS, chosen, sent, kv_tokens=kv_tokens, settings=made)
    slow = simulate(COSTS, chosen, sent, kv_tokens=kv_tokens, settings=replace(made, skip=False))
    assert_same(quick, slow)
    assert quick.gap_counts.sum() == slow.gap_counts.sum()
    assert quick.gap_sum_ms == pytest.approx(slow.gap_sum_ms, rel=1e-9)
    assert quick.kv_share == pytest.approx(slow.kv_share, abs=len(sent) * 16 / kv_tokens)  # half-filled blocks


@pytest.mark.slow
@settings(max_examples=150)
@given(set_up=set_ups(), sent=loads())
@example(set_up=(*SMALL, SYNCHRONOUS), sent=GIVES_WAY)
def test_every_request_is_served_once_in_order_of_time(set_up, sent):
    chosen, kv_tokens, made = set_up
    run = simulate(COSTS, chosen, sent, kv_tokens=kv_tokens, settings=made)
    assert (run.arrival_s <= run.scheduled_s).all()
    assert (run.scheduled_s < run.first_token_s).all()
    assert ((run.first_token_s < run.end_s) == (run.output_tokens > 1)).all()
    assert run.gap_counts.sum() == (run.output_tokens - 1).sum()
    assert ((run.replica >= 0) & (run.replica < chosen.dp)).all()
    assert (run.kv_peak_share <= 1).all()
    assert (run.kv_share <= run.kv_peak_share + 1e-9).all()
    assert (run.prefill_share + run.decode_share <= 1 + 1e-9).all()
    again = simulate(COSTS, chosen, sent, kv_tokens=kv_tokens, settings=made)
    assert_same(run, again, rel=0)


def through_front_end_s(run):
    """When each request of one replica reaches its engine: prompts go through the front end one after the other."""
    engine, free_s, ready_s = COSTS.cluster.profile.engine, 0.0, []
    for arrival_s, prompt in zip(run.arrival_s, run.prompt_tokens, strict=True):
        free_s = max(free_s, arrival_s) + engine.prompt_token_us * prompt / 1e6
        ready_s.append(free_s + engine.request_ms / 1e3)
    return ready_s


@pytest.mark.slow
@settings(max_examples=100)
@given(sent=loads(), asynchronous=st.booleans(), kv_tokens=st.sampled_from([3200, ROOMY]))
@example(sent=GIVES_WAY, asynchronous=False, kv_tokens=3200)
def test_an_engine_works_exactly_while_it_has_work(sent, asynchronous, kv_tokens):
    made = SimulationSettings(asynchronous=asynchronous)
    run = simulate(COSTS, layout(), sent, kv_tokens=kv_tokens, settings=made)
    ready_s = through_front_end_s(run)
    spans, busy_s, until = sorted(zip(ready_s, run.end_s, strict=True)), 0.0, -1.0
    for start, end in spans:
        busy_s += max(0.0, end - max(start, until))
        until = max(until, end)
    assert run.utilisation * run.duration_s == pytest.approx(busy_s, rel=1e-6)


@pytest.mark.slow
@settings(max_examples=100)
@given(
    sent=loads(), text=st.sampled_from(["tp=1", "tp=1,pp=2", "tp=1,max_num_seqs=3"]), kv=st.sampled_from([3200, 9000])
)
def test_first_come_first_served_within_a_class(sent, text, kv):
    run = simulate(COSTS, layout(text), sent, kv_tokens=kv)
    ranks = np.zeros(len(sent)) if sent.priority is None else sent.priority
    for rank in np.unique(ranks):
        assert (np.diff(run.scheduled_s[ranks == rank]) >= 0).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("text", ["tp=1", "tp=2,pp=2", "tp=1,dp=2"])
def test_more_load_is_more_latency(text, seed):
    runs = [simulate(COSTS, layout(text), poisson(rate, 200 / rate, seed), kv_tokens=ROOMY) for rate in (2, 8, 20, 60)]
    assert len({len(run.arrival_s) for run in runs}) == 1  # the same requests at another speed
    for quiet, busy in pairwise(runs):
        assert busy.ttft_ms.mean() > quiet.ttft_ms.mean()
        assert busy.e2e_ms.mean() > quiet.e2e_ms.mean()


@pytest.mark.parametrize("text", ["tp=1", "tp=4", "tp=1,pp=2", "tp=2,pp=4", "tp=1,max_num_batched_tokens=256"])
@pytest.mark.parametrize(("prompt", "output"), [(128, 16), (1024, 128), (4000, 300)])
def test_one_request_alone_is_the_closed_form(text, prompt, output):
    changes = {"workload.prompt_tokens": prompt, "workload.output_tokens": output}
    closed = breakdown(COSTS, layout(text), make_request(changes))
    path = Path.of(layout(text), COSTS.cluster)
    run = simulate(COSTS, layout(text), load([0.0], [prompt], [output]), kv_tokens=ROOMY, path=path)
    assert run.ttft_ms[0] == pytest.approx(sum(closed.ttft_ms.values()), rel=0.02)
    assert run.tpot_ms[0] == pytest.approx(sum(closed.tpot_ms.values()), rel=0.01)


def test_a_full_cache_preempts_the_last_and_computes_it_again():
    sent = load(np.arange(12) * 0.01, [900] * 12, [400] * 12)
    run = simulate(COSTS, layout(), sent, kv_tokens=8000)
    assert run.preemptions.sum() > 0
    assert run.kv_peak_share.max() > 0.95
    assert run.preemptions[:3].sum() == 0
    roomy = simulate(COSTS, layout(), sent, kv_tokens=ROOMY)
    assert roomy.preemptions.sum() == 0
    assert roomy.end_s.max() < run.end_s.max()


def test_the_urgent_go_first():
    sent = load(np.linspace(0, 0.2, 40), [800] * 40, [100] * 40, priority=np.tile([1, 0], 20))
    run = simulate(COSTS, layout("tp=1,max_num_seqs=4"), sent, kv_tokens=ROOMY)
    assert run.ttft_ms[1::2].mean() < 0.7 * run.ttft_ms[::2].mean()


def test_a_shared_prefix_is_computed_once_and_kept_once():
    sent = load(np.arange(20) * 0.05, [1200] * 20, [20] * 20)
    alone = simulate(COSTS, layout(), sent, kv_tokens=ROOMY)
    shared = simulate(COSTS, layout(), sent, kv_tokens=ROOMY, settings=SimulationSettings(shared_prefix_tokens=1024))
    assert shared.ttft_ms[0] == alone.ttft_ms[0]
    assert shared.ttft_ms[1:].mean() < 0.8 * alone.ttft_ms[1:].mean()
    assert shared.kv_peak_share[0] < alone.kv_peak_share[0]


def test_a_prefix_that_does_not_stay_must_be_computed_again():
    groups = np.arange(20) % 4
    sent = load(np.arange(20) * 0.5, [1200] * 20, [20] * 20, prefix_group=groups)
    settings_ = SimulationSettings(shared_prefix_tokens=1024)
    roomy = simulate(COSTS, layout(), sent, kv_tokens=ROOMY, settings=settings_)
    tight = simulate(COSTS, layout(), sent, kv_tokens=2400, settings=settings_)
    assert roomy.ttft_ms[4:].max() < tight.ttft_ms[4:].min()


def test_hits_in_the_prefix_cache_shorten_prefill():
    rates = (0.0, 0.3, 0.9)
    load = poisson(rate=4.0, **{"workload.prompt_tokens": 2048})  # short prompts wait for the host's launches instead
    runs = [
        simulate(COSTS, layout(), load, kv_tokens=ROOMY, settings=SimulationSettings(prefix_hit_rate=rate))
        for rate in rates
    ]
    assert runs[0].ttft_ms.mean() > runs[1].ttft_ms.mean() > runs[2].ttft_ms.mean()


@pytest.mark.slow
@settings(max_examples=40)
@given(
    users=WHOLE(1, 20),
    requests=WHOLE(1, 60),
    text=st.sampled_from(["tp=1", "tp=1,pp=2", "tp=1,dp=3"]),
    skip=st.booleans(),
)
def test_a_closed_loop_keeps_its_users_busy(users, requests, text, skip):
    request = make_request({"workload.prompt_tokens": {"mean": 500, "min": 300, "max": 700}})
    sent = closed_load(request.workload, users, requests, seed=1)
    run = simulate(COSTS, layout(text), sent, kv_tokens=ROOMY, settings=SimulationSettings(skip=skip))
    in_flight = [((run.arrival_s <= t) & (run.end_s > t)).sum() for t in run.arrival_s]
    assert max(in_flight) == min(users, requests)
    ends = np.sort(run.end_s)[: max(requests - users, 0)]
    np.testing.assert_allclose(np.sort(run.arrival_s)[users:], ends)


@pytest.mark.parametrize("text", ["tp=1", "tp=1,dp=3"])
def test_a_closed_loop_is_the_same_step_by_step(text):
    request = make_request({"workload.prompt_tokens": {"mean": 500, "min": 300, "max": 700}})
    sent = replace(closed_load(request.workload, 12, 100, seed=3), think_s=0.1)
    runs = [
        simulate(COSTS, layout(text), sent, kv_tokens=ROOMY, settings=SimulationSettings(skip=skip))
        for skip in (True, False)
    ]
    assert_same(*runs)


def test_routers_spread_requests():
    sent, four = poisson(rate=60.0, seconds=20.0), layout("tp=1,dp=4")

    def run(router, **extra):
        return simulate(COSTS, four, sent, kv_tokens=ROOMY, settings=SimulationSettings(router=router, **extra))

    assert np.ptp(np.bincount(run("round_robin").replica)) <= 1
    chosen = np.bincount(run("power_of_two").replica)
    assert np.ptp(chosen) < 0.2 * len(sent)
    assert not np.array_equal(run("power_of_two").replica, run("power_of_two", seed=1).replica)
    assert run("least_loaded").ttft_ms.mean() < run("power_of_two").ttft_ms.mean() * 1.1


def test_prefix_affinity_keeps_a_group_together():
    sent = replace(poisson(rate=10.0, seconds=10.0), prefix_group=None)
    groups = np.arange(len(sent)) % 4
    settings_ = SimulationSettings(router="prefix_aware", shared_prefix_tokens=256)
    run = simulate(COSTS, layout("tp=1,dp=4"), replace(sent, prefix_group=groups), kv_tokens=ROOMY, settings=settings_)
    for group in range(4):
        assert len(set(run.replica[groups == group])) == 1


def test_requests_queue_at_a_serial_front_end():
    sent = load([0.0, 0.0, 0.0, 1.0], [16] * 4, [2] * 4)
    settings_ = SimulationSettings(front_end_ms=20.0, request_ms=5.0)
    run = simulate(COSTS, layout(), sent, kv_tokens=ROOMY, settings=settings_)
    assert run.scheduled_s * 1e3 == pytest.approx([25, 45, 65, 1025], abs=8)  # each at the next step


def test_asynchronous_scheduling_admits_one_step_later():
    sent = load([0.0, 0.5], [512, 512], [400, 4])
    runs = {
        flag: simulate(COSTS, layout(), sent, kv_tokens=ROOMY, settings=SimulationSettings(asynchronous=flag))
        for flag in (True, False)
    }
    step_ms = runs[False].tpot_ms[0]
    assert (runs[True].ttft_ms - runs[False].ttft_ms)[1] == pytest.approx(step_ms, rel=0.1)
    assert runs[True].ttft_ms[0] == runs[False].ttft_ms[0]


SLO = (SloTarget(metric=Metric.TTFT, percentile=99, ms=80), SloTarget(metric=Metric.TPOT, percentile=99, ms=8))


def test_requests_are_judged_as_measured_ones_are():
    run = simulate(COSTS, layout(), poisson(rate=18.0), kv_tokens=ROOMY)
    rows = zip(run.ttft_ms, (run.end_s - run.first_token_s) * 1e3 / (run.output_tokens - 1), strict=True)
    judged = [attained({Metric.TTFT: [ttft], Metric.TPOT: [tpot]}, SLO) for ttft, tpot in rows]
    assert 0 < sum(judged) < len(judged)
    np.testing.assert_array_equal(run.met(SLO), judged)
    assert run.attainment(SLO) == np.mean(judged)
    assert run.goodput_req_per_s(SLO) == pytest.approx(sum(judged) / run.offered_s)


@pytest.mark.parametrize(("percentile", "expected"), [(50, True), (99, False)])
def test_a_slow_gap_counts_against_its_request(percentile, expected):
    """The second request's prefill delays one token of the first."""
    sent = load([0.0, 0.3], [100, 2000], [80, 20])
    target = SloTarget(metric=Metric.ITL, percentile=percentile, ms=20)
    run = simulate(COSTS, layout(), sent, kv_tokens=ROOMY, settings=SimulationSettings(gap_limits_ms=(20.0,)))
    assert run.slow_gaps[0, 0] == 1
    assert run.met([target])[0] == expected
    with pytest.raises(BadInput, match="itl"):
        run.met([SloTarget(metric=Metric.ITL, percentile=50, ms=21)])


def test_percentiles_of_gaps_are_right_to_a_third_of_a_percent():
    run = simulate(COSTS, layout(), load([0.0], [512], [400]), kv_tokens=ROOMY)
    gaps = run.quantiles(Metric.ITL)
    assert gaps.count == 399
    assert gaps.mean_ms == pytest.approx(run.tpot_ms[0], rel=1e-9)
    assert gaps.p50_ms == pytest.approx(run.tpot_ms[0], rel=0.005)
    assert gaps.p50_ms <= gaps.p90_ms <= gaps.p95_ms <= gaps.p99_ms
    with pytest.raises(BadInput):
        run.samples_ms(Metric.ITL)


@pytest.mark.slow
def test_the_interval_of_a_percentile_covers_another_seed():
    intervals = [simulate(COSTS, layout(), poisson(seconds=120.0, seed=s), kv_tokens=ROOMY) for s in range(20)]
    truth = np.median([run.at(Metric.TTFT, 90) for run in intervals])
    bounds = [run.interval_ms(Metric.TTFT, 90) for run in intervals]
    assert sum(low <= truth <= high for low, high in bounds) >= 16
    assert all(high - low < 0.3 * truth for low, high in bounds)
    assert simulate(COSTS, layout(), poisson(seconds=1.0), kv_tokens=ROOMY).interval_ms(Metric.TTFT, 90) is None


def test_the_highest_rate_is_where_the_slo_breaks():
    request = make_request({"workload.prompt_tokens": 512, "workload.output_tokens": 64})
    simulator = Simulator(COSTS, layout(), kv_tokens=ROOMY, longest_tokens=576)
    rate = max_rate(simulator, request.workload, SLO, requests=300, seed=4)
    assert simulator.run(offered(request.workload, rate, 300 / rate, 4)).verdict(SLO) is Verdict.MET
    beyond = rate * 1.05  # beyond the 1 % of the bisection, and beyond what moves single requests past each other
    assert simulator.run(offered(request.workload, beyond, 300 / beyond, 4)).verdict(SLO) is Verdict.MISSED
    hopeless = (SloTarget(metric=Metric.TPOT, percentile=99, ms=1),)
    assert max_rate(simulator, request.workload, hopeless, requests=50) == 0


def test_more_replicas_hold_more():
    request = make_request({"workload.prompt_tokens": 512, "workload.output_tokens": 64})
    one, two = (
        max_rate(
            Simulator(COSTS, layout(f"tp=1,dp={dp}"), kv_tokens=ROOMY, longest_tokens=576),
            request.workload, SLO, requests=300,
        )
        for dp in (1, 2)
    )  # fmt: skip
    assert 1.5 * one < two < 3 * one


@pytest.mark.parametrize(
    ("sent", "kv_tokens", "message"),
    [
        (load([0.0], [1000], [100]), 800, "1100 tokens"),
        (load([], [], []), 800, "no requests"),
    ],
)
def test_what_can_never_be_served_is_refused(sent, kv_tokens, message):
    with pytest.raises(BadInput, match=message):
        simulate(COSTS, layout(), sent, kv_tokens=kv_tokens)


@pytest.mark.parametrize(
    "wrong",
    [{"router": "random"}, {"prefix_hit_rate": 1.0}, {"front_end_ms": -1.0}, {"request_ms": -0.1}, {"seed": -1}],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(BadInput, match=next(iter(wrong))):
        SimulationSettings(**wrong)


def test_closed_loads_need_users():
    with pytest.raises(BadInput, match="users"):
        ClosedLoad(0, np.ones(1, int), np.ones(1, int))
