"""Idefics3 and SmolVLM (vLLM ``models/idefics3.py``, ``smolvlm.py``): SigLIP, and several patches to a token."""

from __future__ import annotations

from tuner.ask.models.clip import SIGLIP, tower
from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.nested import language_model
from tuner.ask.models.towers import linear, with_towers

IDEFICS = {  # of Idefics3VisionConfig of Transformers 5
    "hidden_size": 1152,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 32,
}


def read(config: Config, text: Config) -> Described:
    """The price is of one tile; a larger image has several, and itself once more."""
    config = config.having(tie_word_embeddings=False)
    found = language_model(config, text, "llama")
    vision = config.part("vision_config").filled(**IDEFICS)
    scale = config.count("scale_factor") or 2
    patches = (vision.need("image_size") // vision.need("patch_size")) ** 2
    width = vision.need("hidden_size") * scale**2
    connector = linear("model.connector.modality_projection.proj", found.hidden, width, bias=False)
    seen = tower(
        vision,
        SIGLIP,
        last_norm=True,
        prefix="model.vision",
        projector=(connector,),
        tokens=patches // scale**2,
    )
    return with_towers(found, [seen])
