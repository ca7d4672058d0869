"""Gemma 3 with images (vLLM ``models/gemma3_mm.py``): all of SigLIP, patches averaged to 256 tokens."""

from __future__ import annotations

from tuner.ask.models.clip import SIGLIP, sized, tower
from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.families import gemma3
from tuner.ask.models.matrices import Cut, Layer, Matrix
from tuner.ask.models.towers import with_towers

TOKENS = 256


def read(config: Config, text: Config) -> Described:
    """The projection is a parameter, never quantised."""
    found = gemma3.read(config, text)
    vision = config.part("vision_config")
    width = sized(vision, SIGLIP).need("hidden_size")
    name = "multi_modal_projector.mm_input_projection_weight"
    projection = Matrix(Layer.TOWER, (name,), found.hidden, width, Cut.NOTHING, plain=True)
    tokens = config.count("mm_tokens_per_image") or TOKENS
    return with_towers(found, [tower(vision, SIGLIP, projector=(projection,), vectors=width, tokens=tokens)])
