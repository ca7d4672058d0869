"""Step-1: positions by slopes of attention (vLLM ``models/step1.py``)."""

from __future__ import annotations

from tuner.ask.models.attention import Attention
from tuner.ask.models.blocks import Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import sizes, uniform
from tuner.ask.models.described import Described
from tuner.ask.models.positions import everywhere


def read(config: Config, text: Config) -> Described:
    """KV heads are called groups, and there is one where no number is given."""
    size = sizes(text)
    bias = text.flag("attention_bias")
    attention = Attention(
        heads=size.heads,
        kv_heads=text.count("num_attention_groups", "num_key_value_heads") or 1,
        head_dim=size.hidden // size.heads,
        window=everywhere(text),
        bias=bias,
        output_bias=bias,
    )
    mlp = Mlp(inter=text.need("intermediate_size"), bias=text.flag("mlp_bias"))
    return uniform(config, text, attention, mlp, norms=2, tied=True)
