"""PaliGemma (vLLM ``models/paligemma.py``): all of SigLIP, and one matrix behind it."""

from __future__ import annotations

from tuner.ask.models.clip import SIGLIP, sized, tower
from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.nested import language_model
from tuner.ask.models.towers import linear, with_towers


def read(config: Config, text: Config) -> Described:
    """Every patch is a token."""
    config = config.having(tie_word_embeddings=True)
    found = language_model(config, text, "gemma")
    vision = config.part("vision_config")
    size = sized(vision, SIGLIP)
    projector = linear("multi_modal_projector.linear", found.hidden, size.need("hidden_size"))
    return with_towers(found, [tower(vision, SIGLIP, projector=(projector,))])
