"""GLM-4-0414: four norms a layer (vLLM ``models/glm4.py``, Glm4Config of Transformers 5)."""

from __future__ import annotations

from tuner.ask.models.blocks import Block, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import decoder, grouped_attention, sizes
from tuner.ask.models.described import Described
from tuner.ask.models.families.glm import DEFAULTS
from tuner.ask.models.matrices import Vectors
from tuner.ask.models.positions import everywhere


def read(config: Config, text: Config) -> Described:
    """Biases of queries, keys and values alone."""
    text = text.having(**DEFAULTS)
    text.only("hidden_act", "silu")
    size = sizes(text)
    attention = grouped_attention(
        text,
        window=everywhere(text),
        bias=text.flag("attention_bias"),
    )
    layer = Block(mixer=attention, mlp=Mlp(inter=text.need("intermediate_size")), norms=Vectors(whole=4 * size.hidden))
    return decoder(config, text, [layer] * size.layers)
