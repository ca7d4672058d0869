"""Why nothing meets an SLO: bounds that no layout passes, and changes that a new plan confirms."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import document
from tuner.app.answers.infeasible import infeasible_answer
from tuner.ask.cluster import requested_cluster
from tuner.ask.model import load_model
from tuner.ask.request import TuneRequest
from tuner.ask.request_document import parse_request
from tuner.ask.space import load_space
from tuner.plan.bounds import Deployments, bounds
from tuner.plan.infeasible import Infeasible, infeasible
from tuner.plan.prune import plan, price_all
from tuner.plan.replica_prices import MARGIN

AXES = {"tp": [1, 2, 4, 8], "pp": [1, 2], "dp": [1, 2, 4, 8], "executor": ["mp", "ray"], "max_num_seqs": [128]}
TWO_NODES = {"gpu": "h100_sxm", "nodes": 2, "gpus_per_node": 4}
SLOW_LINK = {"gpu": "l40s", "nodes": 8, "gpus_per_node": 1, "inter_node_gb_per_s": 0.5}


# Prompts so long that engines are what limits the rate, behind a path that hands on few tokens.
LONG_PROMPTS = {"workload.prompt_tokens": 4096, "workload.output_tokens": 8, "workload.arrival.requests_per_s": 400.0,
                "slo.0.ms": 2000.0, "space": AXES | {"front": ["ray_direct"]}}  # fmt: skip


def asked(changes: dict[str, Any] | None = None) -> TuneRequest:
    return parse_request(document({"space": AXES, **(changes or {})}))


def why(request: TuneRequest, slower: float = 1.0) -> Infeasible:
    return infeasible(request, load_model(request.model), load_space(request.space), slower)


def meets(request: TuneRequest) -> bool:
    found = plan(request, load_model(request.model), requested_cluster(request), load_space(request.space))
    return any(candidate.prediction.meets_slo for candidate in found.ranked)


CASES: dict[str, tuple[dict[str, Any], str, set[str]]] = {
    "a TTFT that one prompt cannot have": ({"slo.0.ms": 2.0}, "ttft", {"slo"}),
    "a TPOT that one sequence cannot have": ({"slo.1.ms": 0.5}, "tpot", {"slo"}),
    "two targets out of reach": ({"slo.0.ms": 2.0, "slo.1.ms": 0.5}, "tpot", {"slo"}),
    "more than eight GPUs carry": (LONG_PROMPTS, "rate", {"rate", "nodes"}),
    "more than a path carries": ({"workload.arrival.requests_per_s": 3000.0}, "front", {"rate"}),
    "two small nodes": (LONG_PROMPTS | {"cluster": TWO_NODES}, "rate", {"rate", "nodes"}),
    "a target and a rate out of reach": (
        {"slo.0.ms": 2.0, "workload.arrival.requests_per_s": 2500.0}, "ttft", {"slo_and_rate"},
    ),
    "weights that do not fit": (
        {"model": "meta-llama/Llama-3.1-70B", "cluster": {"gpu": "h100_sxm", "gpus_per_node": 1}},
        "memory", {"gpus_per_node"},
    ),
    "a slow link": (
        {"model": "meta-llama/Llama-3.1-70B", "cluster": SLOW_LINK, "slo.0.ms": 1000.0,
         "workload.arrival.requests_per_s": 0.5},
        "rate", {"slo", "gpus_per_node", "link"},
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "kind", "told"), CASES.values(), ids=list(CASES))
def test_what_stands_against_it_and_what_would_do(changes, kind, told):
    request = asked(changes)
    assert not meets(request)
    found = why(request)
    assert kind in {bound.kind for bound in found.bounds}
    assert told <= {change.kind for change in found.would_take}
    assert all(bound.text and "inf" not in bound.text and "nan" not in bound.text for bound in found.bounds)
    assert infeasible_answer(found).proven is found.proven
    assert len(found.lines()) == len(found.bounds) + len(found.would_take) + 1


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "kind", "told"), CASES.values(), ids=list(CASES))
def test_each_change_alone_makes_the_plan_feasible(changes, kind, told):
    request = asked(changes)
    for change in why(request).would_take:
        assert meets(changed(request, change)), change.text


def at_rate(request: TuneRequest, requests_per_s: float) -> TuneRequest:
    arrival = request.workload.arrival.model_copy(update={"requests_per_s": requests_per_s})
    return request.model_copy(update={"workload": request.workload.model_copy(update={"arrival": arrival})})


def changed(request: TuneRequest, change: Any) -> TuneRequest:
    """The request with one change made, wide enough for rounding; replicas for the devices that it adds."""
    assert isinstance(request.space, dict)
    wider = {"space": {**request.space, "dp": [2**i for i in range(9)]}}
    if change.rate_req_per_s is not None:
        request = at_rate(request, change.rate_req_per_s)
    if change.kind in ("slo", "slo_and_rate"):
        slo = tuple(
            target.model_copy(update={"ms": (target.ms if change.what == "all" else 1.0) * change.value * (1 + 1e-9)})
            if change.what in ("all", f"{target.metric.value} p{target.percentile:g}") else target
            for target in request.slo
        )  # fmt: skip
        return request.model_copy(update={"slo": slo})
    if change.kind == "rate":
        return at_rate(request, change.value * (1 - 1e-9))
    update: dict[str, Any] = {
        "nodes": {"nodes": int(change.value)},
        "gpus_per_node": {"gpus_per_node": int(change.value)},
        "inter_node_gb_per_s": {"inter_node_gb_per_s": change.value},
        "nvlink_domain": {"nodes": 1, "gpus_per_node": int(change.value)},
    }[change.what if change.kind == "link" else change.kind]
    return request.model_copy(update=wider | {"cluster": request.groups[0].model_copy(update=update)})


@pytest.mark.slow
@settings(max_examples=25)
@given(
    ttft=st.floats(1, 300), tpot=st.floats(0.3, 40), rate=st.floats(0.1, 3000),
)  # fmt: skip
def test_no_layout_passes_a_proven_bound_even_on_the_faster_engine(ttft, tpot, rate):
    """Where a bound is proven, an engine that is faster by the whole margin has no layout either."""
    request = asked({"slo.0.ms": ttft, "slo.1.ms": tpot, "workload.arrival.requests_per_s": rate})
    model, cluster = load_model(request.model), requested_cluster(request)
    _, priced = price_all(request, model, cluster, load_space(request.space))
    found = bounds(request, model, cluster, priced)
    meeting = any(Deployments(request, one, 1 / MARGIN).meeting().any() for one in priced)
    assert not (meeting and any(bound.proven for bound in found))
    assert bool(found) or meeting  # nothing stands against a request only where a faster engine would meet it


@pytest.mark.slow
def test_what_was_measured_corrects_what_it_would_take():
    request = asked({"slo.0.ms": 2.0, "space.front": ["vllm"]})  # a path hardly waits, and its own work is no slower
    modelled, measured = why(request), why(request, slower=2.0)
    assert modelled.bounds == measured.bounds  # the bound stays optimistic
    assert measured.would_take[0].value == pytest.approx(2 * modelled.would_take[0].value, rel=0.1)
    assert "corrected by what was measured (2.00 ×)" in "\n".join(measured.lines())


@pytest.mark.slow
def test_the_best_of_several_gpus_counts():
    several = [{"gpu": "h100_sxm", "gpus_per_node": 4}, {"gpu": "a100_sxm", "gpus_per_node": 4}]
    found = why(asked(LONG_PROMPTS | {"cluster": several}))
    alone = why(asked(LONG_PROMPTS | {"cluster": several[0]}))
    assert found.bounds[0].best == alone.bounds[0].best
    assert found.bounds[0].layout.endswith("gpu=h100_sxm")
    assert {change.what for change in found.would_take if change.kind == "nodes"} >= {"h100_sxm"}


def test_a_layout_that_the_corrected_model_sees_asks_for_launches():
    found = why(asked())
    assert found.bounds == found.would_take == ()
    assert found.expected is not None
    assert "more launches" in found.lines()[-1]
