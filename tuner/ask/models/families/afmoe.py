"""AfMoE (vLLM ``models/afmoe.py``): windows in three of four layers, gated attention, four norms a layer."""

from __future__ import annotations

from tuner.ask.models.blocks import Block, Experts, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import SILU, decoder, grouped_attention
from tuner.ask.models.described import Described
from tuner.ask.models.keys import number, of_kinds
from tuner.ask.models.matrices import Vectors
from tuner.ask.models.positions import FULL, SLIDING

DEFAULTS = {  # of vLLM's AfmoeConfig
    "vocab_size": 200192,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "head_dim": 128,
    "max_position_embeddings": 131072,
    "moe_intermediate_size": 1408,
    "num_experts": 64,
    "num_experts_per_tok": 6,
    "sliding_window": 2048,
}


def read(config: Config, text: Config) -> Described:
    """The first layers are dense."""
    text = text.having(**DEFAULTS)
    text.only("hidden_act", *SILU)
    shared = number(text, "num_shared_experts", 2)
    inter = text.need("moe_intermediate_size")
    experts = Experts(
        count=text.need("num_experts"),
        topk=text.need("num_experts_per_tok"),
        inter=inter,
        shared_inter=shared * inter,
        router_bias=True,
    )
    norms, dim = Vectors(whole=4 * text.need("hidden_size")), text.need("head_dim")
    mixers = {
        SLIDING: grouped_attention(text, gated=True, norm_elements=2 * dim, window=text.need("sliding_window")),
        FULL: grouped_attention(text, gated=True, norm_elements=2 * dim),
    }
    dense, first, layers = Mlp(inter=text.need("intermediate_size")), number(text, "num_dense_layers", 1), []
    for at, kind in enumerate(of_kinds(text, "layer_types", SLIDING, FULL)):
        if at < first:
            layers.append(Block(mixer=mixers[kind], mlp=dense, norms=norms))
        else:
            layers.append(Block(mixer=mixers[kind], experts=experts, norms=norms))
    return decoder(config, text, layers, own_head=True)
