"""OLMo 1, through the class of Transformers (OlmoConfig): norms without weights."""

from __future__ import annotations

from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.families.llama import grouped

DEFAULTS = {
    "vocab_size": 50304,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
}


def read(config: Config, text: Config) -> Described:
    """As Llama otherwise; heads divide the width."""
    return grouped(config, text.having(**DEFAULTS), apart=True, norms=0, norm=0, pipeline_tensors=1)
