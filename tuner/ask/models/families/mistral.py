"""Mistral 7B to Large: Llama, with a window of all layers unless the file says null (vLLM ``models/mistral.py``)."""

from __future__ import annotations

from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.families.llama import grouped

# MistralConfig of Transformers 5
DEFAULTS = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
}
WINDOW = 4096


def read(config: Config, text: Config) -> Described:
    """A file that leaves the window out has the class's own."""
    text.only("ada_rms_norm_t_cond", False)
    text = text.having(**DEFAULTS)
    return grouped(config, text if text.stated("sliding_window") else text.having(sliding_window=WINDOW))
