"""Apertus: norms of queries and keys, an ungated MLP (vLLM ``models/apertus.py``, ApertusConfig of Transformers 5)."""

from __future__ import annotations

from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.families.llama import grouped

DEFAULTS = {
    "vocab_size": 131072,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 65536,
    "rope_parameters": {"rope_type": "llama3"},
}
ACTIVATION = 2  # numbers of xIELU, learned


def read(config: Config, text: Config) -> Described:
    """As Llama otherwise."""
    return grouped(config, text.having(**DEFAULTS), gated=False, act="xielu", head_norms=True, learned=ACTIVATION)
