"""Llama and its like: grouped-query attention and a gated MLP, every layer alike (vLLM ``models/llama.py``)."""

from __future__ import annotations

from tuner.ask.models.attention import Attention
from tuner.ask.models.blocks import Block, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.matrices import Vectors

UNBOUNDED = 2**31  # positions, where nothing says how many


def read(config: Config, text: Config) -> Described:
    """All layers are alike; a sliding window holds for all of them."""
    hidden, heads = text.need("hidden_size"), text.need("num_attention_heads")
    attention = Attention(
        heads=heads,
        kv_heads=text.count("num_key_value_heads") or heads,
        head_dim=text.count("head_dim") or hidden // heads,
        window=text.count("sliding_window") or None,
        bias=text.flag("attention_bias"),
        output_bias=text.flag("attention_bias"),
    )
    mlp = Mlp(inter=text.need("intermediate_size"), bias=text.flag("mlp_bias"))
    layer = Block(mixer=attention, mlp=mlp, norms=Vectors(whole=2 * hidden))
    return Described(
        hidden=hidden,
        vocab=text.need("vocab_size"),
        layers=[layer] * text.need("num_hidden_layers"),
        tied=config.flag("tie_word_embeddings") or text.flag("tie_word_embeddings"),
        max_position=text.count("max_position_embeddings") or UNBOUNDED,
        vectors=Vectors(whole=hidden),
    )
