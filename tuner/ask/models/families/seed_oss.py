"""Seed-OSS: biases of queries, keys and values (vLLM ``models/seed_oss.py``, SeedOssConfig of Transformers 5)."""

from __future__ import annotations

from tuner.ask.models.blocks import Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import grouped_attention, uniform
from tuner.ask.models.described import Described
from tuner.ask.models.positions import everywhere

DEFAULTS = {
    "vocab_size": 155136,
    "hidden_size": 4096,
    "intermediate_size": 27648,
    "num_hidden_layers": 64,
    "num_attention_heads": 80,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 524288,
}


def read(config: Config, text: Config) -> Described:
    """The class has these biases, and no others, whatever the file says."""
    text = text.having(**DEFAULTS)
    text.only("hidden_act", "silu")
    text.only("is_causal", True)
    attention = grouped_attention(text, window=everywhere(text), bias=True)
    return uniform(config, text, attention, Mlp(inter=text.need("intermediate_size")), norms=2)
