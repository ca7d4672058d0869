"""Families of code of their own that vLLM runs by Llama's class: InternLM3, TeleChat3, TeleFLM, Solar."""

from __future__ import annotations

from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.families.llama import grouped


def read(config: Config, text: Config) -> Described:
    """Their files have all sizes. Solar's further connections between layers have no weights."""
    return grouped(config, text)
