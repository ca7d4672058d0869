"""Simulated engines behind the path to them: what clients see, against the closed form."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from tuner.ask.arrivals import ClosedLoad, OfferedLoad
from tuner.ask.cluster import Cluster
from tuner.ask.device import GPU
from tuner.ask.front import Front
from tuner.ask.front_fits import FrontFit, HopFit
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.request import ClusterSpec, Metric, SloTarget
from tuner.cost.front_path import Path
from tuner.cost.latency import StepCosts
from tuner.simulate import SimulationResult, SimulationSettings, Simulator

HOPS = (
    HopFit("proxy", "node", 2.0, 0.3),
    HopFit("ingress", "ingress", 3.0, 0.4, 0.1),
    HopFit("replica", "engine", 1.0, 0.15),
)
FIT = FrontFit("here", HOPS, idle_ms=10.0, passes=2.0, versions={}, source="made up")
FREE = replace(FIT, idle_ms=0.0, hops=tuple(replace(h, request_ms=0.0, message_ms=0.0, token_ms=0.0) for h in HOPS))
OUTPUT = 64


@cache
def costs() -> StepCosts:
    """Prices of one engine."""
    return StepCosts(
        load_model("meta-llama/Llama-3.1-8B"), Cluster.from_spec(ClusterSpec(gpu="h100_sxm", gpus_per_node=8))
    )
    cluster = Cluster.from_spec(ClusterSpec(gpu="h100_sxm", gpus_per_node=8))
    return StepCosts(load_model("meta-llama/Llama-3.1-8B"), cluster)


def simulator(layout: str, fit: FrontFit | None, cores: float | None = None) -> Simulator:
    """A layout, behind a path of made-up figures or none."""
    one = ParallelLayout.parse(layout)
    path = None if fit is None else Path(fit, Front.of(one, GPU), cores)
    settings = SimulationSettings(gap_limits_ms=(15.0,))
    return Simulator(costs(), one, kv_tokens=400_000, longest_tokens=1024, settings=settings, path=path)


def load(rate_req_per_s: float, requests: int = 400) -> OfferedLoad:
    """Poisson arrivals."""
    offset_s = np.cumsum(np.random.default_rng(3).exponential(1 / rate_req_per_s, requests))
    return OfferedLoad(offset_s, np.full(requests, 512), np.full(requests, OUTPUT))


def mean_ttft_ms(result: SimulationResult) -> float:
    """In ms."""
    return float(result.ttft_ms.mean())


def test_a_path_that_costs_nothing_changes_nothing() -> None:
    own, seen = (simulator("tp=1,dp=2", fit).run(load(20.0)) for fit in (None, FREE))
    assert seen.first_token_s == pytest.approx(own.first_token_s)
    assert seen.end_s == pytest.approx(own.end_s)
    assert seen.tpot_ms == pytest.approx(own.tpot_ms)
    assert (seen.gap_counts == own.gap_counts).all()
    assert (seen.slow_gaps == own.slow_gaps).all()


@pytest.mark.parametrize("layout", ["tp=1", "tp=1,dp=3", "ingress_replicas=1", "stream_interval_ms=40", "dp=2"])
@pytest.mark.parametrize("share", [0.2, 0.55])
def test_simulator_and_closed_form_agree_while_hops_are_not_busy(layout: str, share: float) -> None:
    own = simulator(layout, None).run(load(4.0))
    one = ParallelLayout.parse(layout)
    path = Path(FIT, Front.of(one, GPU))
    rate = min(share * path.saturation(OUTPUT, 8.0)[1], 12.0 * one.dp)
    own, seen = (simulator(layout, fit).run(load(rate)) for fit in (None, FIT))
    said = path.load(rate, OUTPUT, float(own.tpot_ms.mean()))
    closed_ms = float(said.ttft_ms(float(own.ttft_ms.min()), mean_ttft_ms(own)))
    assert mean_ttft_ms(seen) == pytest.approx(closed_ms, rel=0.25)
    assert (seen.ttft_ms >= own.ttft_ms + FIT.idle_ms - 1e-6).all()
    assert float(seen.tpot_ms.mean()) == pytest.approx(float(own.tpot_ms.mean()), rel=0.05)


def test_beyond_saturation_requests_pile_up() -> None:
    path = Path(FIT, Front.of(ParallelLayout(ingress_replicas=1), GPU))
    most = path.saturation(OUTPUT, 8.0)[1]
    below, beyond = (simulator("ingress_replicas=1", FIT).run(load(rate)) for rate in (0.6 * most, 1.4 * most))
    own = float(simulator("ingress_replicas=1", None).run(load(1.4 * most)).e2e_ms.mean())
    late_ms = [float(run.e2e_ms.mean()) - own for run in (below, beyond)]
    assert late_ms[1] > 10 * late_ms[0]
    assert mean_ttft_ms(beyond) > 4 * mean_ttft_ms(below)  # new requests get their turn beside those that wait
    assert float(beyond.tpot_ms.mean()) > float(below.tpot_ms.mean())


@pytest.mark.parametrize("layout", ["ingress_replicas=1", "ingress_replicas=1,stream_interval_ms=10"])
def test_beyond_saturation_the_path_carries_what_it_can(layout: str) -> None:
    """Work that waits is not lost: tokens pass as fast as the fullest loop works, whatever is offered."""
    one = simulator(layout, FIT)
    path = Path(FIT, Front.of(ParallelLayout.parse(layout), GPU))
    most = path.saturation(OUTPUT, 8.0)[1]
    seen = one.run(load(1.5 * most, 600))
    assert len(seen.end_s) / seen.duration_s == pytest.approx(most, rel=0.15)


def test_a_stream_that_waits_lets_new_requests_through() -> None:
    """Of each stream one message a round: answers take long before a new request waits as long for its first."""
    path = Path(FIT, Front.of(ParallelLayout.parse("ingress_replicas=1,stream_interval_ms=10"), GPU))
    rate = 1.5 * path.saturation(OUTPUT, 8.0)[1]
    own, seen = (simulator("ingress_replicas=1,stream_interval_ms=10", fit).run(load(rate)) for fit in (FREE, FIT))
    later_ms = [float(np.mean(of(seen) - of(own))) for of in (lambda run: run.ttft_ms, lambda run: run.e2e_ms)]
    assert 0 < later_ms[0] < later_ms[1] / 2


def test_more_rounds_wait_longer_only_where_others_are_at_work() -> None:
    one, many = (replace(FIT, passes=passes) for passes in (1.0, 12.0))
    quiet, busy = load(0.5, 40), load(16.0)
    once, often = (mean_ttft_ms(simulator("ingress_replicas=1", fit).run(quiet)) for fit in (one, many))
    assert often == pytest.approx(once, rel=0.05)
    once, often = (mean_ttft_ms(simulator("ingress_replicas=1", fit).run(busy)) for fit in (one, many))
    assert often > once + 1.0


def test_an_interval_makes_messages_and_no_figure_better() -> None:
    plain, batched = (simulator(f"stream_interval_ms={ms}", FREE).run(load(5.0)) for ms in (0, 60))
    assert batched.messages is not None
    assert batched.first_tokens is not None
    assert batched.messages.max() < OUTPUT / 3
    assert mean_ttft_ms(batched) > mean_ttft_ms(plain)
    assert float(batched.tpot_ms.mean()) == pytest.approx(float(plain.tpot_ms.mean()), rel=0.03)
    gaps, engine = batched.quantiles(Metric.ITL), plain.quantiles(Metric.ITL)
    assert gaps is not None
    assert engine is not None
    assert gaps.p50_ms == pytest.approx(60, rel=0.02)
    assert gaps.mean_ms > 3 * engine.mean_ms
    target = SloTarget(metric=Metric.ITL, percentile=50, ms=15.0)
    assert plain.attainment([target]) == 1.0
    assert batched.attainment([target]) == 0.0


def test_the_longest_interval_is_no_way_to_a_short_tpot() -> None:
    plain, held = (simulator(f"stream_interval_ms={ms}", FREE).run(load(5.0)) for ms in (0, 60_000))
    assert held.messages is not None
    assert held.first_tokens is not None
    assert set(held.messages.tolist()) == {1}
    assert set(held.first_tokens.tolist()) == {OUTPUT}
    assert float(held.tpot_ms.min()) > 0.95 * float(plain.tpot_ms.min())
    assert held.ttft_ms == pytest.approx(held.e2e_ms)


def test_loops_widen_gaps() -> None:
    own, seen = (simulator("ingress_replicas=1", fit).run(load(14.0)) for fit in (None, FIT))
    before, after = own.quantiles(Metric.ITL), seen.quantiles(Metric.ITL)
    assert before is not None
    assert after is not None
    assert after.p99_ms > before.p99_ms
    assert abs(after.count - before.count) <= before.count // 1000 + 1
    assert seen.slow_gaps.sum() > own.slow_gaps.sum()


def test_users_in_a_closed_loop_send_later_for_the_path() -> None:
    users = ClosedLoad(8, np.full(120, 512), np.full(120, OUTPUT))
    own, seen = (simulator("ingress_replicas=1", fit).run(users) for fit in (None, FIT))
    assert seen.duration_s > own.duration_s
    most = Path(FIT, Front.of(ParallelLayout(ingress_replicas=1), GPU)).saturation(OUTPUT, 8.0)[1]
    assert len(seen.arrival_s) / seen.duration_s < 1.1 * most


def test_few_cores_make_all_hops_slower() -> None:
    enough, two = (simulator("ingress_replicas=1", FIT, cores).run(load(8.0)) for cores in (None, 2.0))
    assert mean_ttft_ms(two) > mean_ttft_ms(enough)
