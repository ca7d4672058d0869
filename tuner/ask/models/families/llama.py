"""Llama and its like: grouped-query attention and a gated MLP (vLLM ``models/llama.py``)."""

from __future__ import annotations

from typing import Any

from tuner.ask.models.blocks import Block, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import alternating, decoder, grouped_attention, sizes
from tuner.ask.models.described import Described
from tuner.ask.models.matrices import Vectors
from tuner.ask.models.positions import everywhere, kinds

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


def grouped(
    config: Config,
    text: Config,
    *,
    output_bias: bool = True,
    head_norms: bool = False,
    sinks: bool = False,
    apart: bool = False,
    gated: bool = True,
    act: str = "silu",
    norms: int = 2,
    learned: int = 0,
    **more: Any,
) -> Described:
    """The class as other families use it. All layers are alike, but for windows by ``layer_types``.

    ``output_bias``: of the attention, where it has biases at all; ``head_norms`` of queries and keys; ``apart`` where
    vLLM merges no projections; ``gated`` of the MLP, with its activation; so many ``norms`` of a layer, and ``learned``
    numbers beside them. ``more`` is of ``decoder``.
    """
    text.only("hidden_act", act)
    text.only("is_causal", True)
    text.only("interleaved_sliding_window", None)
    size = sizes(text)
    bias = text.flag("attention_bias") or text.flag("bias")

    def layer(window: int | None) -> Block:
        attention = grouped_attention(
            text,
            window=window,
            bias=text.flag("qkv_bias", bias),
            output_bias=bias and output_bias,
            norm_elements=2 * size.head_dim if head_norms else 0,
            sinks=sinks,
            apart=apart,
        )
        mlp = Mlp(inter=text.need("intermediate_size"), gated=gated, bias=text.flag("mlp_bias"))
        return Block(mixer=attention, mlp=mlp, norms=Vectors(whole=norms * size.hidden + learned))

    if not text.entries("layer_types"):
        return decoder(config, text, [layer(everywhere(text))] * size.layers, **more)
    found = kinds(text, size.layers, ())
    return decoder(config, text, alternating(found, text.count("sliding_window") or None, layer), **more)
