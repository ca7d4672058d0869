"""Llama and its like: grouped-query attention and a gated MLP (vLLM ``models/llama.py``)."""

from __future__ import annotations

from tuner.ask.models.attention import Attention
from tuner.ask.models.blocks import Block, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import alternating, decoder, sizes
from tuner.ask.models.described import Described
from tuner.ask.models.matrices import Vectors
from tuner.ask.models.positions import FULL, everywhere, kinds

# LlamaConfig of Transformers 5
DEFAULTS = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
}


def read(config: Config, text: Config) -> Described:
    """With the defaults of Llama's own class."""
    return grouped(config, text.having(**DEFAULTS))


def grouped(config: Config, text: Config) -> Described:
    """The class as other families use it. All layers are alike, but for windows by ``layer_types``."""
    text.only("hidden_act", "silu")
    text.only("is_causal", True)
    size = sizes(text)
    bias = text.flag("attention_bias") or text.flag("bias")

    def layer(window: int | None) -> Block:
        attention = Attention(
            heads=size.heads,
            kv_heads=size.kv_heads,
            head_dim=size.head_dim,
            window=window,
            bias=text.flag("qkv_bias", bias),
            output_bias=bias,
        )
        mlp = Mlp(inter=text.need("intermediate_size"), bias=text.flag("mlp_bias"))
        return Block(mixer=attention, mlp=mlp, norms=Vectors(whole=2 * size.hidden))

    if not text.entries("layer_types"):
        return decoder(config, text, [layer(everywhere(text))] * size.layers)
    found = kinds(text, size.layers, [FULL] * size.layers)
    return decoder(config, text, alternating(found, text.count("sliding_window") or None, layer))
