"""A study's request, brought up to date with the load and the cluster that are seen."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.ask.request import TokenLengths
from tuner.ask.request_document import parse_request
from tuner.ask.requested_model import requested_model, require_sequences_fit
from tuner.retune.asked_now import asked_now
from tuner.retune.demand import OUTPUT, PREFIX, PROMPT, RATE, SLOT_S, Demand, LoadRecord
from tuner.retune.notice import Notice, NoticeKind
from tuner.retune.seen import Fingerprint, LinkSeen, Look, NodeSeen, Tokens

DAY_S = 86400.0


def request_of(**changes):
    document = {
        "model": "meta-llama/Llama-3.1-8B",
        "cluster": {"gpu": "h100_sxm", "nodes": 4, "gpus_per_node": 8},
        "workload": {
            "prompt_tokens": {"mean": 1000, "min": 500, "max": 1500},
            "output_tokens": {"mean": 100, "min": 10, "max": 400, "distribution": "lognormal", "sd": 60},
            "arrival": {"requests_per_s": 20.0},
            "shared_prefix_tokens": 200,
        },
        "slo": [{"metric": "ttft", "percentile": 95, "ms": 1000}],
    }
    return parse_request(document | changes)


ASKED = request_of()
AS_ASKED = Demand(20.0, Tokens(1e4, 1000.0, 290.0), Tokens(1e4, 100.0, 60.0), 0.2, whole=True)


def nodes(*gpus, gpu="h100_sxm"):
    return Fingerprint(tuple(NodeSeen(f"n{i}", gpu, count) for i, count in enumerate(gpus)))


def test_what_is_as_it_was_asked_stays_as_it_was_asked():
    found = asked_now(ASKED, replace(AS_ASKED, req_per_s=21.0, prompt=Tokens(1e4, 960.0, 290.0)), nodes(8, 8, 8, 8))
    assert found.request == ASKED
    assert not found.changed
    assert not found.assumed


def test_what_nobody_sees_is_assumed_and_that_is_said():
    found = asked_now(ASKED, Demand(), None)
    assert found.request == ASKED
    assert not found.changed
    assert len(found.assumed) == 3


def test_longer_prompts_scale_their_distribution():
    found = asked_now(ASKED, replace(AS_ASKED, prompt=Tokens(1e4, 4000.0)), None)
    lengths = found.request.workload.prompt_tokens
    assert lengths.mean == pytest.approx(4000, rel=0.03)
    assert lengths.bounds[0] / lengths.mean == pytest.approx(0.5, rel=0.01)
    assert lengths.bounds[1] / lengths.mean == pytest.approx(1.5, rel=0.01)
    assert set(found.changed) == {PROMPT}
    assert "distributed as asked, 4.06 × as long" in found.assumed[0]


def test_a_deviation_that_is_seen_replaces_the_asked_one():
    found = asked_now(ASKED, replace(AS_ASKED, output=Tokens(1e4, 200.0, 150.0)), None)
    assert found.request.workload.output_tokens.sd == 150.0
    assert set(found.changed) == {OUTPUT}


@given(st.floats(1.11, 8.0))
def test_a_rate_is_never_planned_for_with_less_than_was_seen(times):
    planned = asked_now(ASKED, replace(AS_ASKED, req_per_s=20.0 * times), None).request.workload.arrival.requests_per_s
    assert 20.0 * times * 0.997 <= planned <= 20.0 * times * 1.052


def test_a_rate_falls_once_a_week_was_seen():
    less = replace(AS_ASKED, req_per_s=10.0)
    assert asked_now(ASKED, less, None).request.workload.arrival.requests_per_s == pytest.approx(10.0, rel=0.05)
    night = asked_now(ASKED, replace(less, whole=False), None)
    assert night.request == ASKED
    assert "not yet for a week" in night.assumed[0]


def test_rates_that_were_asked_for_rise_with_the_load():
    asked = request_of(load={"rates_req_per_s": [10.0, 20.0]})
    found = asked_now(asked, replace(AS_ASKED, req_per_s=40.0), None).request
    assert found.rates_req_per_s[1] == pytest.approx(found.workload.arrival.requests_per_s)
    assert found.rates_req_per_s[0] == pytest.approx(found.rates_req_per_s[1] / 2)


def test_a_cached_share_is_a_shared_prefix():
    found = asked_now(ASKED, replace(AS_ASKED, prefix_share=0.4), None)
    assert found.request.workload.shared_prefix_tokens == 400
    assert set(found.changed) == {PREFIX}


def test_lengths_of_a_trace_become_a_distribution():
    workload = ASKED.workload.model_dump()
    arrival = {"process": "trace", "trace": "t.csv", "requests_per_s": 20.0}
    recorded = {"sha256": "0" * 64, "requests": 9, "longest_tokens": 3000, "limit_tokens": 8192}
    traced = {"mean": 1000.0, "min": 10, "max": 2500, "distribution": "trace"}
    workload |= {"arrival": arrival | {"recorded": recorded}, "prompt_tokens": traced, "shared_prefix_tokens": 0}
    workload |= {"output_tokens": traced | {"mean": 100.0, "max": 500}}
    asked = ASKED.model_validate(ASKED.model_dump() | {"workload": workload})
    found = asked_now(asked, replace(AS_ASKED, prompt=Tokens(1e4, 2000.0, 900.0), prefix_share=None), None)
    assert found.request.workload.arrival.process == "poisson"
    assert found.request.workload.prompt_tokens.distribution == "lognormal"
    assert any("Poisson" in one for one in found.assumed)


CLUSTERS = {
    "a node less": (nodes(8, 8, 8), (3, 8), {"nodes"}),
    "a node more": (nodes(8, 8, 8, 8, 8), (5, 8), {"nodes"}),
    "a GPU that broke": (nodes(8, 8, 8, 7), (3, 8), {"nodes"}),
    "all nodes with fewer": (nodes(4, 4, 2, 4), (3, 4), {"nodes"}),
    "another kind beside": (Fingerprint((*nodes(8, 8, 8, 8).nodes, NodeSeen("x", "l40s", 8))), (4, 8), set()),
    "nobody sees them": (Fingerprint(None), (4, 8), set()),
}


@pytest.mark.parametrize(("seen", "size", "changed"), CLUSTERS.values(), ids=CLUSTERS)
def test_the_cluster_is_what_is_there(seen, size, changed):
    found = asked_now(ASKED, AS_ASKED, seen)
    assert (found.request.cluster.nodes, found.request.cluster.gpus_per_node) == size
    assert set(found.changed) == changed


def test_without_nodes_there_is_no_request():
    assert asked_now(ASKED, AS_ASKED, nodes(8, gpu="l40s")).request is None


def test_a_group_that_is_gone_leaves_the_other():
    two = [{"gpu": "h100_sxm", "nodes": 1, "gpus_per_node": 8}, {"gpu": "l40s", "nodes": 2, "gpus_per_node": 8}]
    found = asked_now(request_of(cluster=two), AS_ASKED, nodes(8, 8, gpu="l40s")).request
    assert found.cluster.gpu == "l40s"


def test_a_link_counts_by_the_factor_between_two_probes():
    then, now = (Fingerprint(None, {}, {"infiniband_ndr": LinkSeen(5.0, speed)}) for speed in (40.0, 10.0))
    asked = request_of(cluster={"gpu": "h100_sxm", "nodes": 4, "gpus_per_node": 8, "fabric": "infiniband_ndr"})
    found = asked_now(asked, AS_ASKED, now, then)
    assert found.request.cluster.inter_node_gb_per_s == pytest.approx(50.0 / 4)
    assert set(found.changed) == {"link"}
    assert not asked_now(asked, AS_ASKED, now, None).changed  # nobody knows what it was


def test_another_release_is_named():
    then, now = (Fingerprint(None, {"vllm": version}) for version in ("0.28.1", "0.29.0"))
    assert set(asked_now(ASKED, AS_ASKED, now, then).changed) == {"engine"}
    versioned = request_of(engine={"version": "0.28.1"})
    assert asked_now(versioned, AS_ASKED, now, then).request.engine.version == "0.29.0"


WIDTHS = st.integers(1, 2000)
DISTRIBUTIONS = st.one_of(
    st.builds(lambda mean: TokenLengths(mean=mean), st.integers(1, 5000)),
    st.builds(lambda low, wide: TokenLengths(mean=low + wide, min=low, max=low + 2 * wide), *[WIDTHS] * 2),
    st.builds(
        lambda low, wide, kind: TokenLengths(
            mean=low + wide, min=low, max=low + 3 * wide, distribution=kind, sd=float(wide)
        ),
        st.integers(1, 2000), st.integers(1, 1000), st.sampled_from(["normal", "lognormal"]),
    ),
)  # fmt: skip
SEEN = st.one_of(st.none(), st.builds(Tokens, st.just(1e4), st.floats(1, 1e6), st.none() | st.floats(0, 1e5)))


@pytest.mark.slow
@given(DISTRIBUTIONS, DISTRIBUTIONS, SEEN, SEEN, st.none() | st.floats(0.01, 1e4), st.none() | st.floats(0, 1))
def test_whatever_is_seen_makes_a_request_that_the_model_takes(prompt, output, prompts, answers, rate, share):
    asked = ASKED.workload.model_copy(update={"prompt_tokens": prompt, "output_tokens": output})
    asked = asked.model_copy(update={"shared_prefix_tokens": 0})
    request = ASKED.model_copy(update={"workload": asked})
    found = asked_now(request, Demand(rate, prompts, answers, share, whole=True), nodes(8, 8)).request
    require_sequences_fit(found, requested_model(found))
    assert found.cluster.nodes == 2


def looks(rate, begin_s, end_s, each_s=300.0, prompt=1000.0):
    """Looks of a load whose rate is a function of the time."""
    at_s = begin_s
    while at_s < end_s:
        at_s += each_s
        count = rate(at_s) * each_s
        yield Look(at_s, each_s, count, 0.0, prompt=Tokens(count, prompt, 10.0), output=Tokens(count, 100.0, 1.0))


def by_day(at_s):
    """Busy for half of the day."""
    return 20.0 if at_s % DAY_S < DAY_S / 2 else 5.0


def record_of(*parts):
    record = LoadRecord()
    for part in parts:
        for look in part:
            record.add(look)
    return record


def test_a_layout_has_to_carry_the_busiest_hours():
    found = record_of(looks(by_day, 0.0, 1.8 * DAY_S)).demand(1.8 * DAY_S)
    assert found.req_per_s == pytest.approx(20.0)
    assert not found.whole
    assert record_of(looks(by_day, 0.0, 8 * DAY_S)).demand(8 * DAY_S).whole


def test_a_burst_of_minutes_is_no_load_to_plan_for():
    burst = looks(lambda at_s: 60.0 if 40_000 < at_s < 40_600 else 20.0, 0.0, DAY_S)
    assert record_of(burst).demand(DAY_S).req_per_s == pytest.approx(20.0)


def test_a_rate_that_doubled_at_night_will_double_by_day():
    now_s = 7.7 * DAY_S
    record = record_of(looks(by_day, 0.0, now_s), looks(lambda at_s: 2 * by_day(at_s), now_s, now_s + 1800))
    shift = Notice(NoticeKind.WORKLOAD_SHIFT, RATE, "", 1.0, now_s)
    assert record.demand(now_s + 1800).req_per_s == pytest.approx(20.0)
    assert record.demand(now_s + 1800, [shift]).req_per_s == pytest.approx(40.0)


def test_a_rise_that_a_decision_has_heeded_is_not_counted_twice():
    """The next morning is twice that of a week ago as well; the busiest hour of yesterday was so already."""
    now_s, then_s = 7.7 * DAY_S, 8.7 * DAY_S
    record = record_of(looks(by_day, 0.0, now_s), looks(lambda at_s: 2 * by_day(at_s), now_s, now_s + 1800))
    record.heed([Notice(NoticeKind.WORKLOAD_SHIFT, RATE, "", 1.0, now_s)])
    for look in looks(lambda at_s: 2 * by_day(at_s), now_s + 1800, then_s + 1800):
        record.add(look)
    again = Notice(NoticeKind.WORKLOAD_SHIFT, RATE, "", 1.0, then_s)
    assert record.demand(then_s + 1800, [again]).req_per_s == pytest.approx(40.0)


def test_lengths_that_shifted_are_those_since_then():
    now_s = 3 * DAY_S
    record = record_of(looks(by_day, 0.0, now_s), looks(by_day, now_s, now_s + 600, prompt=4000.0))
    shift = Notice(NoticeKind.WORKLOAD_SHIFT, PROMPT, "", 1.0, now_s)
    assert record.demand(now_s + 600).prompt.mean < 1100
    assert record.demand(now_s + 600, [shift]).prompt.mean == pytest.approx(4000.0)


def test_a_week_is_remembered_and_no_more():
    record = record_of(looks(lambda at_s: 90.0, 0.0, SLOT_S * 4), looks(by_day, SLOT_S * 4, 8 * DAY_S))
    assert record.demand(8 * DAY_S).req_per_s == pytest.approx(20.0)
