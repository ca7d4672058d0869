"""Sarvam's mixture of latent attention (vLLM ``models/sarvam.py``): DeepSeek-V3's layers under other names."""

from __future__ import annotations

from tuner.ask.models.blocks import Block, Experts, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import decoder, latent_attention, two_norms
from tuner.ask.models.described import Described
from tuner.ask.models.keys import number


def read(config: Config, text: Config) -> Described:
    """The first layers are dense, then every so many are mixtures."""
    attention = latent_attention(text)
    inter, shared = text.need("moe_intermediate_size"), 1
    if text.has("num_shared_experts") or text.has("n_shared_experts"):
        shared = text.count("num_shared_experts", "n_shared_experts")
    experts = Experts(
        count=text.need("num_experts", "n_routed_experts"),
        topk=text.need("num_experts_per_tok"),
        inter=inter,
        shared_inter=shared * (text.count("moe_shared_expert_intermediate_size") or inter),
        router_bias=text.flag("moe_router_enable_expert_bias", True),
    )
    norms = two_norms(text.need("hidden_size"))
    routed = Block(mixer=attention, experts=experts, norms=norms)
    dense = Block(mixer=attention, mlp=Mlp(inter=text.count("intermediate_size") or 16384), norms=norms)
    first, every = number(text, "first_k_dense_replace", 1), number(text, "moe_layer_freq", 1)
    layers = [
        routed if at >= first and (at - first) % every == 0 else dense for at in range(text.need("num_hidden_layers"))
    ]
    return decoder(config, text, layers)
