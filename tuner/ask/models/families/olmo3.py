"""OLMo 3: as OLMo 2 with windows in three of four layers (Olmo3Config of Transformers 5)."""

from __future__ import annotations

from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.families.olmo import DEFAULTS
from tuner.ask.models.families.olmo2 import gathered
from tuner.ask.models.positions import every, kinds

WINDOW, PERIOD = 4096, 4


def read(config: Config, text: Config) -> Described:
    """Positions of full layers alone are scaled."""
    text = text.having(**DEFAULTS, sliding_window=WINDOW)
    layers = text.need("num_hidden_layers")
    return gathered(config, text, kinds(text, layers, every(layers, PERIOD)), text.need("sliding_window"))
