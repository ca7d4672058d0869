"""CodeGen, through the class of Transformers (CodeGenConfig): GPT-J with merged projections."""

from __future__ import annotations

from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.families.gptj import side_by_side


def read(config: Config, text: Config) -> Described:
    """The engine leaves out the head's bias."""
    return side_by_side(config, text)
