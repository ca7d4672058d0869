"""Granite with windows in three of four layers, the first of each four full (GraniteSWAConfig of Transformers 5)."""

from __future__ import annotations

from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.families import granite
from tuner.ask.models.positions import FULL, SLIDING

DEFAULTS = {
    "vocab_size": 100352,
    "hidden_size": 2560,
    "intermediate_size": 8192,
    "num_hidden_layers": 24,
    "num_attention_heads": 20,
    "num_key_value_heads": 4,
    "max_position_embeddings": 8192,
    "sliding_window": 128,
    "tie_word_embeddings": True,
}


def read(config: Config, text: Config) -> Described:
    """Sinks, as Granite's class has them."""
    text = text.having(**DEFAULTS)
    layers = text.need("num_hidden_layers")
    return granite.layered(config, text.having(layer_types=[SLIDING if at % 4 else FULL for at in range(layers)]))
