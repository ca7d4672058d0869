"""dots.ocr (vLLM ``models/dots_ocr.py``): Qwen2 behind an encoder of its own, four patches to a token."""

from __future__ import annotations

from tuner.ask.models.blocks import MlpNames
from tuner.ask.models.config import Config
from tuner.ask.models.described import Described, Tower
from tuner.ask.models.families import qwen2
from tuner.ask.models.matrices import Vectors
from tuner.ask.models.towers import SIDE, TowerNames, block, merged, patch_embedding, rows, two_layers, with_towers

VISION = {  # of vLLM's DotsVisionConfig
    "embed_dim": 1536,
    "hidden_size": 1536,
    "intermediate_size": 4224,
    "num_hidden_layers": 42,
    "num_attention_heads": 12,
    "num_channels": 3,
    "patch_size": 14,
    "spatial_merge_size": 2,
}
_NAMES = TowerNames("attn", "mlp", merged("qkv", "proj"), MlpNames("fc1", "fc3", "fc2", "fc13"))


def read(config: Config, text: Config) -> Described:
    """The language model's keys are at the top."""
    found = qwen2.read(config, text)
    return with_towers(found, [_tower(config.part("vision_config").having(**VISION))])


def _tower(vision: Config) -> Tower:
    width, patch, merge = vision.need("embed_dim"), vision.need("patch_size"), vision.need("spatial_merge_size")
    one = block(
        width,
        vision.need("num_attention_heads"),
        vision.need("intermediate_size"),
        prefix="vision_tower.blocks",
        names=_NAMES,
        gated=True,
        bias=vision.flag("use_bias"),
        norms=2,
    )
    patches, wide, at = rows(SIDE, patch, merge), width * merge**2, "vision_tower.merger.mlp"
    pixels = vision.need("num_channels") * patch**2
    norms = 1 + vision.flag("post_norm", True) + 2  # the merger's has biases
    return Tower(
        kind="vision",
        hidden=width,
        layers=(one,) * vision.need("num_hidden_layers"),
        around=(
            patch_embedding("vision_tower.patch_embed.patchifier.proj", width, pixels),
            *two_layers(f"{at}.0", f"{at}.2", wide, wide, vision.need("hidden_size")),
        ),
        vectors=Vectors(whole=norms * width),
        patches=patches,
        tokens=patches // merge**2,
        image=SIDE,
    )
