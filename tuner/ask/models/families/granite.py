"""Granite 3 and 4, dense (vLLM ``models/granite.py``)."""

from __future__ import annotations

from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.families.llama import DEFAULTS, grouped


def read(config: Config, text: Config) -> Described:
    """GraniteConfig of Transformers 5 has Llama's defaults."""
    return layered(config, text.having(**DEFAULTS))


def layered(config: Config, text: Config) -> Described:
    """Layers of kinds have sinks unless the file says otherwise; layers without rotated positions cost no less."""
    sinks = text.flag("attention_sinks", bool(text.entries("layer_types")))
    return grouped(config, text, sinks=sinks, pipeline_tensors=1)
