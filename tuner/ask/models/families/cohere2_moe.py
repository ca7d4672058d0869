"""Cohere's mixtures (vLLM ``models/cohere2_moe.py``): attention and mixture side by side behind one norm."""

from __future__ import annotations

from tuner.ask.models.blocks import Block, Experts, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import decoder, grouped_attention
from tuner.ask.models.described import Described
from tuner.ask.models.keys import of_kinds
from tuner.ask.models.matrices import Vectors
from tuner.ask.models.positions import FULL, SLIDING, every

DEFAULTS = {  # of Cohere2MoeConfig
    "vocab_size": 256000,
    "hidden_size": 8192,
    "intermediate_size": 22528,
    "num_hidden_layers": 40,
    "num_attention_heads": 64,
    "head_dim": 128,
    "max_position_embeddings": 8192,
    "num_experts_per_tok": 2,
    "num_experts": 8,
    "sliding_window": 4096,
    "sliding_window_pattern": 4,
    "prefix_dense_sliding_window_pattern": 1,
}


def read(config: Config, text: Config) -> Described:
    """Embedding and head are always one matrix; a window has the running token on top."""
    text = text.having(**DEFAULTS)
    inter, hidden = text.need("intermediate_size"), text.need("hidden_size")
    experts = Experts(
        count=text.need("num_experts"),
        topk=text.need("num_experts_per_tok"),
        inter=inter,
        shared_inter=inter * text.count("num_shared_experts"),
    )
    dense = Mlp(inter=text.count("prefix_dense_intermediate_size") or inter)
    window = grouped_attention(text, window=text.need("sliding_window") + 1)
    full, norms, layers = grouped_attention(text), Vectors(whole=hidden), []
    for kind, routed in zip(_kinds(text), _routed(text), strict=True):
        mixer = window if kind == SLIDING else full
        if routed:
            layers.append(Block(mixer=mixer, experts=experts, norms=norms, joined=True))
        else:
            layers.append(Block(mixer=mixer, mlp=dense, norms=norms, joined=True))
    return decoder(config, text, layers, headless=True)


def _kinds(text: Config) -> list[str]:
    if text.has("layer_types"):
        return list(of_kinds(text, "layer_types", SLIDING, FULL))
    first, count = text.count("first_k_dense_replace"), text.need("num_hidden_layers")
    before, after = text.need("prefix_dense_sliding_window_pattern"), text.need("sliding_window_pattern")
    return [*every(first, before), *every(count - first, after)]


def _routed(text: Config) -> list[bool]:
    if text.has("mlp_layer_types"):
        return [one == "sparse" for one in of_kinds(text, "mlp_layer_types", "dense", "sparse")]
    return [n >= text.count("first_k_dense_replace") for n in range(text.need("num_hidden_layers"))]
