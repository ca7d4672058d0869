"""MiniMax-M3 with images (vLLM ``models/minimax_m3/common/vision_tower.py``): as CLIP, with two projectors."""

from __future__ import annotations

from tuner.ask.models.attention import ProjectionNames
from tuner.ask.models.blocks import MlpNames
from tuner.ask.models.config import Config
from tuner.ask.models.described import Described, Tower
from tuner.ask.models.families import minimax_m3
from tuner.ask.models.matrices import Vectors
from tuner.ask.models.towers import SIDE, TowerNames, block, patch_embedding, rows, two_layers, with_towers

_NAMES = TowerNames("self_attn", "", ProjectionNames(output="out_proj"), MlpNames(up="fc1", down="fc2"))


def read(config: Config, text: Config) -> Described:
    """The engine has no defaults for the encoder: the file gives all of it."""
    found = minimax_m3.read(config, text)
    vision = config.part("vision_config")
    return with_towers(found, [_tower(config, vision, found.hidden)])


def _tower(config: Config, vision: Config, outputs: int) -> Tower:
    hidden, patch = vision.need("hidden_size"), vision.need("patch_size")
    compression = vision.part("img_token_compression_config")
    merge, frames = compression.count("spatial_merge_size") or 2, compression.count("temporal_patch_size") or 2
    at, middle = "vision_tower", config.count("projector_hidden_size") or outputs
    one = block(
        hidden,
        vision.need("num_attention_heads"),
        vision.need("intermediate_size"),
        prefix=f"{at}.vision_model.encoder.layers",
        names=_NAMES,
    )
    pixels, patches = vision.need("num_channels") * frames * patch**2, rows(SIDE, patch, merge)
    first, second = f"{at}.multi_modal_projector", f"{at}.patch_merge_mlp"
    bias, merged_bias = vision.flag("multimodal_projector_bias", True), vision.flag("patch_merge_bias", True)
    return Tower(
        kind="vision",
        hidden=hidden,
        layers=(one,) * vision.need("num_hidden_layers"),
        around=(
            patch_embedding(f"{at}.vision_model.embeddings.patch_embedding", hidden, pixels, bias=False),
            *two_layers(f"{first}.linear_1", f"{first}.linear_2", hidden, middle, outputs, bias=bias),
            *two_layers(
                f"{second}.linear_1", f"{second}.linear_2", outputs * merge**2, middle, outputs, bias=merged_bias
            ),
        ),
        vectors=Vectors(whole=2 * hidden),
        patches=patches,
        tokens=patches // merge**2,
        image=SIDE,
    )
