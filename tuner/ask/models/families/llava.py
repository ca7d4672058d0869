"""LLaVA 1.5, LLaVA-NeXT (images and video) and LLaVA-OneVision (vLLM ``models/llava.py``, ``llava_next.py``,
``llava_onevision.py``): CLIP, SigLIP or Pixtral as deep as it is read, and two matrices behind it."""

from __future__ import annotations

from tuner.ask.models.clip import CLIP, PIXTRAL, SIGLIP, depth, kind_of, sized, tower
from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.nested import language_model
from tuner.ask.models.towers import two_layers, with_towers

PIECES = 5  # of an image twice as wide and high as the tower's: four quarters, and the whole


def read(config: Config, text: Config) -> Described:
    """NeXT and OneVision cut images into pieces; a line of pieces ends in one more token."""
    architecture = " ".join(str(one) for one in config.entries("architectures"))
    onevision, pieces = "Onevision" in architecture, "Next" in architecture or "Onevision" in architecture
    config = config.having(tie_word_embeddings=False)  # as the class of the whole says, whatever the text's part does
    found = language_model(config, text, "qwen2" if onevision else "llama")
    vision = config.part("vision_config")
    kind = kind_of(vision, SIGLIP if onevision else CLIP)
    size, at = sized(vision, kind), "multi_modal_projector"
    width, side = size.need("hidden_size"), size.need("image_size") // size.need("patch_size")
    chosen = config.get("vision_feature_layer")
    inputs = width * (len(chosen) if isinstance(chosen, list | tuple) else 1)
    bias = config.flag("multimodal_projector_bias", True)
    names, video = (f"{at}.linear_1", f"{at}.linear_2"), "Video" in architecture
    projector = two_layers(*names, inputs, found.hidden, found.hidden, bias=bias, whole=onevision or video)
    patches = side**2
    whole = kind == PIXTRAL or not pieces
    return with_towers(
        found,
        [
            tower(
                vision,
                kind,
                layers=depth(config, size.need("num_hidden_layers"), -1 if onevision else -2),
                last_norm=False,
                projector=projector,
                vectors=found.hidden if pieces and not video else 0,  # the token at the end of a line
                tokens=(None if kind == PIXTRAL else patches) if whole else PIECES * patches + 2 * side,
                crops=1 if whole else PIECES,
                image=None if whole else 2 * size.need("image_size"),
            )
        ],
    )
