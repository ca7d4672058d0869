"""CLIP, SigLIP and Pixtral by the keys of their classes (vLLM ``models/clip.py``, ``siglip.py``, ``pixtral.py``): the
towers of LLaVA and of those after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.ask.models.attention import ProjectionNames
from tuner.ask.models.blocks import MlpNames
from tuner.ask.models.config import Config
from tuner.ask.models.described import Tower
from tuner.ask.models.matrices import Matrix, Vectors
from tuner.ask.models.towers import SIDE, TowerNames, block, patch_embedding, rows

CLIP, SIGLIP, PIXTRAL = "clip_vision_model", "siglip_vision_model", "pixtral"
_BASE = {"num_channels": 3, "hidden_size": 768, "intermediate_size": 3072}
_BASE |= {"num_hidden_layers": 12, "num_attention_heads": 12, "image_size": 224}
DEFAULTS: Mapping[str, Mapping[str, Any]] = {  # of CLIPVisionConfig, SiglipVisionConfig, PixtralVisionConfig
    CLIP: {**_BASE, "patch_size": 32},
    SIGLIP: {**_BASE, "patch_size": 16},
    PIXTRAL: {
        "num_channels": 3,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 1024,
        "patch_size": 16,
    },
}
_PIXTRAL = TowerNames("attention", "feed_forward", ProjectionNames(), MlpNames())


def kind_of(vision: Config, absent: str = CLIP) -> str:
    """Which of the three; refuses others."""
    kind = vision.word("model_type", absent)
    if kind not in DEFAULTS:
        raise vision.refuse("model_type", ", ".join(DEFAULTS))
    return kind


def sized(vision: Config, kind: str) -> Config:
    """With the defaults of the class of that kind."""
    return vision.having(**DEFAULTS[kind])


def depth(config: Config, layers: int, absent: int) -> int:
    """Layers that are built: as deep as the deepest whose output is read (``vision_feature_layer``)."""
    value = config.get("vision_feature_layer")
    chosen = [absent] if value is None else value if isinstance(value, list | tuple) else [value]
    if not chosen or any(not isinstance(one, int) or not -layers <= one <= layers for one in chosen):
        raise config.refuse("vision_feature_layer", f"layers of {layers}")
    return max(one if one >= 0 else layers + one + 1 for one in chosen)


def tower(
    vision: Config,
    kind: str,
    *,
    layers: int | None = None,
    last_norm: bool | None = None,
    prefix: str = "vision_tower",
    projector: tuple[Matrix, ...] = (),
    vectors: int = 0,
    tokens: int | None = None,
    crops: int = 1,
    image: int | None = None,
    merge: int = 1,
    rows_seen: int | None = None,
) -> Tower:
    """The first ``layers`` of it and a ``projector`` with so many numbers in ``vectors``. The norm after the last layer
    is built where all of them are, unless ``last_norm`` says. ``rows_seen``: patches of an image, where that is not the
    encoder's own size."""
    vision = sized(vision, kind)
    hidden, built = vision.need("hidden_size"), layers or vision.need("num_hidden_layers")
    heads, inter = vision.need("num_attention_heads"), vision.need("intermediate_size")
    patch, side = vision.need("patch_size"), vision.need("image_size")
    last = built == vision.need("num_hidden_layers") if last_norm is None else last_norm
    own = 2 * hidden if last else 0
    found, seen, at = (side // patch) ** 2, side, f"{prefix}.vision_model"
    if kind == PIXTRAL:  # positions are rotated, images come as they are
        seen = min(SIDE, side) if image is None else image
        found, own = rows(seen, patch, merge), hidden
        one = block(
            hidden, heads, inter, prefix=f"{prefix}.transformer.layers", names=_PIXTRAL, gated=True, bias=False, norms=2
        )
        name = f"{prefix}.patch_conv"
    else:
        positions = found + (kind == CLIP)  # with the class
        own += positions * hidden + (3 * hidden if kind == CLIP else 0)  # CLIP: class and norm before the layers
        one = block(hidden, heads, inter, prefix=f"{at}.encoder.layers")
        name, found, seen = f"{at}.embeddings.patch_embedding", positions, image or side
    pixels = vision.need("num_channels") * patch**2
    return Tower(
        kind="vision",
        hidden=hidden,
        layers=(one,) * built,
        around=(patch_embedding(name, hidden, pixels, bias=kind == SIGLIP), *projector),
        vectors=Vectors(whole=own + vectors),
        patches=rows_seen or found,
        crops=crops,
        tokens=found // merge**2 if tokens is None else tokens,
        image=seen,
    )
