"""Ministral 3: Mistral's class without windows, positions scaled by default (Ministral3Config of Transformers 5)."""

from __future__ import annotations

from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.families.llama import grouped

DEFAULTS = {
    "vocab_size": 131072,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 34,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 262144,
    "rope_parameters": {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 16384},
}


def read(config: Config, text: Config) -> Described:
    """As Mistral."""
    text.only("ada_rms_norm_t_cond", False)
    return grouped(config, text.having(**DEFAULTS))
