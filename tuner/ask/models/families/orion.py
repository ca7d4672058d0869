"""Orion: Llama with norms that have a bias (vLLM ``models/orion.py``)."""

from __future__ import annotations

from tuner.ask.models.blocks import Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import grouped_attention, sizes, uniform
from tuner.ask.models.described import Described
from tuner.ask.models.positions import everywhere


def read(config: Config, text: Config) -> Described:
    """Without other biases; heads divide the width."""
    text.only("hidden_act", "silu")
    size = sizes(text)
    attention = grouped_attention(text, head_dim=size.hidden // size.heads, window=everywhere(text))
    mlp = Mlp(inter=text.need("intermediate_size"))
    return uniform(config, text, attention, mlp, norms=4, norm=2, pipeline_tensors=1)
