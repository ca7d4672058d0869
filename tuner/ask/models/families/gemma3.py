"""Gemma 3, the language model: as Gemma 2 with norms of queries and keys; five of six layers have a window (vLLM
``models/gemma3.py``)."""

from __future__ import annotations

from tuner.ask.models.config import Config
from tuner.ask.models.decoder import decoder
from tuner.ask.models.described import Described
from tuner.ask.models.families.gemma2 import DEFAULTS as GEMMA2
from tuner.ask.models.families.gemma2 import sandwiches
from tuner.ask.models.positions import every, longest

# Gemma3TextConfig of Transformers 5
DEFAULTS = GEMMA2 | {"vocab_size": 262208, "max_position_embeddings": 131072}


def read(config: Config, text: Config) -> Described:
    """Its length is already that of the scaled positions. Embeddings are tied unless the file says otherwise."""
    text = text.having(**DEFAULTS)
    text.only("use_bidirectional_attention", False)
    text.only("is_causal", True)
    period = text.count("sliding_window_pattern", "_sliding_window_pattern") or 6
    layers = sandwiches(text, every(text.need("num_hidden_layers"), period), norms=True)
    return decoder(config, text, layers, tied=True, max_position=longest(text, scaled=False))
