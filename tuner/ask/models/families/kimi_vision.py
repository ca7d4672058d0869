"""Kimi-K2.5, K2.6 and K3 with images (vLLM ``models/kimi_k25.py``, ``kimi_k25_vit.py``, ``models/kimi_k3/``):
MoonViT."""

from __future__ import annotations

from tuner.ask.models.attention import ProjectionNames
from tuner.ask.models.blocks import MlpNames
from tuner.ask.models.config import Config
from tuner.ask.models.described import Described, Tower
from tuner.ask.models.families import deepseek, kimi_linear
from tuner.ask.models.matrices import Vectors
from tuner.ask.models.towers import SIDE, TowerNames, block, patch_embedding, rows, two_layers, with_towers

_COMMON = {"patch_size": 14, "init_pos_emb_height": 64, "init_pos_emb_width": 64, "merge_kernel_size": [2, 2]}
_COMMON |= {"num_hidden_layers": 27}
SECOND = _COMMON | {  # of vLLM's KimiK25VisionConfig
    "num_attention_heads": 16,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "mm_projector_type": "patchmerger",
    "norm_type": "layernorm",
}
THIRD = _COMMON | {  # of vLLM's KimiK3VisionConfig
    "num_attention_heads": 12,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "qkv_hidden_size": 1536,
    "mm_projector_type": "patchmergerv2",
    "norm_type": "rmsnorm",
    "attn_bias": False,
    "linear_bias": False,
    "patch_embed_proj_bias": False,
    "text_hidden_size": 2304,
}
_NAMES = TowerNames("", "mlp", ProjectionNames("wqkv", "wqkv", "wqkv", "wqkv", "wo"), MlpNames(up="fc0", down="fc1"))
_OLDER = {one: f"vt_{one}" for one in ("num_attention_heads", "num_hidden_layers", "hidden_size", "intermediate_size")}
_NORMS = {"layernorm": 2, "rmsnorm": 1}  # vectors of one


def read(config: Config, text: Config) -> Described:
    """The language model is DeepSeek-V3's, or that of Kimi-Linear."""
    third = "K3" in str(next(iter(config.entries("architectures"))))
    found = (kimi_linear if third else deepseek).read(config, text)
    vision = config.part("vision_config").having(**(THIRD if third else SECOND)).renamed(**_OLDER)
    return with_towers(found, [_moon(vision, found.hidden)])


def _moon(vision: Config, outputs: int) -> Tower:
    vision.only("pos_emb_type", "divided_fixed")
    vision.only("mlp_type", "mlp2")
    hidden, heads, patch = vision.need("hidden_size"), vision.need("num_attention_heads"), vision.need("patch_size")
    norm = vision.one_of("norm_type", _NORMS)
    one = block(
        hidden,
        heads,
        vision.need("intermediate_size"),
        prefix="vision_tower.encoder.blocks",
        names=_NAMES,
        head_dim=(vision.count("qkv_hidden_size") or hidden) // heads,
        bias=vision.flag("attn_bias", True),
        mlp_bias=vision.flag("linear_bias", True),
        norms=2 * norm,
    )
    across, down = vision.numbers("merge_kernel_size", 2)
    newer = vision.one_of("mm_projector_type", {"patchmerger": False, "patchmergerv2": True})
    width, at = hidden * across * down, "mm_projector"
    out = vision.need("text_hidden_size") if newer else outputs  # whatever K2.5's ``mm_hidden_size`` says
    projector = two_layers(f"{at}.linear_1", f"{at}.linear_2", width, width, out, bias=not newer, whole=True)
    places = vision.need("init_pos_emb_height") * vision.need("init_pos_emb_width") * hidden
    patches = rows(SIDE, patch, down)
    bias = vision.flag("patch_embed_proj_bias", True)
    return Tower(
        kind="vision",
        hidden=hidden,
        layers=(one,) * vision.need("num_hidden_layers"),
        around=(patch_embedding("vision_tower.patch_embed.proj", hidden, 3 * patch**2, bias=bias), *projector),
        vectors=Vectors(whole=places + norm * hidden + (out if newer else 2 * hidden)),
        patches=patches,
        tokens=patches // (across * down),
        image=SIDE,
    )
