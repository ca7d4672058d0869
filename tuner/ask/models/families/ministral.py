"""Ministral 8B in its newer format, through the class of Transformers (MinistralConfig): Mistral with windows by
layer."""

from __future__ import annotations

from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.families.llama import grouped
from tuner.ask.models.families.mistral import DEFAULTS, WINDOW
from tuner.ask.models.positions import FULL, SLIDING


def read(config: Config, text: Config) -> Described:
    """A window of all layers, unless the file says null or names their kinds."""
    text = text.having(**DEFAULTS)
    windowed = text if text.stated("sliding_window") else text.having(sliding_window=WINDOW)
    kind = SLIDING if windowed.has("sliding_window") else FULL
    types = [kind] * text.need("num_hidden_layers")
    return grouped(config, windowed.having(layer_types=types), apart=True, pipeline_tensors=1)
