"""The price of a step adds up, follows the orderings that were measured, and turns into latency under load."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import make_request
from tests.shapes import reshaped
from tuner.ask.cluster import Cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.request import ClusterSpec, Metric
from tuner.ask.rules import illegal
from tuner.cost.breakdown import breakdown
from tuner.cost.collectives import CollectiveModel, CommGroup
from tuner.cost.front_curve import CurveBehind
from tuner.cost.front_path import Path
from tuner.cost.latency import EngineSwitches, StepCosts, StepShape, total
from tuner.cost.steady import BATCHES, Shapes, interpolate, load_curve
from tuner.cost.volume import pass_operations

NAMES = {
    "8B": "meta-llama/Llama-3.1-8B",
    "70B": "meta-llama/Llama-3.1-70B",
    "405B": "meta-llama/Llama-3.1-405B",
    "deepseek": "deepseek-ai/DeepSeek-V3",
    "gpt-oss": "openai/gpt-oss-120b",
    "qwen-moe": "Qwen/Qwen3-235B-A22B-FP8",
}
MODELS = {short: load_model(name) for short, name in NAMES.items()}


def cluster(nodes=2, gpus_per_node=8, gpu="h100_sxm"):
    return Cluster.from_spec(ClusterSpec(gpu=gpu, nodes=nodes, gpus_per_node=gpus_per_node))


COSTS = {short: StepCosts(model, cluster()) for short, model in MODELS.items()}
REQUEST = make_request({"workload.prompt_tokens": 1024, "workload.output_tokens": 128})


def curve(short, layout, request=REQUEST, limits=(2048.0,), costs=None):
    layout = ParallelLayout.parse(layout) if isinstance(layout, str) else layout
    return load_curve(costs or COSTS[short], layout, Shapes.of(request, np.array(limits), layout.pp))


LAYOUTS = [
    ("8B", "tp=1,pp=1,dp=1"),
    ("8B", "tp=8,pp=1,dp=1"),
    ("8B", "tp=2,pp=4,dp=2,executor=ray"),
    ("8B", "tp=1,pp=5,dp=1"),
    ("70B", "tp=16,pp=1,dp=1,executor=ray"),
    ("70B", "tp=8,pp=2,dp=1,executor=ray,max_num_batched_tokens=512"),
    ("405B", "tp=16,pp=1,dp=1,dcp=2,executor=ray"),
    ("deepseek", "tp=8,pp=2,dp=1,executor=ray"),
    ("deepseek", "tp=8,pp=1,dp=2,ep=true,executor=ray"),
    ("deepseek", "tp=1,pp=1,dp=16,ep=true,executor=ray,all2all=deepep_low_latency"),
    ("deepseek", "tp=4,pp=1,dp=1,pcp=4,dcp=4,executor=ray,max_num_batched_tokens=512"),
    ("gpt-oss", "tp=2,pp=1,dp=1"),
    ("qwen-moe", "tp=4,pp=4,dp=1,executor=ray"),
]


@pytest.mark.parametrize(("short", "layout"), LAYOUTS)
def test_a_breakdown_sums_to_the_figure_that_it_explains(short, layout):
    layout = ParallelLayout.parse(layout)
    assert illegal(MODELS[short], layout, cluster()) is None
    split = breakdown(COSTS[short], layout, REQUEST)
    whole = curve(short, layout, limits=(float(layout.max_num_batched_tokens),))
    engine_ms = sum(ms for name, ms in split.ttft_ms.items() if not name.startswith("path: "))
    assert engine_ms == pytest.approx(whole.idle_ttft_ms[0], rel=1e-9)
    path = Path.of(layout, COSTS[short].cluster)
    behind = CurveBehind(whole, [path], [float(layout.dp)], float(REQUEST.workload.output_tokens.mean))
    assert sum(split.ttft_ms.values()) == pytest.approx(behind.idle_ms(Metric.TTFT)[0, 0], rel=1e-9)
    assert sum(split.tpot_ms.values()) == pytest.approx(whole.idle_tpot_ms, rel=1e-9)
    for terms in (split.ttft_ms, split.tpot_ms):
        values = list(terms.values())
        assert values == sorted(values, reverse=True)
        assert min(values) > 0


@pytest.mark.parametrize(
    ("short", "layout", "phase", "terms"),
    [
        ("8B", "tp=1,pp=1,dp=1", "decode", set()),
        ("8B", "tp=1,pp=1,dp=8", "decode", set()),
        ("8B", "tp=2,pp=1,dp=1", "decode", {"allreduce tensor in node", "allgather tensor in node"}),
        ("8B", "tp=1,pp=2,dp=1", "decode", {"send pipeline in node"}),
        ("8B", "tp=16,pp=1,dp=1", "decode", {"allreduce tensor between nodes", "allgather tensor between nodes"}),
        (
            "8B",
            "tp=8,pp=2,dp=1",
            "decode",
            {"allreduce tensor in node", "allgather tensor in node", "send pipeline between nodes"},
        ),
        (
            "deepseek",
            "tp=1,pp=1,dp=16,ep=true",
            "decode",
            {"allgather expert between nodes", "reducescatter expert between nodes"},
        ),
        ("deepseek", "tp=1,pp=1,dp=8,ep=true,all2all=deepep_low_latency", "decode", {"alltoall expert in node"}),
        (
            "405B",
            "tp=16,pp=1,dp=1,dcp=2",
            "decode",
            {
                "allreduce tensor between nodes",
                "allgather tensor between nodes",
                "allgather decode context in node",
                "reducescatter decode context in node",
            },
        ),
        (
            "deepseek",
            "tp=4,pp=1,dp=1,pcp=2",
            "prefill",
            {"allreduce tensor in node", "allgather tensor in node", "allgather prefill context in node"},
        ),
    ],
)
def test_communication_has_a_term_by_group_and_link(short, layout, phase, terms):
    one = np.ones(1)
    step = StepShape(phase, 1024 * one if phase == "prefill" else one, 1024 * one, one)
    stages = COSTS[short].stages(ParallelLayout.parse(layout), step)
    compute = {"gemm", "attention", "experts", "elementwise", "LM head", "sampling", "host"}
    assert {name for stage in stages for name in stage} - compute == terms


@pytest.mark.parametrize(
    ("all2all", "kernels"),
    [("deepep_high_throughput", "deepep_ht"), ("deepep_low_latency", "deepep_ll"), ("flashinfer_all2allv", None)],
)
@pytest.mark.parametrize("nodes", [1, 2])
def test_tokens_go_to_experts_by_the_kernels_of_the_backend(all2all, kernels, nodes):
    """DeepEP's are priced as they were measured, whatever was priced before; other backends by the library."""
    layout = ParallelLayout.parse(f"tp=1,pp=1,dp={8 * nodes},ep=true,all2all={all2all}")
    model, group = COSTS["deepseek"]._collectives, CommGroup(8 * nodes, nodes)
    step = StepShape("decode", np.ones(1), 1024 * np.ones(1), np.array([1.0, 64.0, 512.0]))
    term = f"alltoall expert {'between nodes' if nodes > 1 else 'in node'}"
    found = COSTS["deepseek"].stages(layout, step)[0][term]
    expected = np.zeros(3)
    for sent in pass_operations(MODELS["deepseek"], layout):
        size = sent.message_bytes(1.0, 1.0) * step.tokens
        if kernels is None:
            us = model.latency_us("alltoall", size, group)
        else:
            us = model.exchange_us(kernels, sent.where.removeprefix("expert "), size, group)
        expected += sent.calls * (us + COSTS["deepseek"].cluster.profile.engine.collective_wait_us) / 1e3
    assert found == pytest.approx(expected)


def test_few_tokens_go_sooner_by_low_latency_and_many_by_high_throughput():
    terms = {}
    for all2all in ("deepep_high_throughput", "deepep_low_latency"):
        layout = ParallelLayout.parse(f"tp=1,pp=1,dp=8,ep=true,all2all={all2all}")
        for phase, new in (("decode", 1.0), ("prefill", 8192.0)):
            step = StepShape(phase, np.array([new]), np.array([1024.0]), np.ones(1))
            terms[all2all, phase] = float(COSTS["deepseek"].stages(layout, step)[0]["alltoall expert in node"][0])
    assert terms["deepep_low_latency", "decode"] < terms["deepep_high_throughput", "decode"] / 2
    assert terms["deepep_high_throughput", "prefill"] < terms["deepep_low_latency", "prefill"]


@pytest.mark.parametrize("pp", [1, 2, 3, 8])
@pytest.mark.parametrize("short", ["8B", "deepseek"])
def test_stages_compute_together_what_one_computes_alone(short, pp):
    one = np.ones(1)
    step = StepShape("decode", one, 1024 * one, 4 * one)

    def computed(layout):
        stages = COSTS[short].stages(layout, step)
        return {
            name: sum(float(stage.get(name, np.zeros(1))[0]) for stage in stages)
            for name in ("gemm", "attention", "experts", "elementwise", "LM head", "sampling")
        }

    assert computed(ParallelLayout(pp=pp)) == pytest.approx(computed(ParallelLayout()))


def test_prices_do_not_depend_on_what_was_priced_before():
    shapes = {pp: Shapes.of(REQUEST, np.array([2048.0]), pp) for pp in (1, 2)}
    layouts = [ParallelLayout(tp=t, pp=p) for t in (1, 2, 4) for p in (1, 2)]
    shared = StepCosts(MODELS["8B"], cluster())
    together = {layout: load_curve(shared, layout, shapes[layout.pp]).tpot_ms for layout in layouts}
    for layout in reversed(layouts):
        alone = load_curve(StepCosts(MODELS["8B"], cluster()), layout, shapes[layout.pp]).tpot_ms
        np.testing.assert_array_equal(together[layout], alone)


# The orderings of Xu et al. (arXiv 2507.14392): four GPUs in a node, two nodes, short generations.
OSC = StepCosts(MODELS["8B"], cluster(nodes=2, gpus_per_node=4))
SHORT = make_request({"workload.prompt_tokens": 1024, "workload.output_tokens": 128})


def test_more_tensor_parallelism_never_lengthens_prefill_in_a_node():
    ttft_ms = [curve("8B", f"tp={t},pp=1,dp=1", SHORT, costs=OSC).idle_ttft_ms[0] for t in (1, 2, 4)]
    assert ttft_ms[1] < ttft_ms[0]
    assert ttft_ms[2] <= ttft_ms[1]


def test_tpot_falls_with_tensor_parallelism_in_a_node_and_rises_across_nodes():
    tpot_ms = [curve("8B", f"tp={t},pp=1,dp=1", SHORT, costs=OSC).idle_tpot_ms for t in (1, 2, 4, 8)]
    assert tpot_ms[0] > tpot_ms[1] > tpot_ms[2]
    assert tpot_ms[3] > tpot_ms[2]


def test_every_pipeline_link_adds_latency_and_one_between_nodes_more():
    tpot_ms = [curve("8B", f"tp=1,pp={p},dp=1", SHORT, costs=OSC).idle_tpot_ms for p in (1, 2, 4, 8)]
    assert tpot_ms == sorted(set(tpot_ms))
    one_node = StepCosts(MODELS["8B"], cluster(nodes=1, gpus_per_node=8))
    assert tpot_ms[3] > curve("8B", "tp=1,pp=8,dp=1", SHORT, costs=one_node).idle_tpot_ms


@pytest.mark.slow
@given(
    short=st.sampled_from(["8B", "gpt-oss", "deepseek"]), context=st.integers(1, 100_000), more=st.integers(1, 100_000)
)
def test_longer_contexts_cost_more(short, context, more):
    one = np.ones(1)
    step = StepShape("decode", one, np.array([context, context + more], dtype=float), one)
    (terms,) = COSTS[short].stages(ParallelLayout(), step)
    shorter, longer = total(terms)
    assert longer >= shorter


@pytest.mark.slow
@given(layout=st.sampled_from(["tp=1,pp=1,dp=1", "tp=8,pp=1,dp=1", "tp=4,pp=2,dp=1"]), prompt=st.integers(1, 8192))
def test_twice_the_prompt_takes_longer(layout, prompt):
    one = np.ones(1)
    step = StepShape("prefill", np.array([prompt, 2 * prompt], dtype=float), 0 * one, one)
    for terms in COSTS["70B"].stages(ParallelLayout.parse(layout), step):
        shorter, longer = total(terms)
        assert longer >= shorter * 0.999


def test_a_window_bounds_what_attention_reads():
    one = np.ones(1)
    step = StepShape("decode", one, 100_000 * one, 64 * one)
    whole = reshaped(MODELS["gpt-oss"], attention={"window": None})
    windowed = COSTS["gpt-oss"].stages(ParallelLayout(), step)[0]["attention"]
    full = StepCosts(whole, cluster()).stages(ParallelLayout(), step)[0]["attention"]
    assert 0.4 < float(windowed[0] / full[0]) < 0.6  # half of the layers


CURVES = [curve(short, layout) for short, layout in LAYOUTS]


@pytest.mark.parametrize("found", CURVES, ids=[f"{short} {layout}" for short, layout in LAYOUTS])
def test_a_curve_of_load(found):
    rate = found.rate_req_per_s[0]
    assert np.isfinite(found.tpot_ms).all()
    assert (np.diff(rate) >= 0).all()
    assert ((found.utilisation > 0) & (found.utilisation < 1)).all()
    levels_ms = [found.ttft_ms(level) for level in (50, 90, 99, 99.9)]
    for lower, higher in pairwise([found.idle_ttft_ms[:, None], *levels_ms]):
        assert (lower <= higher + 1e-9).all()
    tails_ms = levels_ms[2]
    assert (found.ttft_ms() <= tails_ms + 1e-9)[:, BATCHES >= 0.25].all()  # below, hardly anyone waits at all
    assert tails_ms[0, 0] == pytest.approx(found.idle_ttft_ms[0], rel=0.01)
    np.testing.assert_allclose(found.at(Metric.E2E, 99, 128), tails_ms + 127 * found.tpot_ms)


def test_littles_law():
    """Sequences in a replica = rate × the time that each stays, from its prefill to its last token."""
    found = curve("8B", "tp=1,pp=1,dp=1")
    busy_ms = found.idle_ttft_ms[0] - COSTS["8B"].cluster.profile.engine.request_ms
    stay_ms = 127 * found.tpot_ms[0] + busy_ms
    np.testing.assert_allclose(found.rate_req_per_s[0] * stay_ms / 1e3, BATCHES, rtol=5e-3)


def test_a_prompt_in_chunks_waits_for_each():
    found = curve("8B", "tp=1,pp=1,dp=1", limits=(256.0, 512.0, 2048.0))
    assert found.idle_ttft_ms.shape == (3,)
    assert found.idle_ttft_ms[0] > found.idle_ttft_ms[1] > found.idle_ttft_ms[2]
    one_by_one = [curve("8B", "tp=1,pp=1,dp=1", limits=(limit,)).idle_ttft_ms[0] for limit in (256.0, 512.0, 2048.0)]
    np.testing.assert_allclose(found.idle_ttft_ms, one_by_one)


def test_a_shared_prefix_is_computed_once():
    whole = make_request({"workload.prompt_tokens": 4096})
    shared = make_request({"workload.prompt_tokens": 4096, "workload.shared_prefix_tokens": 3584})
    assert curve("70B", "tp=8,pp=1,dp=1", shared).idle_ttft_ms < curve("70B", "tp=8,pp=1,dp=1", whole).idle_ttft_ms


def test_interpolation_between_batches():
    rates, values = np.array([[1.0, 2.0, 4.0], [2.0, 4.0, 8.0]]), np.array([[10.0, 20.0, 40.0], [1.0, 3.0, 7.0]])
    found, batch = interpolate(rates, values, 3.0)
    np.testing.assert_allclose(found, [30.0, 2.0])
    np.testing.assert_allclose(batch, [(BATCHES[1] + BATCHES[2]) / 2, (BATCHES[0] + BATCHES[1]) / 2])
    found, batch = interpolate(rates, values, 5.0)
    np.testing.assert_allclose(found, [np.nan, 4.0])  # the first cannot carry it
    assert batch[0] == np.inf
    np.testing.assert_allclose(interpolate(rates, values, 0.5)[0], [10.0, 1.0])


def test_without_custom_allreduce_nccl_carries_every_allreduce_and_nothing_else_changes():
    one, layout = np.ones(1), ParallelLayout(tp=4)
    step = StepShape("decode", one, 1024 * one, one)
    (shipped,), (plain,) = (
        StepCosts(MODELS["8B"], cluster(), switches=switches).stages(layout, step)
        for switches in (EngineSwitches(), EngineSwitches(custom_allreduce=False))
    )
    assert {name for name in shipped if shipped[name] != plain[name]} == {"allreduce tensor in node"}
    group, size = CommGroup(4), np.array([4096 * 2.0])
    model = CollectiveModel.of(cluster().profile)
    nccl_us = model.estimate("allreduce", size, group, algorithm="nccl").latency_us
    more_ms = 65 * (nccl_us - model.latency_us("allreduce", size, group)) / 1e3
    name = "allreduce tensor in node"
    assert plain[name] - shipped[name] == pytest.approx(more_ms)


@pytest.mark.parametrize(("tp", "bound_by_host"), [(1, False), (8, True)])
def test_without_graphs_a_step_takes_as_long_as_the_host_needs_to_launch_it(tp, bound_by_host):
    one, layout = np.ones(1), ParallelLayout(tp=tp)
    step = StepShape("decode", one, 1024 * one, one)
    model = MODELS["8B"] if bound_by_host else MODELS["70B"]
    costs = StepCosts(model, cluster(), switches=EngineSwitches(cuda_graphs=False))
    (terms,) = costs.stages(layout, step)
    _, launch_ms = costs.host_parts("decode", model.layers)
    assert launch_ms > 0
    host = sum(value for name, value in terms.items() if name.startswith("host"))
    on_gpu_ms = float((total(terms) - host)[0])
    assert (on_gpu_ms < launch_ms) is bound_by_host
    assert float(total(terms)[0]) >= max(on_gpu_ms, launch_ms) - 1e-9


def _step_ms(short: str, layout: str, step: StepShape, release: str | None = None, **engine: float) -> float:
    """A step of the only stage, with other engine constants."""
    where = cluster()
    profile = replace(where.profile, engine=replace(where.profile.engine, **engine))
    costs = StepCosts(MODELS[short], replace(where, profile=profile), release)
    return float(total(costs.stages(ParallelLayout.parse(layout), step)[0]).item())


PROMPT = StepShape("prefill", np.full(1, 1024.0), np.zeros(1), np.ones(1))
TOKEN = StepShape("decode", np.ones(1), np.full(1, 1024.0), np.full(1, 4.0))


@pytest.mark.parametrize(("release", "lean"), [("0.17", False), ("0.18", True), ("0.29.1", True), (None, True)])
def test_later_releases_launch_kernels_in_less_host_time(release: str | None, lean: bool) -> None:
    short_prompt = StepShape("prefill", np.full(1, 600.0), np.zeros(1), np.ones(1))
    layout = "tp=8,pp=1,dp=1"
    assert (
        _step_ms("8B", layout, short_prompt, release, lean_launch=0.5)
        < _step_ms("8B", layout, short_prompt, release, lean_launch=1.0)
    ) == lean
    assert _step_ms("8B", layout, TOKEN, release, lean_launch=0.5) == _step_ms("8B", layout, TOKEN, release)


def test_experts_spread_over_devices_wait_for_the_busiest() -> None:
    def slower(layout: str) -> float:
        times = [_step_ms("qwen-moe", layout, TOKEN, expert_spread=factor) for factor in (1.0, 1.2)]
        return times[1] - times[0]

    assert slower("tp=4,pp=1,dp=1") == 0
    assert slower("tp=4,pp=1,dp=1,ep=true") > 0


@pytest.mark.parametrize(
    ("short", "step", "slower"), [("qwen-moe", PROMPT, True), ("qwen-moe", TOKEN, False), ("gpt-oss", PROMPT, False)]
)
def test_only_experts_in_fp8_blocks_quantise_rows_in_steps_with_prompts(
    short: str, step: StepShape, slower: bool
) -> None:
    plain, factor = (_step_ms(short, "tp=1,pp=1,dp=1", step, block_experts=value) for value in (1.0, 2.0))
    assert (factor > plain) == slower


@pytest.mark.parametrize(
    ("layout", "step", "waits"),
    [("tp=4,pp=1,dp=1", PROMPT, True), ("tp=4,pp=1,dp=1", TOKEN, False), ("tp=1,pp=1,dp=1", PROMPT, False)],
)
def test_ranks_wait_longer_at_the_collectives_of_prompts(layout: str, step: StepShape, waits: bool) -> None:
    model = MODELS["8B"]
    added_ms = _step_ms("8B", layout, step, prompt_wait_us=1100) - _step_ms("8B", layout, step, prompt_wait_us=100)
    half_ms = 0.5  # of the wait, with DRIFT_TOKENS
    assert added_ms == pytest.approx(2 * (model.layers + 1) * half_ms * waits)  # two per layer, embedding, logits


@pytest.mark.parametrize(
    ("gpu", "dtype", "fewer"),
    [
        ("b200_sxm", "auto", False),
        ("b200_sxm", "fp8", True),
        ("h100_sxm", "fp8", False),  # its attention writes bf16, whatever the cache
        ("a100_sxm", "fp8", False),
    ],
)
def test_an_fp8_cache_leaves_fewer_small_kernels(gpu: str, dtype: str, fewer: bool) -> None:
    def elementwise_ms(share: float) -> float:
        where = cluster(gpu=gpu)
        profile = replace(where.profile, engine=replace(where.profile.engine, fp8_cache_kernels=share))
        switches = EngineSwitches(kv_cache_dtype=dtype)
        costs = StepCosts(MODELS["8B"], replace(where, profile=profile), None, switches)
        return float(costs.stages(ParallelLayout.parse("tp=1,pp=1,dp=1"), TOKEN)[0]["elementwise"].item())

    assert (elementwise_ms(0.5) < elementwise_ms(1.0)) == fewer
