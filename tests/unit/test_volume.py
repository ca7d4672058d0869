"""What layouts send: the tables and formulas of Xu et al. (arXiv 2507.14392) to the last call and byte, and today's
engine beside them."""

from dataclasses import replace
from itertools import pairwise
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.app.answers.volume import volume_answer
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.cost.paper import paper_volume
from tuner.cost.stages import moe_layers_of, stage_blocks, stage_layers
from tuner.cost.switches import EngineSwitches
from tuner.cost.transfer import kv_links, kv_transfer_bytes
from tuner.cost.volume import (
    Operation,
    expected_destinations,
    pass_operations,
    request_operations,
    system_totals,
)

LLAMA_3B, LLAMA_8B = load_model("meta-llama/Llama-3.2-3B"), load_model("meta-llama/Llama-3.1-8B")
LLAMA_13B, LLAMA_405B = load_model("meta-llama/Llama-2-13b-hf"), load_model("meta-llama/Llama-3.1-405B")
DEEPSEEK, GPT_OSS = load_model("deepseek-ai/DeepSeek-V3"), load_model("openai/gpt-oss-120b")


def rows(model, tp, pp, engine="v0", prompt=128, output=128):
    """(phase, stage, operation) → (calls, shape, message bytes)."""
    layout = ParallelLayout(tp=tp, pp=pp)
    found = request_operations(model, layout, prompt, output, engine)
    assert len({(op.phase, op.stage, op.operation) for op in found}) == len(found)
    return {(op.phase, op.stage, op.operation): (op.calls, op.shape, op.message_bytes) for op in found}


# Tables III and IV: tensor parallelism of the 8B model, prompt and output of 128 tokens, one rank, vLLM V0.
@pytest.mark.parametrize(("tp", "shard"), [(2, 64128), (4, 32064)])
def test_tables_3_and_4_tensor_parallelism(tp, shard):
    assert rows(LLAMA_8B, tp, 1) == {
        ("prefill", 0, "allreduce"): (65, (128, 4096), 1_048_576),
        ("prefill", 0, "gather"): (1, (shard,), 2 * shard),
        ("decode", 0, "allreduce"): (8255, (1, 4096), 8192),
        ("decode", 0, "gather"): (127, (shard,), 2 * shard),
    }


@pytest.mark.parametrize(("model", "prefill"), [(LLAMA_3B, 57), (LLAMA_8B, 65), (LLAMA_13B, 81)])
def test_table_3_allreduces_by_depth(model, prefill):
    found = rows(model, 2, 1)
    assert found["prefill", 0, "allreduce"][0] == prefill == 2 * model.layers + 1
    assert found["decode", 0, "allreduce"][0] == 127 * prefill


# Table V: pipeline parallelism; its counts are summed over the pipeline.
@pytest.mark.parametrize(("pp", "prefill", "decode"), [(2, 2, 254), (4, 6, 762)])
def test_table_5_pipeline_parallelism(pp, prefill, decode):
    found = rows(LLAMA_8B, 1, pp)
    for direction, stages in (("send", range(pp - 1)), ("recv", range(1, pp))):
        assert sum(found["prefill", stage, direction][0] for stage in stages) == prefill
        assert sum(found["decode", stage, direction][0] for stage in stages) == decode
        assert {found["prefill", stage, direction][1:] for stage in stages} == {((128, 4096), 1_048_576)}
        assert {found["decode", stage, direction][1:] for stage in stages} == {((1, 4096), 8192)}
    assert len(found) == 4 * (pp - 1)  # and nothing else is sent


# Table VI: two-way tensor times two-way pipeline parallelism, one TP rank.
def test_table_6_hybrid():
    assert rows(LLAMA_8B, 2, 2) == {
        ("prefill", 0, "allreduce"): (33, (128, 4096), 1_048_576),
        ("prefill", 0, "send"): (2, (128, 2048), 524_288),
        ("prefill", 1, "recv"): (2, (128, 2048), 524_288),
        ("prefill", 1, "allgather"): (2, (128, 4096), 1_048_576),
        ("prefill", 1, "allreduce"): (32, (128, 4096), 1_048_576),
        ("prefill", 1, "gather"): (1, (64128,), 128_256),
        ("decode", 0, "allreduce"): (4191, (1, 4096), 8192),
        ("decode", 0, "send"): (254, (1, 2048), 4096),
        ("decode", 1, "recv"): (254, (1, 2048), 4096),
        ("decode", 1, "allgather"): (254, (1, 4096), 8192),
        ("decode", 1, "allreduce"): (4064, (1, 4096), 8192),
        ("decode", 1, "gather"): (127, (64128,), 128_256),
    }


def test_calls_of_the_whole_system_count_every_rank():
    layout = ParallelLayout(tp=2, pp=2)
    calls, sent_bytes = system_totals(layout, request_operations(LLAMA_8B, layout, 128, 128, "v0"))
    assert calls["prefill"] == {"allreduce": 130, "send": 4, "recv": 4, "allgather": 4, "gather": 2}
    assert calls["decode"] == {"allreduce": 16510, "send": 508, "recv": 508, "allgather": 508, "gather": 254}
    passed = 255 * 4096 * 2  # tokens through the layers × hidden × bytes
    links = 2 * 2 * passed // 2 + 2 * 2 * passed // 2  # slices sent by both ranks, then gathered by both
    assert sent_bytes == 2 * 65 * passed + links + 128 * 128256 * 2 // 2


@pytest.mark.parametrize(("t", "v_tp_bytes"), [(2, 152_199_168), (4, 211_881_984)])
def test_worked_v_tp(t, v_tp_bytes):
    assert paper_volume(LLAMA_8B, t, 1, 128, 128).v_tp_bytes == v_tp_bytes


@pytest.mark.parametrize(("p", "v_pp_bytes"), [(1, 0), (2, 4_177_920), (4, 12_533_760)])
def test_worked_v_pp(p, v_pp_bytes):
    assert paper_volume(LLAMA_8B, 1, p, 128, 128).v_pp_bytes == v_pp_bytes


def test_worked_v_hybrid():
    answer = volume_answer(LLAMA_8B, ParallelLayout(tp=2, pp=2), 128, 128, "v0")
    assert dict(answer.paper.v_hybrid_bytes) == {
        "allreduce": 66_846_720,
        "allgather": 2_088_960,
        "gather": 16_416_768,
        "p2p": 2_088_960,
        "total": 87_441_408,
        "stage0_embedding_allreduce": 255 * 4096 * 2,
    }


def test_the_formula_keeps_its_literal_value_where_nothing_is_sent():
    assert paper_volume(LLAMA_8B, 1, 1, 128, 128).v_tp_bytes == 32_833_536
    assert request_operations(LLAMA_8B, ParallelLayout(), 128, 128, "v0") == ()
    assert request_operations(LLAMA_8B, ParallelLayout(dp=8), 128, 128) == ()


TP, PP = st.sampled_from([1, 2, 4, 8]), st.integers(1, 8)
TOKENS = st.integers(1, 4096)
MODELS = st.sampled_from([LLAMA_3B, LLAMA_8B, LLAMA_13B])


@given(model=MODELS, t=st.sampled_from([2, 4, 8]), prompt=TOKENS, output=TOKENS)
def test_v_tp_is_what_one_rank_sends(model, t, prompt, output):
    found = request_operations(model, ParallelLayout(tp=t), prompt, output, "v0")
    reduced = sum(op.sent_bytes_per_rank for op in found if op.operation == "allreduce")
    gathered = sum(op.calls * op.message_bytes for op in found if op.operation == "gather")
    assert reduced + gathered == paper_volume(model, t, 1, prompt, output).v_tp_bytes


@given(model=MODELS, p=PP, prompt=TOKENS, output=TOKENS)
def test_v_pp_is_what_all_stages_send(model, p, prompt, output):
    found = request_operations(model, ParallelLayout(pp=p), prompt, output, "v0")
    assert sum(op.sent_bytes_per_rank for op in found) == paper_volume(model, 1, p, prompt, output).v_pp_bytes


@pytest.mark.slow
@given(t=st.sampled_from([2, 4, 8]), p=st.sampled_from([2, 4, 8]), prompt=TOKENS, output=TOKENS)
def test_v_hybrid_mixes_the_scopes_that_its_terms_have(t, p, prompt, output):
    found = request_operations(LLAMA_8B, ParallelLayout(tp=t, pp=p), prompt, output, "v0")
    paper = paper_volume(LLAMA_8B, t, p, prompt, output)

    def sent(operation, stages):
        return sum(op.sent_bytes_per_rank for op in found if op.operation == operation and op.stage in stages)

    assert sent("allreduce", [p - 1]) == pytest.approx(paper.hybrid_allreduce_bytes, rel=1e-12)  # one stage
    assert sent("allreduce", [0]) == pytest.approx(
        paper.hybrid_allreduce_bytes + paper.stage0_embedding_allreduce_bytes, rel=1e-12
    )
    assert sent("allgather", range(p)) == pytest.approx(paper.hybrid_allgather_bytes, rel=1e-12)  # all stages
    assert sent("send", range(p)) == pytest.approx(paper.hybrid_p2p_bytes, rel=1e-12)
    gathered = sum(op.calls * op.message_bytes for op in found if op.operation == "gather")
    assert gathered == paper.hybrid_gather_bytes


@given(tp=TP, pp=PP, prompt=TOKENS, output=TOKENS, engine=st.sampled_from(["v0", "v1"]))
def test_bytes_sent_are_bytes_received(tp, pp, prompt, output, engine):
    found = request_operations(LLAMA_8B, ParallelLayout(tp=tp, pp=pp), prompt, output, engine)
    messages = {"send": [], "recv": []}
    for op in found:
        if op.operation in messages:
            link = op.stage + (op.operation == "send")
            messages[op.operation].append((op.phase, link, op.calls, op.shape, op.message_bytes))
    assert sorted(messages["send"]) == sorted(messages["recv"])


@given(tp=TP, pp=PP)
def test_stages_do_together_what_one_stage_does_alone(tp, pp):
    def reductions(layout):
        found = pass_operations(LLAMA_8B, layout)
        return sum(op.calls for op in found if op.operation == "allreduce")

    assert reductions(ParallelLayout(tp=tp, pp=pp)) == reductions(ParallelLayout(tp=tp)) == (65 if tp > 1 else 0)


@given(tp=TP, pp=PP, a=TOKENS, b=TOKENS)
def test_prefill_is_linear_in_tokens(tp, pp, a, b):
    def sent(prompt):
        found = request_operations(LLAMA_8B, ParallelLayout(tp=tp, pp=pp), prompt, 1)
        return sum(op.sent_bytes_per_rank for op in found if "logits" not in op.where)

    assert sent(a) + sent(b) == pytest.approx(sent(a + b), rel=1e-12)


@given(tp=TP, pp=PP, prompt=TOKENS, output=TOKENS)
def test_every_further_token_costs_one_decode_pass(tp, pp, prompt, output):
    def calls(output_tokens):
        found = request_operations(LLAMA_8B, ParallelLayout(tp=tp, pp=pp), prompt, output_tokens)
        return sum(op.calls for op in found)

    assert calls(output + 1) - calls(output) == sum(
        op.calls for op in pass_operations(LLAMA_8B, ParallelLayout(tp=tp, pp=pp))
    )


def test_one_output_token_has_no_decode():
    found = rows(LLAMA_8B, 2, 2, output=1)
    assert {phase for phase, _, _ in found} == {"prefill"}
    assert found["prefill", 1, "gather"][0] == 1


# vLLM's get_pp_indices: the remainder goes to the last stages but one, counted backwards.
@pytest.mark.parametrize(
    ("layers", "stages", "split"),
    [
        (32, 1, (32,)),
        (32, 4, (8, 8, 8, 8)),
        (32, 3, (11, 11, 10)),
        (32, 5, (6, 6, 7, 7, 6)),
        (61, 4, (15, 15, 16, 15)),
        (126, 8, (15, 16, 16, 16, 16, 16, 16, 15)),
        (3, 2, (2, 1)),
        (7, 4, (2, 2, 2, 1)),
        (4, 4, (1, 1, 1, 1)),
    ],
)
def test_uneven_stages(layers, stages, split):
    assert stage_layers(layers, stages) == split


@given(layers=st.integers(1, 200), data=st.data())
def test_stages_hold_all_layers_and_differ_by_one(layers, data):
    split = stage_layers(layers, data.draw(st.integers(1, layers)))
    assert sum(split) == layers
    assert max(split) - min(split) <= 1
    assert split[-1] == min(split)


def stage_moe_layers(model, stages):
    return tuple(moe_layers_of(blocks) for blocks in stage_blocks(model, stages))


def test_dense_layers_come_first():
    assert stage_moe_layers(DEEPSEEK, 4) == (12, 15, 16, 15)  # 3 of 61 layers are dense
    assert stage_moe_layers(LLAMA_8B, 2) == (0, 0)
    assert sum(stage_moe_layers(DEEPSEEK, 61)) == 58
    assert stage_moe_layers(DEEPSEEK, 61)[:4] == (0, 0, 0, 1)


def test_uneven_stages_reduce_their_own_layers():
    found = rows(LLAMA_8B, 2, 3)
    assert [found["prefill", stage, "allreduce"][0] for stage in range(3)] == [2 * 11 + 1, 22, 20]


def test_the_engine_of_today_gathers_whole_logits_on_every_rank():
    found = rows(LLAMA_8B, 2, 1, engine="v1")
    assert found["prefill", 0, "allgather"] == (1, (1, 128256), 256_512)
    assert found["decode", 0, "allgather"] == (127, (1, 128256), 256_512)
    unpadded = replace(LLAMA_8B, vocab=128_200)
    assert rows(unpadded, 2, 1, engine="v1")["prefill", 0, "allgather"][1] == (1, 128256)


def test_a_link_that_cannot_be_sliced_sends_the_whole_tensor():
    found = rows(replace(LLAMA_8B, hidden=4098), 4, 2)
    assert found["prefill", 0, "send"] == (2, (128, 4098), 128 * 4098 * 2)
    assert ("prefill", 1, "allgather") not in found


def test_a_model_that_hands_on_hidden_states_alone_sends_one_tensor():
    assert rows(replace(LLAMA_8B, pipeline_tensors=1), 1, 2)["prefill", 0, "send"][0] == 1


def by_purpose(model, layout, phase="decode", tokens=64):
    """where → (operation, group, ranks, calls, bytes that one rank sends per call), for a pass of ``tokens`` tokens."""
    found = {}
    for op in pass_operations(model, ParallelLayout.parse(layout)):
        if op.phase in (None, phase):
            size = op.message_bytes(tokens, 1)
            sent = Operation(phase, op.stage, op.operation, op.group, op.ranks, 1, (1,), size, "").sent_bytes_per_rank
            assert op.where not in found
            found[op.where] = (op.operation, op.group, op.ranks, op.calls, sent)
    return found


N, H, K, MOE = 64, 7168, 8, 58  # tokens, hidden size, experts per token and MoE layers of DeepSeek-V3


def test_experts_in_their_tensor_parallel_group_cost_one_allreduce():
    found = by_purpose(DEEPSEEK, "tp=8,pp=1,dp=1,ep=true")
    ring = N * H * 2 * 2 * 7 / 8
    assert found["attention output"] == ("allreduce", "tp", 8, 61, ring)
    assert found["MLP output"] == ("allreduce", "tp", 8, 61, ring)
    assert found == by_purpose(DEEPSEEK, "tp=8,pp=1,dp=1")


def test_allgather_and_reducescatter_over_data_parallel_ranks():
    found = by_purpose(DEEPSEEK, "tp=1,pp=1,dp=8,ep=true")
    assert found == {
        "expert dispatch": ("allgather", "ep", 8, MOE, 7 * N * (H * 2 + 4 * K + 4 * K)),
        "expert combine": ("reducescatter", "ep", 8, MOE, 7 * N * H * 2),
    }


def test_sequence_parallel_experts_cut_tokens_by_tensor_parallel_rank():
    found = by_purpose(DEEPSEEK, "tp=8,pp=1,dp=2,ep=true,executor=ray")
    assert found["expert dispatch"] == ("allgather", "ep", 16, MOE, 15 * N / 8 * (H * 2 + 8 * K))
    assert found["expert combine"] == ("reducescatter", "ep", 16, MOE, 15 * N / 8 * H * 2)
    assert found["MoE sequence gather"] == ("allgather", "tp", 8, MOE, N * H * 2 * 7 / 8)
    assert found["MLP output"] == ("allreduce", "tp", 8, 3, N * H * 2 * 2 * 7 / 8)  # the dense layers alone
    assert found["attention output"][3] == 61


def test_deepep_low_latency_sends_a_copy_per_expert():
    found = by_purpose(DEEPSEEK, "tp=1,pp=1,dp=64,ep=true,all2all=deepep_low_latency")
    assert found["expert dispatch"] == ("alltoall", "ep", 64, MOE, N * K * (H + 4 * H / 128))
    assert found["expert combine"] == ("alltoall", "ep", 64, MOE, N * K * H * 2)


@pytest.mark.parametrize("backend", ["deepep_high_throughput", "flashinfer_all2allv"])
def test_deepep_high_throughput_sends_a_copy_per_rank(backend):
    found = by_purpose(DEEPSEEK, f"tp=1,pp=1,dp=32,ep=true,all2all={backend}")
    copies = expected_destinations(256, 8, 32)
    missed = prod((248 - chosen) / (256 - chosen) for chosen in range(8))  # no expert of 8 is among a rank's 8
    assert copies == pytest.approx(32 * (1 - missed))
    assert found["expert dispatch"][4] == pytest.approx(N * copies * H * 2)
    assert found["expert combine"][4] == pytest.approx(N * copies * H * 2)


@pytest.mark.parametrize(
    ("experts", "topk", "ranks", "expected"),
    [(256, 8, 1, 1.0), (256, 1, 32, 1.0), (8, 2, 8, 2.0), (4, 2, 2, 2 * (1 - 1 / 6)), (256, 256, 16, 16.0)],
)
def test_expected_destinations(experts, topk, ranks, expected):
    assert expected_destinations(experts, topk, ranks) == pytest.approx(expected)


@given(ranks=st.sampled_from([1, 2, 4, 8, 16, 32, 64, 128, 256]), topk=st.integers(1, 16))
def test_destinations_are_at_most_the_experts_chosen_and_the_ranks(ranks, topk):
    found = expected_destinations(256, topk, ranks)
    assert found >= 1 - 1e-9
    assert found <= min(ranks, topk) + 1e-9


def test_decode_context_parallelism():
    found = by_purpose(LLAMA_405B, "tp=16,pp=1,dp=1,dcp=2,executor=ray")
    heads = 128 // 16
    assert found["query heads"] == ("allgather", "dcp", 2, 126, N * heads * 128 * 2)
    assert found["softmax sums"] == ("allgather", "dcp", 2, 126, N * heads * 4)
    assert found["attention partials"] == ("reducescatter", "dcp", 2, 126, N * heads * 128 * 2)
    assert "query heads" not in by_purpose(LLAMA_405B, "tp=16,pp=1,dp=1,dcp=2,executor=ray", phase="prefill")


def test_decode_context_parallelism_over_a_latent_cache():
    found = by_purpose(DEEPSEEK, "tp=8,pp=1,dp=1,dcp=8")
    assert found["query heads"] == ("allgather", "dcp", 8, 61, 7 * N * 16 * (512 + 64) * 2)
    assert found["attention partials"] == ("reducescatter", "dcp", 8, 61, 7 * N * 16 * 512 * 2)


def test_prefill_context_parallelism_gathers_the_latent_cache():
    found = by_purpose(DEEPSEEK, "tp=4,pp=1,dp=1,pcp=2", phase="prefill")
    assert found["KV of new tokens"] == ("allgather", "pcp", 2, 61, N * (512 + 64) * 2)
    assert "KV of new tokens" not in by_purpose(DEEPSEEK, "tp=4,pp=1,dp=1,pcp=2", phase="decode")


@pytest.mark.parametrize(
    ("model", "prompt_tokens", "kv_bytes"),
    [
        (LLAMA_8B, 1000, 1000 * 32 * 2 * 8 * 128 * 2),
        (DEEPSEEK, 1000, 1000 * 61 * 576 * 2),
        (GPT_OSS, 100, 100 * 36 * 2 * 8 * 64 * 2),
        (GPT_OSS, 1000, (18 * 1000 + 18 * 128) * 2 * 8 * 64 * 2),  # windowed layers hand over their window
    ],
)
def test_kv_cache_handed_from_prefill_to_decode(model, prompt_tokens, kv_bytes):
    layout, in_fp8 = ParallelLayout(), EngineSwitches(kv_cache_dtype="fp8")
    assert kv_transfer_bytes(model, layout, prompt_tokens) == kv_bytes
    assert kv_transfer_bytes(model, layout, prompt_tokens, in_fp8) == kv_bytes / 2


@given(tp=TP, pp=PP, prompt_tokens=st.integers(1, 4096))
def test_links_carry_the_cache_and_its_copies(tp, pp, prompt_tokens):
    links = kv_links(LLAMA_8B, ParallelLayout(tp=tp, pp=pp), prompt_tokens)
    copies = max(1, tp / LLAMA_8B.kv_heads)
    whole = kv_transfer_bytes(LLAMA_8B, ParallelLayout(tp=tp, pp=pp), prompt_tokens)
    assert [link.stage for link in links] == list(range(pp))
    assert sum(link.links * link.link_bytes for link in links) == pytest.approx(whole * copies, abs=tp * pp)


@pytest.mark.parametrize("tp", [1, 8])
def test_every_rank_hands_over_the_whole_latent_cache(tp):
    (link,) = kv_links(DEEPSEEK, ParallelLayout(tp=tp), 1000)
    assert (link.links, link.link_bytes) == (tp, 61 * 576 * 2 * 1000)


@given(tp=TP, pp=PP)
def test_stages_are_listed_in_order(tp, pp):
    stages = [op.stage for op in pass_operations(LLAMA_8B, ParallelLayout(tp=tp, pp=pp))]
    assert all(a <= b for a, b in pairwise(stages))
