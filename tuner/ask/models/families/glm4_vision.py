"""GLM-4.1V, GLM-4.5V and GLM-4.6V (vLLM ``models/glm4_1v.py``): patches merged by a convolution, then a gated MLP."""

from __future__ import annotations

from tuner.ask.models.blocks import MlpNames
from tuner.ask.models.config import Config
from tuner.ask.models.described import Described, Tower
from tuner.ask.models.families import glm4, glm_moe
from tuner.ask.models.matrices import Cut, Vectors
from tuner.ask.models.towers import SIDE, TowerNames, block, linear, merged, patch_embedding, rows, with_towers

DEFAULTS = {  # of Glm4vVisionConfig of Transformers 5
    "depth": 24,
    "hidden_size": 1536,
    "num_heads": 12,
    "in_channels": 3,
    "image_size": 336,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": 4096,
    "intermediate_size": 13696,
}
TEXT = {  # of Glm4vTextConfig, where it differs from Glm4Config; heads divide the width
    "head_dim": 0,
    "attention_bias": False,
    "max_position_embeddings": 32768,
}
MIXTURE = {  # of Glm4vMoeTextConfig, where it differs from Glm4MoeConfig
    "vocab_size": 151424,
    "num_hidden_layers": 46,
    "max_position_embeddings": 65536,
    "attention_bias": True,
}
_NAMES = TowerNames("attn", "mlp", merged("qkv", "proj"), MlpNames())


def read(config: Config, text: Config) -> Described:
    """The language model is GLM-4's, or its mixture."""
    config = config.having(tie_word_embeddings=False)
    if "Moe" in str(next(iter(config.entries("architectures")))):
        found = glm_moe.read(config, text.filled(**MIXTURE))
    else:
        found = glm4.read(config, text.filled(**TEXT))
    return with_towers(found, [_tower(config.part("vision_config").having(**DEFAULTS))])


def _tower(vision: Config) -> Tower:
    hidden, out, patch = vision.need("hidden_size"), vision.need("out_hidden_size"), vision.need("patch_size")
    merge, inter = vision.need("spatial_merge_size"), vision.need("intermediate_size")
    one = block(
        hidden,
        vision.need("num_heads"),
        out,
        prefix="visual.blocks",
        names=_NAMES,
        gated=True,
        bias=False,
        norms=2,
    )
    pixels = vision.need("in_channels") * vision.need("temporal_patch_size") * patch**2
    patches, at = rows(SIDE, patch, merge), "visual.merger"
    return Tower(
        kind="vision",
        hidden=hidden,
        layers=(one,) * vision.need("depth"),
        around=(
            patch_embedding("visual.patch_embed.proj", hidden, pixels),
            patch_embedding("visual.downsample", out, hidden * merge**2),
            linear(f"{at}.proj", out, out, Cut.OUTPUTS, bias=False),
            linear(f"{at}.gate_proj", inter, out, Cut.OUTPUTS, bias=False),
            linear(f"{at}.up_proj", inter, out, Cut.OUTPUTS, bias=False),
            linear(f"{at}.down_proj", out, inter, Cut.INPUTS, bias=False),
        ),
        vectors=Vectors(whole=((vision.need("image_size") // patch) ** 2 + 2) * hidden + 2 * out),
        patches=patches,
        tokens=patches // merge**2,
        image=SIDE,
    )
