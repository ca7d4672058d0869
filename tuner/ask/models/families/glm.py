"""GLM-4 and GLM-Edge in the format of Transformers: Llama without a bias of the attention's output
(vLLM ``models/glm.py``)."""

from __future__ import annotations

from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.families.llama import grouped

# GlmConfig of Transformers 5
DEFAULTS = {
    "vocab_size": 151552,
    "hidden_size": 4096,
    "intermediate_size": 13696,
    "num_hidden_layers": 40,
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "max_position_embeddings": 131072,
    "attention_bias": True,
}


def read(config: Config, text: Config) -> Described:
    """With the defaults of GLM's own class."""
    return grouped(config, text.having(**DEFAULTS), output_bias=False)
