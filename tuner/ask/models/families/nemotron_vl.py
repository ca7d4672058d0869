"""Nemotron Nano V2 VL (vLLM ``models/nano_nemotron_vl.py``, ``radio.py``): RADIO before Nemotron-H, four patches to a
token."""

from __future__ import annotations

import math

from tuner.ask.models.blocks import MlpNames
from tuner.ask.models.config import Config
from tuner.ask.models.described import Described, Tower
from tuner.ask.models.matrices import Vectors
from tuner.ask.models.nested import language_model
from tuner.ask.models.towers import TowerNames, block, merged, patch_embedding, two_layers, with_towers

SIZES = {  # of vLLM's RadioConfig: width, layers, heads, width of the MLP
    "vit_small_patch16_224": (384, 12, 6, 1536),
    "vit_base_patch16_224": (768, 12, 12, 3072),
    "vit_large_patch16_224": (1024, 24, 16, 4096),
    "vit_huge_patch16_224": (1280, 32, 16, 5120),
}
PLACES = 2048  # pixels of a side for which positions are kept
_NAMES = TowerNames("attn", "mlp", merged("qkv", "proj"), MlpNames(up="fc1", down="fc2"))


def read(config: Config, text: Config) -> Described:
    """The price is of one tile. What hears is refused."""
    config.only("sound_config", None)
    found = language_model(config, text, "nemotron_h")
    vision = config.part("vision_config")
    given = vision.part("args")
    hidden, layers, heads, inter = given.one_of("model", SIZES)
    patch, image = vision.count("patch_size") or 16, config.count("force_image_size") or 512
    one = block(
        hidden,
        heads,
        inter,
        prefix="vision_model.model.encoder.layers",
        names=_NAMES,
        norms=6,  # two with biases, and a scale of each half
    )
    side = math.ceil(round((given.count("cpe_max_size") or PLACES) / patch))
    teachers = {str(one.get("name")) for one in given.items("teachers") if isinstance(one, dict)}
    classes = len(teachers) if given.flag("cls_token_per_teacher") else 1
    multiple = given.count("register_multiple")
    registers = given.count("num_registers") or (multiple - classes % multiple if multiple else 0)
    ratio = config.share("downsample_ratio", 0.5)
    width, middle = config.need("vit_hidden_size") * round(1 / ratio) ** 2, config.need("projector_hidden_size")
    frames, patches = vision.count("video_temporal_patch_size") or 1, (image // patch) ** 2
    at = "vision_model.model.patch_generator"
    video = (patch_embedding(f"{at}.video_embedder", hidden, 3 * frames * patch**2, bias=False),) if frames > 1 else ()
    seen = Tower(
        kind="vision",
        hidden=hidden,
        layers=(one,) * layers,
        around=(
            patch_embedding(f"{at}.embedder", hidden, 3 * patch**2, bias=False),
            *video,
            *two_layers("mlp1.1", "mlp1.3", width, middle, found.hidden, bias=False, whole=True),
        ),
        vectors=Vectors(whole=(side**2 + classes + registers) * hidden + width),
        patches=patches + classes + registers,
        tokens=round(patches * ratio**2),
        image=image,
    )
    return with_towers(found, [seen])
