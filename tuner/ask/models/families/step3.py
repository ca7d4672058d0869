"""Step-3 (vLLM ``models/step3_text.py``): factorized attention, an MLP beside each mixture."""

from __future__ import annotations

from tuner.ask.models.blocks import Block, Experts, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import decoder, two_norms
from tuner.ask.models.described import Described
from tuner.ask.models.factorized import FactorizedAttention
from tuner.ask.models.families.step3p5 import routed_layers
from tuner.ask.models.matrices import Layer

DEFAULTS = {  # of vLLM's Step3TextConfig
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "num_attention_heads": 64,
    "num_hidden_layers": 61,
    "max_seq_len": 65536,
    "vocab_size": 128815,
    "moe_intermediate_size": 5120,
    "moe_num_experts": 48,
    "moe_top_k": 3,
    "share_expert_dim": 5120,
    "share_q_dim": 2048,
    "head_dim": 256,
}


def read(config: Config, text: Config) -> Described:
    """The shared expert is reduced by itself."""
    text = text.having(**DEFAULTS)
    text.only("num_attention_groups", 1)
    attention = FactorizedAttention(
        heads=text.need("num_attention_heads"), head_dim=text.need("head_dim"), rank=text.need("share_q_dim")
    )
    experts = Experts(
        count=text.need("moe_num_experts"),
        topk=text.need("moe_top_k"),
        inter=text.need("moe_intermediate_size"),
        place="moe",
    )
    shared = Mlp(inter=text.need("share_expert_dim"), place="share_expert", layer=Layer.SHARED)
    norms, count = two_norms(text.need("hidden_size")), text.need("num_hidden_layers")
    routed = Block(mixer=attention, mlp=shared, experts=experts, norms=norms)
    dense = Block(mixer=attention, mlp=Mlp(inter=text.need("intermediate_size")), norms=norms)
    chosen = routed_layers(text, count)
    return decoder(config, text, [routed if at in chosen else dense for at in range(count)], own_head=True)
