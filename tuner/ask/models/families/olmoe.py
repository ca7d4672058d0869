"""OLMoE and FlexOlmo: norms over all heads, a mixture in every layer (vLLM ``models/olmoe.py``; FlexOlmo through its
Transformers backend)."""

from __future__ import annotations

from tuner.ask.models.blocks import Block, Experts
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import decoder, grouped_attention, two_norms
from tuner.ask.models.described import Described
from tuner.ask.models.keys import called

_ROUTED = {"num_attention_heads": 16, "num_experts_per_tok": 8, "num_experts": 64, "intermediate_size": 2048}
_FLEX = {"num_attention_heads": 32, "num_experts_per_tok": 5, "num_experts": 7, "intermediate_size": 11008}


def read(config: Config, text: Config) -> Described:
    """All layers are alike; OLMoE's embedding and head are never one matrix."""
    flex = "flex" in called(config, text)
    text = text.having(max_position_embeddings=4096, **(_FLEX if flex else _ROUTED))
    heads = grouped_attention(text)
    bias = flex and text.flag("attention_bias")
    norms = (heads.heads + heads.kv_heads) * heads.head_dim
    attention = grouped_attention(
        text, bias=bias, output_bias=bias, norm_elements=norms, norm_gathers_heads=True, apart=flex
    )
    experts = Experts(
        count=text.need("num_experts", "num_local_experts"),
        topk=text.need("num_experts_per_tok"),
        inter=text.need("intermediate_size"),
    )
    layer = Block(mixer=attention, experts=experts, norms=two_norms(text.need("hidden_size")))
    return decoder(config, text, [layer] * text.need("num_hidden_layers"), own_head=not flex)
