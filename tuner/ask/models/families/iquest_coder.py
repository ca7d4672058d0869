"""IQuest-Coder: Llama's class (IQuestCoderConfig of Transformers 5)."""

from __future__ import annotations

from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.families.llama import grouped

DEFAULTS = {
    "vocab_size": 76800,
    "hidden_size": 5120,
    "intermediate_size": 27648,
    "num_hidden_layers": 80,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 131072,
}


def read(config: Config, text: Config) -> Described:
    """Without its looped variant, which is another class."""
    return grouped(config, text.having(**DEFAULTS))
