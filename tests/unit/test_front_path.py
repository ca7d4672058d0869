"""The path to an engine in closed form: queues, saturation, ticks and shared cores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tuner.ask.cluster import Cluster
from tuner.ask.device import CPU, GPU
from tuner.ask.front import Front
from tuner.ask.front_fits import FrontFit, HopFit
from tuner.ask.layout import AXES, ParallelLayout
from tuner.ask.request import ClusterSpec
from tuner.cost.front_cores import saturation, stretches
from tuner.cost.front_path import CORES, Path, Paths
from tuner.cost.front_stream import first_ms, gap_ms, messages, next_tick_ms, seen_tpot_ms

HOPS = (
    HopFit("proxy", "node", 2.0, 0.2),
    HopFit("ingress", "ingress", 3.0, 0.4, 0.1),
    HopFit("replica", "engine", 1.0, 0.1),
)
FIT = FrontFit("here", HOPS, idle_ms=10.0, passes=2.0, versions={}, source="made up")


def path(layout: str = "tp=1", cores: float | None = None, fit: FrontFit = FIT) -> Path:
    """A layout's path, with made-up figures."""
    return Path(fit, Front.of(ParallelLayout.parse(layout), GPU), cores)


LAYOUTS = st.sampled_from(
    ["tp=1", "dp=3", "stream_interval_ms=30", "dp=2,ingress_replicas=1", "ingress_replicas=3,stream_interval_ms=100"]
)
SHARED = st.sampled_from([None, 1.0, 2.0, 3.0, 16.0])


def test_a_layout_that_names_no_path_means_what_is_launched() -> None:
    assert Front.of(ParallelLayout(dp=3), GPU) == Front("ray_serve", 0, 6, 1, 3, "power_of_two")
    assert Front.of(ParallelLayout(dp=3), CPU).ingress_replicas == 1
    named = Front.of(ParallelLayout.parse("dp=2,front=ray_serve,ingress_replicas=4,stream_interval_ms=20"), CPU)
    assert (named.ingress_replicas, named.interval_ms) == (8, 20)
    assert Front.of(ParallelLayout.parse("front=vllm,api_servers=3"), GPU).servers("api_server") == 3


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("serve_mode=grpc", "ray_serve_grpc"),
        ("front=ray_serve,serve_mode=throughput", "ray_serve_throughput"),
        ("front=ray_serve", "ray_serve"),
        ("front=ray_haproxy,serve_mode=grpc", "ray_haproxy"),  # behind it no mode was measured apart
        ("front=ray_direct,serve_mode=grpc", "ray_direct"),
    ],
)
def test_a_mode_of_ray_serve_is_a_path_of_its_own(layout: str, name: str) -> None:
    priced = Path.of(ParallelLayout.parse(layout), Cluster.from_spec(ClusterSpec(gpu="h100_sxm", gpus_per_node=1)))
    assert priced.front.name == priced.fit.name == name


def test_modes_of_ray_serve_carry_more_before_the_same_engine() -> None:
    cluster = Cluster.from_spec(ClusterSpec(gpu="h100_sxm", gpus_per_node=1))
    usual, *modes = (
        Path.of(ParallelLayout(serve_mode=mode, ingress_replicas=1), cluster) for mode in AXES["serve_mode"].words
    )
    for mode in modes:
        assert mode.load(10, 64, 20.0).cores < 0.85 * usual.load(10, 64, 20.0).cores
        assert mode.saturation(64, 20.0)[1] > 1.1 * usual.saturation(64, 20.0)[1]
        assert mode.fit.engine_token_ms == usual.fit.engine_token_ms > 0


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(LAYOUTS, SHARED, st.floats(1, 400), st.floats(1, 60))
def test_waits_grow_with_the_rate_and_are_never_negative(
    layout: str, cores: float | None, output: float, tpot_ms: float
) -> None:
    one = path(layout, cores)
    _, most = one.saturation(output, tpot_ms)
    load = one.load(np.linspace(0.0, most * 1.2, 50), output, tpot_ms)
    waits = load.wait_ms[load.carries]
    assert waits[0] == 0.0
    assert (np.diff(waits) >= -1e-9).all()
    assert (load.idle_ms >= FIT.idle_ms).all()
    assert not load.carries[-1]
    at_ms = load.ttft_ms(40.0, 50.0)
    assert (at_ms >= 50.0 + FIT.idle_ms).all()
    assert (load.ttft_ms(40.0, 50.0, 80.0, 99.0) >= at_ms - 1.0)[load.carries].all()


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(LAYOUTS, SHARED, st.floats(2, 400), st.floats(1, 60))
def test_a_hop_saturates_where_it_is_busy_all_the_time(
    layout: str, cores: float | None, output: float, tpot_ms: float
) -> None:
    one = path(layout, cores)
    name, most = one.saturation(output, tpot_ms)
    at = one.load(most, output, tpot_ms)
    busy = {hop: float(load.utilisation * load.longer) for hop, load in at.hops.items()}
    assert float(at.busiest) == pytest.approx(1.0)
    assert not at.carries
    assert one.load(0.98 * most, output, tpot_ms).carries
    assert max(busy.values()) == pytest.approx(1.0, abs=0.1)
    assert name == CORES or busy[name] == max(busy.values())
    assert name != CORES or cores is not None


def test_a_path_that_costs_nothing_adds_nothing() -> None:
    free = replace(FIT, idle_ms=0.0, hops=tuple(replace(h, request_ms=0, message_ms=0, token_ms=0) for h in HOPS))
    load = path(fit=free).load(np.array([0.0, 1e3, 1e6]), 128, 8.0)
    assert load.ttft_ms(40.0, 50.0).tolist() == [50.0] * 3
    assert load.ttft_ms(40.0, 50.0, 90.0, 99.0).tolist() == [90.0] * 3
    assert path(fit=free).saturation(128, 8.0)[1] == np.inf


def test_more_loops_saturate_later_and_an_interval_spares_messages() -> None:
    one, two = path("ingress_replicas=1"), path("ingress_replicas=2")
    assert one.saturation(128, 8.0)[0] == "ingress"
    assert two.saturation(128, 8.0)[1] > one.saturation(128, 8.0)[1]
    batched = path("ingress_replicas=1,stream_interval_ms=50")
    assert batched.saturation(128, 8.0)[1] > 1.5 * one.saturation(128, 8.0)[1]
    assert batched.load(10.0, 128, 8.0).cores < one.load(10.0, 128, 8.0).cores


def test_several_paths_at_once_are_each_by_itself() -> None:
    named = ["tp=1", "dp=3", "stream_interval_ms=30", "ingress_replicas=1"]
    short = replace(FIT, hops=HOPS[:1], idle_ms=3.0)
    all_ = [*(path(one) for one in named), path(fit=short)]
    rate, tpot = np.array([[5.0, 20.0]]) * np.ones((5, 1)), np.array([[6.0, 9.0]])
    together = Paths(all_, 2).load(rate, 100.0, tpot)
    for place, one in enumerate(all_):
        alone = one.load(rate[place], 100.0, tpot[0])
        assert together.wait_ms[place] == pytest.approx(alone.wait_ms)
        assert together.ttft_ms(30.0, 33.0, 40.0, 90.0)[place] == pytest.approx(alone.ttft_ms(30.0, 33.0, 40.0, 90.0))
        assert together.busiest[place] == pytest.approx(alone.busiest)


def test_devices_that_are_cores_are_shared_with_the_engines() -> None:
    cpu = Cluster.from_spec(ClusterSpec(gpu="cpu", gpus_per_node=2))
    own, shared = Path.of(ParallelLayout(tp=1), cpu), Path.of(ParallelLayout(tp=2), cpu)
    assert (own.cores, own.engine_cores, shared.engine_cores) == (2.0, 1.0, 2.0)
    assert shared.load(1.0, 64, 20.0).idle_ms > own.load(1.0, 64, 20.0).idle_ms
    gpu = Cluster.from_spec(ClusterSpec(gpu="h200_sxm", gpus_per_node=1))
    assert Path.of(ParallelLayout(), gpu).cores is None


ONE, NONE = np.array(1.0), np.array(0.0)


def test_idle_loops_have_what_others_leave() -> None:
    """Three want two cores: each has two thirds of one; of two that want two, each has one."""
    for others, longer in ((2.0, 1.5), (1.0, 1.0), (0.0, 1.0)):
        found = stretches(2, np.array(others), [ONE, ONE], [ONE, ONE], [NONE, NONE])
        assert [float(one) for one in found] == pytest.approx([longer] * 2, abs=1e-3)


def test_cores_saturate_by_what_a_request_takes_of_them() -> None:
    """Two loops of 10 ms on one core carry 50 requests/s; beside an engine that takes a core, less, but not none."""
    for others, most in ((0.0, 50.0), (1.0, 1e3 / 30)):
        found, longer = saturation(1, np.array(others), [ONE, ONE], [ONE, ONE], [10 * ONE, 10 * ONE])
        assert 1e3 * float(found) == pytest.approx(most, rel=1e-3)
        assert float(longer[0]) == pytest.approx(1e3 / most / 10, rel=1e-3)


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(st.floats(0.5, 8), st.floats(0, 4), st.floats(0.05, 0.9), st.integers(1, 3))
@example(7.0, 0.0, 0.875, 2)  # all together never want all cores
def test_more_work_takes_longer_and_more_cores_less(cores: float, others: float, share: float, loops: int) -> None:
    def longer(cores: float, share: float) -> float:
        work = [np.array(share), np.array(share / 2)]
        return float(stretches(cores, np.array(others), [loops * ONE, ONE], [1.5 * ONE, ONE], work)[0])

    assert longer(cores, share) >= longer(cores, share / 2) - 1e-9
    assert longer(cores + 1, share) <= longer(cores, share) + 1e-9
    assert longer(100.0, share) == pytest.approx(1.0, abs=1e-6)


@settings(deadline=None, max_examples=40)
@given(st.floats(0, 200), st.floats(0.1, 100), st.sampled_from([10.0, 50.0, 200.0]))
def test_the_first_tick_comes_after_the_first_token_and_within_an_interval(
    idle_ms: float, wait_ms: float, interval_ms: float
) -> None:
    held = float(first_ms(idle_ms, wait_ms, interval_ms))
    assert idle_ms + wait_ms <= held + 1e-6
    assert held <= idle_ms + wait_ms + interval_ms + 1e-6
    drawn = idle_ms + wait_ms * -np.log1p(-(np.arange(20_000) + 0.5) / 20_000)
    assert held == pytest.approx(float(np.mean(next_tick_ms(drawn, interval_ms))), rel=0.05)


def test_without_an_interval_each_token_is_a_message() -> None:
    assert float(messages(128, 8.0, 0)) == 128
    assert float(messages(128, 8.0, 4)) == 128
    assert float(messages(128, 8.0, 80)) == pytest.approx(1 + 127 / 10)
    assert float(messages(128, 8.0, 1e6)) == pytest.approx(1, abs=0.01)
    assert float(gap_ms(8.0, 128, 0)) == 8.0
    assert float(gap_ms(8.0, 128, 80)) == pytest.approx(80)


def test_holding_an_answer_back_does_not_shorten_its_tokens() -> None:
    assert float(seen_tpot_ms(8.0, 40.0, 25.0, 128)) == 8.0
    assert float(seen_tpot_ms(8.0, 40.0, 900.0, 128)) >= 8.0
