"""Messages of rarer layers: mixers side by side, parts that every rank has, experts of another width."""

import pytest

from tuner.ask.layout import ParallelLayout
from tuner.ask.model import load_model
from tuner.ask.models.attention import Attention
from tuner.ask.models.beside import Beside
from tuner.ask.models.blocks import Block, Experts, Mlp
from tuner.ask.models.factorized import FactorizedAttention
from tuner.ask.models.recurrent import Mamba2
from tuner.cost.transfer import kv_links
from tuner.cost.volume import pass_operations

LLAMA = load_model("meta-llama/Llama-3.1-8B")
ULTRA = load_model("nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16")
NEXT = load_model("Qwen/Qwen3-Next-80B-A3B-Instruct")
HEADS = Attention(heads=32, kv_heads=2, head_dim=128)
SPACE = Mamba2(heads=32, head_dim=64, groups=1, state_size=128, conv=4)
MLP = Mlp(inter=1024)


def sent(model, layout):
    """where → (calls, elements of a token), of all phases."""
    return {op.where: (op.calls, op.columns) for op in pass_operations(model, ParallelLayout.parse(layout))}


def of_one_block(block, layers=4):
    return LLAMA.with_layers({block: layers})


def test_mixers_side_by_side_reduce_each_and_their_parts_send_what_they_would_alone():
    found = sent(of_one_block(Block(mixer=Beside(mixers=(HEADS, SPACE)), mlp=MLP)), "tp=4,pp=1,dp=1,dcp=2")
    assert found["attention output"][0] == 8
    assert found["state space norm"][0] == 4
    assert found["query heads"] == (4, 2 * 8 * 128)


@pytest.mark.parametrize(
    ("attention", "mlp", "reductions"), [(False, False, (4, 4)), (True, False, (0, 4)), (True, True, (0, 0))]
)
def test_what_every_rank_has_whole_is_not_reduced(attention, mlp, reductions):
    mixer = Attention(heads=32, kv_heads=8, head_dim=128, whole=attention)
    found = sent(of_one_block(Block(mixer=mixer, mlp=Mlp(inter=1024, whole=mlp))), "tp=4,pp=1,dp=1")
    assert tuple(found.get(where, (0,))[0] for where in ("attention output", "MLP output")) == reductions


def test_experts_of_another_width_are_reduced_in_it_and_shared_ones_apart():
    found = sent(ULTRA, "tp=8,pp=1,dp=1")
    assert found["latent experts"] == (48, 2048)
    assert found["MLP output"] == (48, 8192)
    alone = Experts(count=8, topk=2, inter=512, width=1024)
    found = sent(of_one_block(Block(mixer=HEADS, experts=alone)), "tp=2,pp=1,dp=1")
    assert "MLP output" not in found
    assert found["latent experts"] == (4, 1024)


def test_tokens_travel_to_experts_in_the_experts_width():
    found = sent(ULTRA, "tp=1,pp=1,dp=8,ep=true")
    assert found["expert dispatch"] == (48, 8 * (2048 + 8 * 22 / 2))
    assert found["expert combine"] == (48, 8 * 2048)


def test_joined_halves_reduce_alone_where_tokens_travel_to_experts():
    joined = of_one_block(Block(mixer=HEADS, experts=Experts(count=8, topk=2, inter=512), joined=True))
    assert "attention output" not in sent(joined, "tp=2,pp=1,dp=1")
    assert sent(joined, "tp=2,pp=1,dp=2,ep=true,executor=ray")["attention output"][0] == 4


def test_one_key_for_all_heads_is_attended_over_context_parallel_ranks():
    block = Block(mixer=FactorizedAttention(heads=64, head_dim=256, rank=2048))
    found = sent(of_one_block(block), "tp=8,pp=1,dp=1,dcp=8")
    assert found["query heads"] == (4, 8 * 8 * 256)


def test_a_state_is_handed_over_whole_by_every_rank_of_decode_context_parallelism():
    alone, shared = (
        kv_links(NEXT, ParallelLayout.parse(f"tp=8,pp=1,dp=1,dcp={d}"), 1000)[0].link_bytes for d in (1, 4)
    )
    cache = 12 * 1000 * 2 * 256 * 2
    assert alone - shared == cache * 3 / 4
    assert alone > cache


@pytest.mark.parametrize(("tp", "keys"), [(2, 8), (16, 16)])
def test_norms_over_all_heads_gather_queries_and_keys(tp, keys):
    mixer = Attention(heads=32, kv_heads=8, head_dim=128, norm_gathers_heads=True)
    found = sent(of_one_block(Block(mixer=mixer, mlp=MLP)), f"tp={tp},pp=1,dp=1,executor=ray")
    assert (found["queries to norm"], found["keys to norm"]) == ((4, 32 * 128), (4, keys * 128))
    assert "values" not in found


def test_a_plan_of_transformers_gathers_values_too():
    found = sent(load_model("allenai/OLMo-2-1124-13B-Instruct"), "tp=2,pp=1,dp=1")
    assert found["queries to norm"] == found["values"] == (40, 5120)
