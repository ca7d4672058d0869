"""OLMo 2 and 3, through the classes of Transformers (Olmo2Config, Olmo3Config): norms after both halves of a layer, and
of whole queries and keys, which ranks gather for it."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.ask.models.blocks import Block, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import alternating, decoder, grouped_attention, sizes
from tuner.ask.models.described import Described
from tuner.ask.models.families.olmo import DEFAULTS
from tuner.ask.models.matrices import Vectors
from tuner.ask.models.positions import FULL


def read(config: Config, text: Config) -> Described:
    """All layers attend to all tokens."""
    text = text.having(**DEFAULTS)
    return gathered(config, text, [FULL] * text.need("num_hidden_layers"), None)


def gathered(config: Config, text: Config, kinds: Sequence[str], window: int | None) -> Described:
    """Layers of these kinds."""
    text.only("hidden_act", "silu")
    size, bias = sizes(text), text.flag("attention_bias")

    def layer(window: int | None) -> Block:
        attention = grouped_attention(
            text,
            window=window,
            bias=bias,
            output_bias=bias,
            apart=True,
            norm_elements=(size.heads + size.kv_heads) * size.head_dim,
            norm_gathers_heads=True,
        )
        mlp = Mlp(inter=text.need("intermediate_size"))
        return Block(mixer=attention, mlp=mlp, norms=Vectors(whole=2 * size.hidden))

    return decoder(
        config,
        text,
        alternating(kinds, window, layer),
        pipeline_tensors=1,
    )
