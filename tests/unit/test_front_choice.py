"""An engine is ranked once, behind the path of the space that suits it best."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.fakes import make_request
from tuner.ask.cluster import requested_cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.request import TuneRequest
from tuner.ask.requested_model import requested_model
from tuner.ask.rules import DropReason
from tuner.ask.space import load_space
from tuner.plan.front_advice import FrontAdvice, front_advice
from tuner.plan.infeasible import infeasible
from tuner.plan.prune import Plan, plan

FRONTS = {"stream_interval_ms": [0, 20, 50], "ingress_replicas": [1, 2]}


def asked(rate_req_per_s: float, **more: object) -> TuneRequest:
    """Llama-8B on one H200."""
    return make_request(
        {
            "model": "meta-llama/Llama-3.1-8B",
            "cluster": {"gpu": "h200_sxm", "gpus_per_node": 1, "nodes": 1},
            "workload.prompt_tokens": 1024,
            "workload.output_tokens": 128,
            "workload.arrival.requests_per_s": rate_req_per_s,
            "slo": [{"metric": "ttft", "percentile": 99, "ms": 400}, {"metric": "tpot", "percentile": 99, "ms": 30}],
            "objective": "min_gpus",
            "space": {"tp": [1], "max_num_seqs": [128, 256]},
            **more,
        }
    )


def planned(request: TuneRequest) -> Plan:
    """Its plan."""
    return plan(request, requested_model(request), requested_cluster(request), load_space(request.space))


def advised(request: TuneRequest, layout: ParallelLayout) -> FrontAdvice:
    """What the path does to a layout."""
    return front_advice(request, requested_model(request), requested_cluster(request), layout)


def test_paths_never_multiply_the_ranking() -> None:
    plain, many = (planned(asked(6.0, space=space)) for space in ({"tp": [1]}, {"tp": [1], **FRONTS}))
    assert len(many.ranked) == len(plain.ranked)
    assert Counter(c.layout.engine for c in many.ranked).most_common(1)[0][1] == 1
    (other,) = [group for group in many.dropped if group.reason is DropReason.OTHER_FRONT]
    assert other.count == 5 * len(many.ranked)
    assert many.candidates == len(many.ranked) + sum(group.count for group in many.dropped)
    assert "worse path" in other.figure


def test_what_both_paths_do_is_said_once() -> None:
    dropped = planned(asked(500.0, space={"tp": [1], **FRONTS}, objective="max_goodput")).dropped
    (other,) = [group for group in dropped if group.reason is DropReason.OTHER_FRONT]
    assert other.figure.count("asked are 64,000") == 1
    assert other.figure.endswith("ingress_replicas=1: the same")


def test_where_the_slo_holds_alike_the_fewest_processes_are_best() -> None:
    best = planned(asked(2.0, space={"tp": [1], **FRONTS})).ranked[0]
    assert best.prediction.meets_slo
    assert (best.layout.ingress_replicas, best.layout.stream_interval_ms) == (1, 0)


@pytest.mark.parametrize("objective", ["min_gpus", "max_goodput", "min_latency"])
def test_a_busy_path_gives_way_to_one_that_holds_the_slo(objective: str) -> None:
    request = asked(18.0, space={"tp": [1], **FRONTS}, objective=objective)
    fixed = asked(18.0, space={"tp": [1], "ingress_replicas": [1]}, objective=objective)
    chosen, one = planned(request).ranked[0], planned(fixed).ranked[0]
    assert not one.prediction.meets_slo
    assert chosen.prediction.meets_slo
    assert chosen.prediction.goodput_req_per_s > one.prediction.goodput_req_per_s


def test_advice_says_what_saturates_and_what_opens_it() -> None:
    request = asked(18.0)
    advice = advised(request, ParallelLayout(ingress_replicas=1))
    assert advice.limit
    assert advice.reach_req_per_s < 18.0 <= advice.engine_req_per_s
    assert advice.opens is not None
    opened = advised(request, advice.opens)
    assert not opened.limit
    assert opened.reach_req_per_s == pytest.approx(advice.opens_req_per_s)
    text = " ".join(advice.lines())
    assert f"the {advice.saturates} saturates at {advice.tokens_per_s:,.0f} tokens/s" in text
    assert "the front door is the limit" in text


def test_an_idle_path_is_no_limit() -> None:
    advice = advised(asked(1.0), ParallelLayout())
    assert not advice.limit
    assert len(advice.lines()) == 1
    assert [hop.name for hop in advice.hops] == ["proxy", "ingress", "replica"]
    assert max(hop.utilisation for hop in advice.hops) < 0.2


@pytest.mark.slow
def test_at_32_requests_the_front_door_of_one_h200_is_the_limit() -> None:
    request = asked(32.0)
    best = planned(request).ranked[0]
    advice = advised(request, best.layout)
    assert not best.prediction.meets_slo
    assert advice.limit
    assert advice.opens is not None
    told = infeasible(request, requested_model(request), load_space(request.space))
    assert [bound.kind for bound in told.bounds if bound.kind == "front"] == ["front"]
    assert "the front door is the limit" in " ".join(told.lines())


@pytest.mark.parametrize(("rate_req_per_s", "useless"), [(32.0, False), (60.0, True)])
def test_more_gpus_are_called_useless_only_where_what_they_share_is_full(rate_req_per_s: float, useless: bool) -> None:
    """At 32 requests/s four engines behind one proxy hold the SLO; at 60 that proxy does not keep up."""
    one = advised(asked(rate_req_per_s), ParallelLayout())
    assert one.limit
    assert ("more GPUs would not" in one.limit_text) == useless
    four = asked(rate_req_per_s, cluster={"gpu": "h200_sxm", "gpus_per_node": 4, "nodes": 1})
    assert (advised(four, ParallelLayout(dp=4)).reach_req_per_s >= rate_req_per_s) == (not useless)
