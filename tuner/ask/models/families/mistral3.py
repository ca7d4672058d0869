"""Mistral Small 3.1 and 3.2, Ministral 3, and their like (vLLM ``models/mistral3.py``): Pixtral, whose patches are
merged two by two."""

from __future__ import annotations

from tuner.ask.models.clip import PIXTRAL, depth, kind_of, sized, tower
from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.nested import language_model
from tuner.ask.models.towers import linear, two_layers, with_towers


def read(config: Config, text: Config) -> Described:
    """Embedding and head are tied by default, as the whole's class says."""
    config = config.having(tie_word_embeddings=True, multimodal_projector_bias=False, spatial_merge_size=2)
    found = language_model(config, text, "mistral")
    vision = config.part("vision_config")
    if kind_of(vision, PIXTRAL) != PIXTRAL:
        raise vision.refuse("model_type", PIXTRAL)
    size, merge = sized(vision, PIXTRAL), config.need("spatial_merge_size")
    width, at = size.need("hidden_size"), "multi_modal_projector"
    bias = config.flag("multimodal_projector_bias")
    projector = (
        linear(f"{at}.patch_merger.merging_layer", width, width * merge**2, bias=False, plain=True),
        *two_layers(f"{at}.linear_1", f"{at}.linear_2", width, found.hidden, found.hidden, bias=bias),
    )
    layers = depth(config, size.need("num_hidden_layers"), -1)
    return with_towers(found, [tower(vision, PIXTRAL, layers=layers, projector=projector, vectors=width, merge=merge)])
