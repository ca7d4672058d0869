"""The precision of the KV cache as an axis, from the request to the decision: named, priced, held, launched, told."""

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml

from serve.launch.engine import engine_kwargs, serve_app, vllm_args
from tests.fakes import NOTHING_SPENT, make_candidate, make_request, make_step
from tuner.app.answers.model import model_answer
from tuner.app.wiring import plan_request
from tuner.ask.cluster import requested_cluster
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.request_document import parse_request
from tuner.ask.rules import illegal
from tuner.ask.space import SPACES_DIR, load_space
from tuner.cost.latency import StepCosts, StepShape
from tuner.cost.memory import estimate_memory
from tuner.cost.switches import AS_SHIPPED
from tuner.cost.transfer import kv_links
from tuner.decide.decision import decide
from tuner.errors import FailureReason
from tuner.plan.prune import plan
from tuner.search.lessons import doomed
from tuner.trial.results import LoadStep, TrialResult, TrialState

AUTO, FP8 = ParallelLayout(tp=4), ParallelLayout(tp=4, kv_cache_dtype="fp8")
ONE = np.ones(1)
LONG = StepShape("decode", ONE, 32_768 * ONE, 64 * ONE)
PROMPT = StepShape("prefill", 2048 * ONE, 30_720 * ONE, ONE)


def request(**changes):
    return parse_request(
        {
            "model": "meta-llama/Llama-3.1-70B",
            "cluster": {"gpu": "h100_sxm", "nodes": 1, "gpus_per_node": 8},
            "workload": {"prompt_tokens": 16_000, "output_tokens": 512, "arrival": {"requests_per_s": 2}},
            "slo": [{"metric": "ttft", "percentile": 99, "ms": 10_000}, {"metric": "tpot", "percentile": 99, "ms": 60}],
            "objective": "max_goodput",
            "space": {"tp": [4, 8], "kv_cache_dtype": ["auto", "fp8"]},
        }
        | changes
    )


def attention_ms(layout, step):
    asked = request()
    return float(StepCosts(load_model(asked.model), requested_cluster(asked)).stages(layout, step)[0]["attention"][0])


def kv_tokens(layout):
    asked = request()
    limits = (np.array([2048.0]), np.array([256.0]))
    memory = estimate_memory(load_model(asked.model), layout, requested_cluster(asked), asked.engine, *limits)
    return float(memory.kv_tokens[0])


def test_no_shipped_space_trades_answers_for_speed():
    """Who wants an fp8 cache names it."""
    for path in SPACES_DIR.glob("*.yaml"):
        axes = yaml.safe_load(path.read_text(encoding="utf-8"))["axes"]
        assert "kv_cache_dtype" not in axes
        assert load_space(path.stem).values("kv_cache_dtype") == ("auto",)


def test_the_cache_holds_twice_the_tokens():
    assert kv_tokens(FP8) == pytest.approx(2 * kv_tokens(AUTO))


def test_a_pool_hands_over_half_the_bytes():
    model = load_model("meta-llama/Llama-3.1-70B")
    sent = [sum(link.links * link.link_bytes for link in kv_links(model, layout, 1000)) for layout in (AUTO, FP8)]
    assert sent[0] == 2 * sent[1]


def test_attention_over_a_long_context_reads_half_the_bytes():
    assert 0.4 < attention_ms(FP8, LONG) / attention_ms(AUTO, LONG) < 0.9
    assert attention_ms(FP8, PROMPT) != attention_ms(AUTO, PROMPT)


def test_both_are_planned_and_the_wider_cache_carries_more():
    asked = request()
    found = plan(asked, load_model(asked.model), requested_cluster(asked), load_space(asked.space))
    best = {}
    for candidate in found.ranked:
        best.setdefault((candidate.layout.tp, candidate.layout.kv_cache_dtype), candidate.prediction)
    assert found.candidates == 4
    assert best[8, "fp8"].kv_tokens == pytest.approx(2 * best[8, "auto"].kv_tokens, abs=2)
    assert best[8, "fp8"].goodput_req_per_s > best[8, "auto"].goodput_req_per_s


def test_a_device_without_kernels_for_it_drops_it_with_the_figure():
    asked = request(cluster={"gpu": "a100_sxm", "gpus_per_node": 8}, model="deepseek-ai/DeepSeek-V3",
                    space={"tp": [8], "kv_cache_dtype": ["fp8", "auto"]})  # fmt: skip
    found, _ = plan_request(asked)
    (dropped,) = (group for group in found.dropped if group.reason == "kv_cache")
    assert dropped.count == 1
    assert "compute capability 8.9" in dropped.figure


def test_it_is_launched_and_emitted_as_asked():
    asked = request()
    assert "kv_cache_dtype" not in engine_kwargs(AUTO, asked)
    assert engine_kwargs(FP8, asked)["kv_cache_dtype"] == "fp8"
    app = serve_app("app", FP8, asked, model_source="org/model")
    assert json.loads(json.dumps(app))["args"]["llm_configs"][0]["engine_kwargs"]["kv_cache_dtype"] == "fp8"
    words = vllm_args(FP8, asked, model_source="org/model", host="127.0.0.1", port=8000)
    assert words[words.index("--kv-cache-dtype") + 1] == "fp8"


V4 = "deepseek-ai/DeepSeek-V4-Flash"


def test_a_model_that_runs_with_an_fp8_cache_alone_has_one_by_itself():
    """vLLM asserts it of DeepSeek-V4, and would take the model's precision."""
    whole = model_answer(load_model(V4))
    assert whole.kv_cache_dtype == "fp8"
    assert model_answer(load_model("deepseek-ai/DeepSeek-V3")).kv_cache_dtype == "bf16"
    priced = [AS_SHIPPED.on(layout, load_model(V4)) for layout in (AUTO, FP8)]
    assert priced[0] == priced[1]


def test_over_that_cache_no_kernel_takes_over_another_one():
    """On Blackwell attention over other caches in fp8 quantises its output."""
    cluster = requested_cluster(request(cluster={"gpu": "b200_sxm", "gpus_per_node": 8}))
    engine = replace(cluster.profile.engine, fp8_cache_kernels=0.1)
    fewer = replace(cluster, profile=replace(cluster.profile, engine=engine))

    def elementwise_ms(model, cluster):
        return float(StepCosts(load_model(model), cluster).stages(FP8, PROMPT)[0]["elementwise"][0])

    assert elementwise_ms(V4, fewer) == elementwise_ms(V4, cluster)
    assert elementwise_ms("meta-llama/Llama-3.1-70B", fewer) < elementwise_ms("meta-llama/Llama-3.1-70B", cluster)


@pytest.mark.parametrize("layout", [AUTO, FP8])
def test_it_is_launched_with_that_whatever_the_layout_leaves_open(layout):
    asked = request(model=V4, space={"tp": [4]})
    assert engine_kwargs(layout, asked)["kv_cache_dtype"] == "fp8"
    words = vllm_args(layout, asked, model_source=V4, host="127.0.0.1", port=8000)
    assert words[words.index("--kv-cache-dtype") + 1] == "fp8"


@pytest.mark.parametrize(("gpu", "why"), [("a100_sxm", "needs compute capability 9.x"), ("cpu", "no kernel for")])
def test_without_kernels_for_its_attention_nothing_is_said_of_its_cache(gpu, why):
    asked = request(model=V4, cluster={"gpu": gpu, "gpus_per_node": 8})
    drop = illegal(load_model(V4), AUTO, requested_cluster(asked).group(AUTO))
    assert why in drop.figure
    assert "attention" in drop.figure


@pytest.mark.parametrize(("layout", "told"), [(AUTO, False), (FP8, True)])
def test_the_decision_says_that_answers_may_differ(layout, told):
    asked = make_request()
    steps = tuple(make_step(LoadStep(i, rate, 1.0, i), asked, 30) for i, rate in enumerate(asked.rates_req_per_s))
    trials = [TrialResult(0, layout, TrialState.MEASURED, steps)]
    found = decide("s", asked, trials, [make_candidate(layout)], [], NOTHING_SPENT)
    assert ("It stores its KV cache in fp8 (e4m3), so answers may differ" in found.why) == told


def test_what_does_not_fit_in_one_precision_says_nothing_of_the_other():
    failed = TrialResult(0, FP8, TrialState.FAILED, failure=FailureReason.DOES_NOT_FIT)
    assert doomed(AUTO, [failed]) is None
    assert doomed(FP8, [failed]) is not None
