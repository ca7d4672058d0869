"""Gemma 2: norms before and after both halves of a layer, windows in every second one (vLLM ``models/gemma2.py``)."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.ask.models.blocks import Block, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import alternating, decoder, grouped_attention, sizes
from tuner.ask.models.described import Described
from tuner.ask.models.matrices import Vectors
from tuner.ask.models.positions import every, kinds

# Gemma2Config of Transformers 5
DEFAULTS = {
    "vocab_size": 256000,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 8192,
    "sliding_window": 4096,
}


def read(config: Config, text: Config) -> Described:
    """The class has no head of its own: embeddings are tied."""
    text = text.having(**DEFAULTS)
    text.only("hidden_activation", "gelu_pytorch_tanh")
    return decoder(config, text, sandwiches(text, every(text.need("num_hidden_layers"), 2)), headless=True)


def sandwiches(
    text: Config, absent: Sequence[str], *, norms: bool = False, around: int = 4, apart: bool = False
) -> Sequence[Block]:
    """Layers with ``around`` norms, of the kinds that the file names or else ``absent``; ``norms``: of queries and keys
    too."""
    size = sizes(text)
    bias = text.flag("attention_bias")

    def layer(window: int | None) -> Block:
        attention = grouped_attention(
            text,
            window=window,
            bias=bias,
            output_bias=bias,
            norm_elements=2 * size.head_dim if norms else 0,
            apart=apart,
        )
        mlp = Mlp(inter=text.need("intermediate_size"))
        return Block(mixer=attention, mlp=mlp, norms=Vectors(whole=around * size.hidden))

    return alternating(kinds(text, size.layers, absent), text.count("sliding_window") or None, layer)
