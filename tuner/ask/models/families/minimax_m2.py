"""MiniMax-M2 (vLLM ``models/minimax_m2.py``): a mixture in every layer, norms over all heads."""

from __future__ import annotations

from tuner.ask.models.blocks import Block, Experts
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import decoder, grouped_attention, two_norms
from tuner.ask.models.described import Described

DEFAULTS = {  # of MiniMaxM2Config
    "num_experts_per_tok": 8,
    "num_local_experts": 256,
    "num_attention_heads": 48,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 1536,
    "max_position_embeddings": 196608,
}


def read(config: Config, text: Config) -> Described:
    """All layers are alike; multi-token prediction is not served."""
    text = text.having(**DEFAULTS)
    text.only("attn_window_size", None)
    heads = grouped_attention(text)
    attention = grouped_attention(
        text,
        bias=text.flag("attention_bias"),
        norm_elements=(heads.heads + heads.kv_heads) * heads.head_dim,
        norm_spans_heads=True,
    )
    experts = Experts(
        count=text.need("num_local_experts"),
        topk=text.need("num_experts_per_tok"),
        inter=text.need("intermediate_size"),
        router_bias=text.flag("use_routing_bias"),
        place="block_sparse_moe",
    )
    layer = Block(mixer=attention, experts=experts, norms=two_norms(text.need("hidden_size")))
    return decoder(config, text, [layer] * text.need("num_hidden_layers"), own_head=True)
