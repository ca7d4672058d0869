"""Phi 3, 3.5 and 4: Llama with merged projections in the checkpoint (vLLM ``models/phi3.py``, Phi3Config of
Transformers 5)."""

from __future__ import annotations

from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.families.llama import grouped

DEFAULTS = {
    "vocab_size": 32064,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 4096,
    "original_max_position_embeddings": 4096,
}


def read(config: Config, text: Config) -> Described:
    """Of positions that are scaled for long texts vLLM takes the original ones unless it is told otherwise."""
    return grouped(config, text.having(**DEFAULTS))
