"""Phi-3.5-MoE (vLLM ``models/phimoe.py``): biases in attention and head, norms with biases."""

from __future__ import annotations

from tuner.ask.models.blocks import Block, Experts
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import decoder, grouped_attention
from tuner.ask.models.described import Described
from tuner.ask.models.matrices import Vectors
from tuner.ask.models.positions import everywhere

DEFAULTS = {  # of PhimoeConfig
    "vocab_size": 32064,
    "hidden_size": 4096,
    "intermediate_size": 6400,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "num_experts_per_tok": 2,
    "num_local_experts": 16,
}


def read(config: Config, text: Config) -> Described:
    """All layers are alike; the class has all biases whatever the file says."""
    text = text.having(**DEFAULTS)
    hidden = text.need("hidden_size")
    attention = grouped_attention(text, window=everywhere(text), bias=True, output_bias=True)
    experts = Experts(
        count=text.need("num_local_experts"),
        topk=text.need("num_experts_per_tok"),
        inter=text.need("intermediate_size"),
        place="block_sparse_moe",
    )
    layer = Block(mixer=attention, experts=experts, norms=Vectors(whole=4 * hidden))
    layers = [layer] * text.need("num_hidden_layers")
    return decoder(config, text, layers, own_head=True, vectors=Vectors(whole=2 * hidden), head_bias=True)
