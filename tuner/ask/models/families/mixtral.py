"""Mixtral: grouped-query attention and a mixture in every layer (vLLM ``models/mixtral.py``)."""

from __future__ import annotations

from tuner.ask.models.blocks import Block, Experts
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import decoder, grouped_attention, two_norms
from tuner.ask.models.described import Described
from tuner.ask.models.positions import everywhere

DEFAULTS = {"num_experts_per_tok": 2, "num_local_experts": 8, "num_key_value_heads": 8}  # of MixtralConfig
DEFAULTS |= {"max_position_embeddings": 131072}


def read(config: Config, text: Config) -> Described:
    """All layers are alike."""
    text = text.having(**DEFAULTS)
    experts = Experts(
        count=text.need("num_local_experts"),
        topk=text.need("num_experts_per_tok"),
        inter=text.need("intermediate_size"),
        place="block_sparse_moe",
    )
    attention = grouped_attention(text, window=everywhere(text))
    layer = Block(mixer=attention, experts=experts, norms=two_norms(text.need("hidden_size")))
    return decoder(config, text, [layer] * text.need("num_hidden_layers"))
