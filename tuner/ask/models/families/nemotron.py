"""Nemotron-4 and Minitron: an ungated MLP, norms with a bias (vLLM ``models/nemotron.py``, ``configs/nemotron.py``)."""

from __future__ import annotations

from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.families.llama import grouped

DEFAULTS = {
    "vocab_size": 256000,
    "hidden_size": 6144,
    "intermediate_size": 24576,
    "num_hidden_layers": 32,
    "num_attention_heads": 48,
    "max_position_embeddings": 4096,
}


def read(config: Config, text: Config) -> Described:
    """As Llama otherwise."""
    return grouped(config, text.having(**DEFAULTS), gated=False, act="relu2", norms=4, norm=2)
