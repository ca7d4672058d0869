"""Jais 2: an ungated MLP, biases everywhere, norms with a bias (vLLM ``models/jais2.py``, Jais2Config of
Transformers 5)."""

from __future__ import annotations

from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.families.llama import grouped

DEFAULTS = {
    "vocab_size": 150272,
    "hidden_size": 3328,
    "intermediate_size": 26624,
    "num_hidden_layers": 32,
    "num_attention_heads": 26,
    "max_position_embeddings": 8192,
    "attention_bias": True,
    "mlp_bias": True,
}


def read(config: Config, text: Config) -> Described:
    """As Llama otherwise."""
    return grouped(config, text.having(**DEFAULTS), gated=False, act="relu2", norms=4, norm=2)
