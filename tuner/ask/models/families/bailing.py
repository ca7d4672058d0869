"""Ling (Bailing) mixtures of grouped-query attention (vLLM ``models/bailing_moe.py``)."""

from __future__ import annotations

from tuner.ask.models.blocks import Block, Experts, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import decoder, grouped_attention, two_norms
from tuner.ask.models.described import Described


def read(config: Config, text: Config) -> Described:
    """The first layers are dense; queries and keys are normed where the file says so."""
    bias, dim = text.flag("use_bias"), grouped_attention(text).head_dim
    if text.has("router_dtype"):
        text.only("router_dtype", "fp32", "bf16")
    norms = (2 if text.flag("use_rmsnorm") else 4) * dim if text.flag("use_qk_norm") else 0
    attention = grouped_attention(
        text,
        bias=bias or text.flag("use_qkv_bias"),
        output_bias=bias,
        norm_elements=norms,
        place="attention",
    )
    around = two_norms(text.need("hidden_size"))
    routed = Block(mixer=attention, experts=mixture(text), norms=around)
    dense = Block(mixer=attention, mlp=Mlp(inter=text.need("intermediate_size"), bias=bias), norms=around)
    first = text.count("first_k_dense_replace")
    layers = [dense if n < first else routed for n in range(text.need("num_hidden_layers"))]
    return decoder(config, text, layers, embedding_names=("model.word_embeddings",))


def mixture(text: Config) -> Experts:
    """Routed experts; shared ones as one MLP, each as wide as the file says, or as a routed one."""
    text.only("use_bias", False)
    inter = text.need("moe_intermediate_size")
    return Experts(
        count=text.need("num_experts", "n_routed_experts"),
        topk=text.need("num_experts_per_tok", "num_experts_per_token"),
        inter=inter,
        shared_inter=text.count("num_shared_experts", "n_shared_experts")
        * (text.count("moe_shared_expert_intermediate_size") or inter),
        router_bias=text.flag("moe_router_enable_expert_bias"),
    )
