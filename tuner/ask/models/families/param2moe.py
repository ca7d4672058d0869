"""Param2 mixtures (vLLM ``models/param2moe.py``)."""

from __future__ import annotations

from tuner.ask.models.blocks import Block, Experts, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import decoder, grouped_attention, two_norms
from tuner.ask.models.described import Described
from tuner.ask.models.keys import number


def read(config: Config, text: Config) -> Described:
    """The first layers are dense."""
    dim = grouped_attention(text).head_dim
    attention = grouped_attention(
        text,
        bias=text.flag("use_qkv_bias"),
        output_bias=text.flag("use_bias"),
        norm_elements=2 * dim if text.flag("use_qk_norm") else 0,
        repeats=False,
    )
    inter, shared = text.need("moe_intermediate_size"), number(text, "num_shared_experts", 1)
    experts = Experts(
        count=text.need("num_experts"),
        topk=text.need("num_experts_per_tok"),
        inter=inter,
        shared_inter=(text.count("moe_shared_expert_intermediate_size") or inter * shared) if shared else 0,
        router_bias=text.flag("moe_router_enable_expert_bias", True),
    )
    norms = two_norms(text.need("hidden_size"))
    routed = Block(mixer=attention, experts=experts, norms=norms)
    dense = Block(mixer=attention, mlp=Mlp(inter=text.need("intermediate_size")), norms=norms)
    first = number(text, "first_k_dense_replace", 1)
    return decoder(config, text, [dense if at < first else routed for at in range(text.need("num_hidden_layers"))])
