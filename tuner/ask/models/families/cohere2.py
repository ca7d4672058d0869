"""Command R7B and A: as Command R, with windows in three of four layers (Cohere2Config of Transformers 5)."""

from __future__ import annotations

from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.families.cohere import DEFAULTS, parallel
from tuner.ask.models.positions import every, kinds

WINDOW = 4096


def read(config: Config, text: Config) -> Described:
    """The class gives every window one token more than the file says. Heads divide the width."""
    text = text.having(**DEFAULTS, sliding_window=WINDOW)
    layers = text.need("num_hidden_layers")
    found = kinds(text, layers, every(layers, text.count("sliding_window_pattern") or 4))
    return parallel(config, text, found, text.need("sliding_window") + 1)
