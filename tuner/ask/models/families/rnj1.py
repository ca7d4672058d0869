"""Rnj-1: Gemma 3's layers, attending to all tokens (vLLM ``models/rnj1.py``)."""

from __future__ import annotations

from tuner.ask.models.config import Config
from tuner.ask.models.decoder import decoder
from tuner.ask.models.described import Described
from tuner.ask.models.families.gemma2 import sandwiches
from tuner.ask.models.positions import FULL


def read(config: Config, text: Config) -> Described:
    """Layers in chunks, which the class knows too, are not understood."""
    return decoder(config, text, sandwiches(text, [FULL] * text.need("num_hidden_layers"), norms=True))
