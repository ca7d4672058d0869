"""DeepSeek-VL2 (vLLM ``models/deepseek_vl2.py``): timm's SigLIP, whose MLPs alone are cut, four patches to a token."""

from __future__ import annotations

from itertools import pairwise

from tuner.ask.models.blocks import MlpNames
from tuner.ask.models.config import Config
from tuner.ask.models.described import Described, Tower
from tuner.ask.models.families import deepseek
from tuner.ask.models.matrices import Cut, Matrix, Vectors
from tuner.ask.models.towers import TowerNames, block, linear, merged, patch_embedding, with_towers

# timm's vit_so400m_patch14_siglip_384.webli, whatever the file says
HIDDEN, INTER, LAYERS, HEADS, PATCH, SIDE = 1152, 4304, 27, 16, 14, 384
VOCAB = 102400
PROJECTOR = {"n_embed": 2048, "depth": 2, "mlp_ratio": 1, "downsample_ratio": 2}
_NAMES = TowerNames("attn", "mlp", merged("qkv", "proj"), MlpNames(up="fc1", down="fc2"))


def read(config: Config, text: Config) -> Described:
    """An image of the encoder's own size is seen twice, each line of tokens ended by one more."""
    config.only("tile_tag", "2D")
    return with_towers(deepseek.read(config, text.filled(vocab_size=VOCAB)), [_tower(config.part("projector_config"))])


def _tower(projector: Config) -> Tower:
    projector = projector.having(**PROJECTOR)
    projector.only("projector_type", "downsample_mlp_gelu")
    projector.only("token_pooling", False)
    out, ratio = projector.need("n_embed"), projector.need("downsample_ratio")
    one = block(HIDDEN, HEADS, INTER, prefix="vision.blocks", names=_NAMES, whole=True)
    side = SIDE // PATCH
    merged_side = -(-side // ratio)
    line = merged_side * (merged_side + 1)
    return Tower(
        kind="vision",
        hidden=HIDDEN,
        layers=(one,) * LAYERS,
        around=(
            patch_embedding("vision.patch_embed.proj", HIDDEN, 3 * PATCH**2),
            *_pooling(),
            *_layers(projector, HIDDEN * ratio**2, out * projector.need("mlp_ratio"), out),
        ),
        vectors=Vectors(whole=side**2 * HIDDEN + (2 + 2 + 1) * HIDDEN + 2 * out),  # two norms, the pool's query
        patches=side**2,
        crops=2,
        tokens=2 * line + 1,
        image=SIDE,
    )


def _pooling() -> tuple[Matrix, ...]:
    """The head that timm has and nobody asks."""
    at = "vision.attn_pool"
    return (
        linear(f"{at}.q", HIDDEN, HIDDEN),
        linear(f"{at}.kv", 2 * HIDDEN, HIDDEN),
        linear(f"{at}.proj", HIDDEN, HIDDEN),
        linear(f"{at}.mlp.fc1", INTER, HIDDEN, Cut.OUTPUTS),
        linear(f"{at}.mlp.fc2", HIDDEN, INTER, Cut.INPUTS),
    )


def _layers(projector: Config, inputs: int, middle: int, out: int) -> tuple[Matrix, ...]:
    widths = [inputs, *([middle] * (projector.need("depth") - 1)), out]
    pairs = enumerate(pairwise(widths))
    return tuple(linear(f"projector.layers.{2 * at}", after, before) for at, (before, after) in pairs)
