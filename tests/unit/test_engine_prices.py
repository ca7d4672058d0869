"""What the section ``engine`` does to prices: of steps, of memory, of a plan and of a simulated load."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import make_request
from tuner.app.wiring import memories, plan_request
from tuner.ask.arrivals import OfferedLoad
from tuner.ask.cluster import Cluster
from tuner.ask.engine_settings import Engine
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.request import ClusterSpec, TuneRequest
from tuner.ask.request_document import parse_request
from tuner.ask.rules import DropReason
from tuner.cost.latency import StepCosts, StepShape, total
from tuner.cost.steady import Shapes
from tuner.cost.switches import AS_SHIPPED, EngineSwitches
from tuner.errors import BadInput
from tuner.simulate import SimulationSettings, Simulator

LAYOUT = ParallelLayout(max_num_batched_tokens=8192, max_num_seqs=64)
LLAMA = load_model("meta-llama/Llama-3.1-8B")
CLUSTER = Cluster.from_spec(ClusterSpec(gpu="h100_sxm", gpus_per_node=1))


def asked(engine: dict[str, Any], **changes: Any) -> TuneRequest:
    document = {
        "model": "meta-llama/Llama-3.1-8B",
        "cluster": {"gpu": "h100_sxm", "gpus_per_node": 1},
        "workload": {
            "prompt_tokens": 2048,
            "output_tokens": 128,
            "arrival": {"requests_per_s": 2},
            "shared_prefix_tokens": 1024,
        },
        "slo": [{"metric": "ttft", "percentile": 99, "ms": 2000}],
        "space": {"max_num_batched_tokens": [1024, 8192], "max_num_seqs": [64]},
    }
    return parse_request(document | {"engine": engine} | changes)


SWITCHES = [
    ({}, AS_SHIPPED),
    ({"enforce_eager": True}, EngineSwitches(cuda_graphs=False, custom_ops=True)),
    ({"extra_args": {"optimization_level": 0}}, EngineSwitches(cuda_graphs=False, custom_ops=True)),
    ({"extra_args": {"compilation_config": {"mode": "NONE"}}}, EngineSwitches(cuda_graphs=False, custom_ops=True)),
    ({"extra_args": {"compilation_config": {"cudagraph_mode": "NONE"}}}, EngineSwitches(cuda_graphs=False)),
    ({"extra_args": {"compilation_config": {"cudagraph_mode": "PIECEWISE"}}}, EngineSwitches(full_graphs=False)),
    ({"extra_args": {"compilation_config": {"cudagraph_mode": "FULL_DECODE_ONLY"}}}, EngineSwitches(graph_tokens=0)),
    ({"cudagraph_capture_sizes": [1, 8, 64]}, EngineSwitches(graph_tokens=64, largest_graph=64)),
    ({"max_cudagraph_capture_size": 1024}, EngineSwitches(graph_tokens=1024, largest_graph=1024)),
    ({"async_scheduling": False}, EngineSwitches(asynchronous=False)),
    ({"disable_custom_all_reduce": True}, EngineSwitches(custom_allreduce=False)),
    ({"extra_args": {"tool_call_parser": "hermes"}}, AS_SHIPPED),
]


@pytest.mark.parametrize(("engine", "switches"), SWITCHES)
def test_settings_are_the_switches_that_prices_know(engine: dict[str, Any], switches: EngineSwitches) -> None:
    assert EngineSwitches.asked(asked(engine).engine) == switches


def test_decode_batches_beyond_the_largest_graph_are_launched_kernel_by_kernel() -> None:
    sequences = np.array([8.0, 32.0])
    step = StepShape("decode", np.ones(1), np.full(1, 512.0), sequences)

    def step_ms(**engine: Any) -> Any:
        costs = StepCosts(LLAMA, CLUSTER, switches=EngineSwitches.asked(Engine(**engine)))
        return total(costs.stages(LAYOUT, step)[0])

    shipped, limited = step_ms(), step_ms(max_cudagraph_capture_size=16)
    eager = StepCosts(LLAMA, CLUSTER, switches=EngineSwitches(cuda_graphs=False))
    assert limited[0] == shipped[0]
    assert limited[1] > shipped[1]
    assert limited[1] == total(eager.stages(LAYOUT, step)[0])[1]


@pytest.mark.slow
@pytest.mark.parametrize("largest", [4, 64])
def test_the_simulator_prices_such_batches_as_the_plan_does(largest: int) -> None:
    """Sixteen requests at once, of which each decodes in steps of sixteen: within the graphs, or beyond them."""
    count = 16
    load = OfferedLoad(np.zeros(count), np.full(count, 32), np.full(count, 200))
    tpot = {}
    for name, engine in (("limited", {"max_cudagraph_capture_size": largest}), ("eager", {"enforce_eager": True})):
        settings = asked(engine).engine
        costs = StepCosts(LLAMA, CLUSTER, switches=EngineSwitches.asked(settings))
        simulator = Simulator(costs, LAYOUT, kv_tokens=100_000, longest_tokens=256)
        tpot[name] = float(np.median(simulator.run(load).tpot_ms))
    assert (tpot["limited"] == pytest.approx(tpot["eager"], rel=0.01)) is (largest < count)


def test_eager_engines_hold_no_graphs_and_are_slower() -> None:
    shipped, eager = (plan_request(asked(e))[0].ranked[0].prediction for e in ({}, {"enforce_eager": True}))
    assert eager.idle_tpot_ms > shipped.idle_tpot_ms
    assert eager.kv_tokens > shipped.kv_tokens
    layout = ParallelLayout()
    held = {
        name: memories(asked(engine), [layout])[layout]
        for name, engine in {"no": {}, "yes": {"enforce_eager": True}}.items()
    }
    assert held["yes"].graphs_bytes == 0
    assert held["no"].graphs_bytes


def test_without_prefix_caching_a_shared_prefix_is_computed_each_time() -> None:
    cached, off = asked({}), asked({"enable_prefix_caching": False})
    with_cache, without = (plan_request(one)[0].ranked[0].prediction for one in (cached, off))
    assert without.idle_ttft_ms > 1.3 * with_cache.idle_ttft_ms
    plain = asked({}, workload=cached.workload.model_dump(exclude_none=True) | {"shared_prefix_tokens": 0})
    assert plan_request(plain)[0].ranked[0].prediction == without
    settings = SimulationSettings.for_slo(off.workload, off.slo, engine=off.engine)
    assert settings.shared_prefix_tokens == 0


def test_without_chunked_prefill_a_prompt_is_one_step_and_must_fit() -> None:
    request = asked({"enable_chunked_prefill": False})
    shapes = Shapes.of(request, np.array([1024.0, 8192.0]), 1)
    assert shapes.chunks.tolist() == [1, 1]
    planned = plan_request(request)[0]
    assert {c.layout.max_num_batched_tokens for c in planned.ranked} == {8192}
    drop = next(group for group in planned.dropped if group.reason is DropReason.SCHEDULER)
    assert drop.figure.endswith("max_num_batched_tokens of 2176 tokens, the longest sequence; not 1024")


def test_a_threshold_of_long_prompts_cuts_them() -> None:
    shapes = Shapes.of(asked({"long_prefill_token_threshold": 256}), np.array([8192.0]), 1)
    assert shapes.chunks.tolist() == [4]  # of the 1,024 tokens beyond the shared prefix
    with pytest.raises(BadInput, match="chunked prefill only"):
        asked({"long_prefill_token_threshold": 256, "enable_chunked_prefill": False})


def test_a_sequence_holds_whole_blocks() -> None:
    lengths = {"prompt_tokens": 60, "output_tokens": 5, "arrival": {"requests_per_s": 2}}
    goodput = {}
    for block in (16, 512):
        request = asked({"block_size": block, "kv_cache_gib": 0.5}, workload=lengths)
        goodput[block] = plan_request(request)[0].ranked[0].prediction.goodput_req_per_s
    assert goodput[512] < goodput[16]


@given(st.integers(1, 10_000), st.integers(1, 64).map(lambda n: 16 * n))
def test_held_tokens_are_the_fewest_whole_blocks(tokens: int, block: int) -> None:
    held = Engine(block_size=block).held_tokens(tokens)
    assert held % block == 0
    assert tokens <= held < tokens + block


def test_the_simulator_counts_the_blocks_that_are_asked_for() -> None:
    """A cache of 1,024 tokens holds four requests of 17 tokens in blocks of 256, and all of sixteen in blocks of 16."""
    load = OfferedLoad(np.zeros(16), np.full(16, 14), np.full(16, 3))
    peaks = {}
    for block in (16, 256):
        request = make_request({"engine": {"block_size": block}})
        settings = SimulationSettings.for_slo(request.workload, request.slo, engine=request.engine)
        simulator = Simulator(StepCosts(LLAMA, CLUSTER), LAYOUT, kv_tokens=1024, longest_tokens=256, settings=settings)
        result = simulator.run(load)
        peaks[block] = float(result.end_s.max())
    assert peaks[256] > 2 * peaks[16]


def test_scheduling_as_asked_reaches_the_simulator() -> None:
    request = asked({"async_scheduling": False, "enable_chunked_prefill": False})
    settings = SimulationSettings.for_slo(request.workload, request.slo, engine=request.engine)
    assert (settings.asynchronous, settings.chunked_prefill) == (False, False)
