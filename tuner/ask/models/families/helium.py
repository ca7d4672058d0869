"""Helium, through the class of Transformers (HeliumConfig): Llama with heads of a stated size."""

from __future__ import annotations

from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.families.llama import grouped

DEFAULTS = {
    "vocab_size": 48000,
    "hidden_size": 2560,
    "intermediate_size": 7040,
    "num_hidden_layers": 24,
    "num_attention_heads": 20,
    "head_dim": 128,
    "max_position_embeddings": 4096,
}


def read(config: Config, text: Config) -> Described:
    """As Llama otherwise."""
    return grouped(config, text.having(**DEFAULTS), apart=True, pipeline_tensors=1)
