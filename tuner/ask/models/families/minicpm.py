"""MiniCPM 1 to 4, dense (vLLM ``models/minicpm.py``)."""

from __future__ import annotations

from tuner.ask.models.blocks import Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import grouped_attention, sizes, uniform
from tuner.ask.models.described import Described
from tuner.ask.models.positions import everywhere


def read(config: Config, text: Config) -> Described:
    """Heads divide the width; no biases. The class attends to all tokens, also where the file has sparse settings."""
    text.only("num_experts", 0)
    text.one_of("hidden_act", {"silu": 1, "fatrelu": 1}, "silu")
    size = sizes(text)
    attention = grouped_attention(text, head_dim=size.hidden // size.heads, window=everywhere(text))
    return uniform(config, text, attention, Mlp(inter=text.need("intermediate_size")), norms=2, tied=True)
