"""Command A Vision (vLLM ``models/cohere2_vision.py``): SigLIP, and a gated projector of four patches to a token."""

from __future__ import annotations

from tuner.ask.models.clip import SIGLIP, sized, tower
from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.families import cohere2
from tuner.ask.models.matrices import Cut
from tuner.ask.models.towers import linear, with_towers

DEFAULTS = {"downsample_factor": 2, "alignment_intermediate_size": 36864}  # of Cohere2VisionConfig


def read(config: Config, text: Config) -> Described:
    """The price is of one tile; a larger image has several, and itself once more."""
    config = config.having(tie_word_embeddings=True)
    found = cohere2.read(config, text)
    config = config.having(**DEFAULTS)
    vision = config.part("vision_config")
    size, unit = sized(vision, SIGLIP), config.need("downsample_factor") ** 2
    width, inter = size.need("hidden_size") * unit, config.need("alignment_intermediate_size")
    at = "multi_modal_projector"
    projector = (
        linear(f"{at}.linear_1", inter, width, Cut.OUTPUTS),
        linear(f"{at}.linear_2", found.hidden, inter // 2, Cut.INPUTS),
    )
    patches = (size.need("image_size") // size.need("patch_size")) ** 2
    return with_towers(found, [tower(vision, SIGLIP, projector=projector, tokens=patches // unit)])
