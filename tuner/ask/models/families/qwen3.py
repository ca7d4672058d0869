"""Qwen3: as Qwen2 with norms of queries and keys, without biases (vLLM ``models/qwen3.py``)."""

from __future__ import annotations

from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.families import qwen2

# Qwen3Config of Transformers 5
DEFAULTS = qwen2.DEFAULTS | {"head_dim": 128}


def read(config: Config, text: Config) -> Described:
    """Heads have a size of their own."""
    text = text.having(**DEFAULTS, qk_norm=True)
    return qwen2.layered(config, text, bias=text.flag("attention_bias"), head_dim=text.need("head_dim"))
