"""OLMo hybrid (vLLM ``models/olmo_hybrid.py``): gated delta nets, every fourth layer full attention; dense."""

from __future__ import annotations

from typing import Any

from tuner.ask.models.blocks import Block, Mixer, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import decoder, grouped_attention, two_norms
from tuner.ask.models.described import Described
from tuner.ask.models.keys import of_kinds
from tuner.ask.models.positions import FULL
from tuner.ask.models.recurrent import GatedDelta

DEFAULTS: dict[str, Any] = {  # of vLLM's OlmoHybridConfig
    "vocab_size": 100352,
    "hidden_size": 3840,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 30,
    "max_position_embeddings": 65536,
    "linear_key_head_dim": 96,
    "linear_value_head_dim": 192,
    "linear_conv_kernel_dim": 4,
}
LINEAR = "linear_attention"


def read(config: Config, text: Config) -> Described:
    """Norms of queries and keys span all heads."""
    text = text.having(**DEFAULTS)
    text.only("linear_use_gate", True)
    hidden, heads = text.need("hidden_size"), text.need("num_attention_heads")
    dim, kv_heads = hidden // heads, text.count("num_key_value_heads") or heads
    mixers: dict[str, Mixer] = {
        FULL: grouped_attention(text, head_dim=dim, norm_elements=hidden + kv_heads * dim, norm_gathers_heads=True),
        LINEAR: GatedDelta(
            key_heads=text.count("linear_num_key_heads") or heads,
            value_heads=text.count("linear_num_value_heads") or heads,
            key_dim=text.need("linear_key_head_dim"),
            value_dim=text.need("linear_value_head_dim"),
            conv=text.need("linear_conv_kernel_dim"),
        ),
    }
    count = text.need("num_hidden_layers")
    kinds = [LINEAR if (n + 1) % 4 else FULL for n in range(count)]
    if text.has("layer_types"):
        kinds = list(of_kinds(text, "layer_types", LINEAR, FULL))
    mlp, norms = Mlp(inter=text.need("intermediate_size")), two_norms(hidden)
    layers = [Block(mixer=mixers[kind], mlp=mlp, norms=norms) for kind in kinds]
    return decoder(config, text, layers, pipeline_tensors=1)
