"""Arcee's AFM: Llama with an ungated MLP (vLLM ``models/arcee.py``, ArceeConfig of Transformers 5)."""

from __future__ import annotations

from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.families.llama import grouped

DEFAULTS = {
    "vocab_size": 32000,
    "hidden_size": 2560,
    "intermediate_size": 18432,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 4096,
}


def read(config: Config, text: Config) -> Described:
    """The head may be biased."""
    text = text.having(**DEFAULTS)
    return grouped(config, text, gated=False, act="relu2", head_bias=text.flag("lm_head_bias"))
