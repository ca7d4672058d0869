"""CWM: Llama with windows in three of four layers, the first of each four full (CwmConfig of Transformers 5)."""

from __future__ import annotations

from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.families.llama import grouped
from tuner.ask.models.positions import FULL, SLIDING

DEFAULTS = {
    "vocab_size": 128256,
    "hidden_size": 6144,
    "intermediate_size": 21504,
    "num_hidden_layers": 64,
    "num_attention_heads": 48,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 131072,
    "sliding_window": 8192,
    "rope_parameters": {"rope_type": "llama3"},
}


def read(config: Config, text: Config) -> Described:
    """Without ``layer_types`` every fourth layer is full, counted from the first."""
    text = text.having(**DEFAULTS)
    layers = text.need("num_hidden_layers")
    return grouped(config, text.having(layer_types=[SLIDING if at % 4 else FULL for at in range(layers)]))
