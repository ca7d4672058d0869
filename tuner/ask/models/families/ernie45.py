"""ERNIE 4.5, dense: Llama without a bias of the attention's output (vLLM ``models/ernie45.py``)."""

from __future__ import annotations

from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.families.llama import grouped

# Ernie4_5Config of Transformers 5
DEFAULTS = {
    "vocab_size": 103424,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 18,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "max_position_embeddings": 131072,
}


def read(config: Config, text: Config) -> Described:
    """The class looks for ``attention_bias`` where the family writes ``use_bias``, and so has none."""
    return grouped(config, text.having(**DEFAULTS), output_bias=False, tied=True)
