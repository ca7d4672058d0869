"""Step-3.7 and Step-VL with images (vLLM ``models/step3p7.py``, ``step_vl.py``): Meta's perception encoder, sixteen
patches to a token."""

from __future__ import annotations

from tuner.ask.models.attention import ProjectionNames
from tuner.ask.models.blocks import MlpNames
from tuner.ask.models.config import Config
from tuner.ask.models.described import Described, Tower
from tuner.ask.models.families import step3p5
from tuner.ask.models.matrices import Cut, Vectors
from tuner.ask.models.nested import language_model
from tuner.ask.models.towers import TowerNames, block, linear, patch_embedding, with_towers

_QKV = ProjectionNames("qkv_proj", "qkv_proj", "qkv_proj", "qkv_proj", "out_proj")
_NAMES = TowerNames("attn", "mlp", _QKV, MlpNames(up="fc1", down="fc2"))
_PIXELS = 9  # of a convolution that halves both sides


def read(config: Config, text: Config) -> Described:
    """Step-3.7's language model is Step-3.5's."""
    step = str(next(iter(config.entries("architectures")))).startswith("Step3p7")
    found = step3p5.read(config, text) if step else language_model(config, text)
    return with_towers(found, [_tower(config.part("vision_config"), found.hidden, config.flag("projector_bias", True))])


def _tower(vision: Config, outputs: int, bias: bool) -> Tower:
    vision.only("use_rope2d", True)
    width, patch, image = vision.need("width"), vision.need("patch_size"), vision.need("image_size")
    scaled = vision.get("ls_init_value") is not None
    one = block(
        width,
        vision.need("heads"),
        round(width * vision.share("mlp_ratio", 4.0)),
        prefix="vision_model.transformer.resblocks",
        names=_NAMES,
        norms=4 + 2 * scaled,
    )
    patches, classed = (image // patch) ** 2, vision.flag("use_cls_token")
    places = (patches + classed) * width if vision.flag("use_abs_posemb", True) else 0
    norms = vision.flag("use_ln_pre", True) + vision.flag("use_ln_post", True)
    at = "vision_model"
    return Tower(
        kind="vision",
        hidden=width,
        layers=(one,) * vision.need("layers"),
        around=(
            patch_embedding(f"{at}.conv1", width, 3 * patch**2, bias=False),
            patch_embedding(f"{at}.vit_downsampler1", 2 * width, _PIXELS * width),
            patch_embedding(f"{at}.vit_downsampler2", 4 * width, _PIXELS * 2 * width),
            linear("vit_large_projector", outputs, 4 * width, Cut.OUTPUTS, bias=bias),
        ),
        vectors=Vectors(whole=places + (2 * norms + classed) * width),
        patches=patches + classed,
        tokens=patches // 16,
        image=image,
    )
