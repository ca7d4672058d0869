"""The vision encoders of Qwen's three generations, and of those who took them over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.ask.models.blocks import Block, MlpNames
from tuner.ask.models.config import Config
from tuner.ask.models.described import Tower
from tuner.ask.models.matrices import Matrix, Vectors
from tuner.ask.models.towers import SIDE, TowerNames, block, merged, patch_embedding, rows, two_layers

_COMMON: Mapping[str, Any] = {
    "in_channels": 3,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "num_heads": 16,
}
SECOND = {**_COMMON, "depth": 32, "embed_dim": 1280, "hidden_size": 3584, "mlp_ratio": 4}
BETWEEN = {**_COMMON, "depth": 32, "hidden_size": 3584, "intermediate_size": 3420, "out_hidden_size": 3584}
BETWEEN |= {"window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]}
THIRD = {**_COMMON, "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "out_hidden_size": 3584}
THIRD |= {"patch_size": 16, "num_position_embeddings": 2304, "deepstack_visual_indexes": [8, 16, 24]}

_QKV = merged("qkv", "proj")
_FC = TowerNames("attn", "mlp", _QKV, MlpNames(up="fc1", down="fc2"))
_GATED = TowerNames("attn", "mlp", _QKV, MlpNames())
_LINEAR_FC = TowerNames("attn", "mlp", _QKV, MlpNames(up="linear_fc1", down="linear_fc2"))


def second(vision: Config, prefix: str = "visual") -> Tower:
    """Of Qwen2-VL: ``hidden_size`` is the language model's there."""
    vision = vision.having(**SECOND)
    hidden, unit = vision.need("embed_dim"), vision.need("spatial_merge_size") ** 2
    one = block(
        hidden, vision.need("num_heads"), hidden * vision.need("mlp_ratio"), prefix=f"{prefix}.blocks", names=_FC
    )
    at, width = f"{prefix}.merger.mlp", hidden * unit
    return _tower(
        vision,
        hidden,
        (one,) * vision.need("depth"),
        patch_embedding(f"{prefix}.patch_embed.proj", hidden, _pixels(vision), bias=False),
        *two_layers(f"{at}.0", f"{at}.2", width, width, vision.need("hidden_size")),
        vectors=2 * hidden,
    )


def second_and_a_half(vision: Config, prefix: str = "visual") -> Tower:
    """Of Qwen2.5-VL: most blocks see a window of pixels."""
    vision = vision.having(**BETWEEN)
    hidden, count, unit = vision.need("hidden_size"), vision.need("depth"), vision.need("spatial_merge_size") ** 2
    window = (vision.need("window_size") // vision.need("patch_size")) ** 2
    full = set(vision.numbers("fullatt_block_indexes"))
    kinds = {
        chunk: block(
            hidden,
            vision.need("num_heads"),
            vision.need("intermediate_size"),
            prefix=f"{prefix}.blocks",
            names=_GATED,
            gated=True,
            norms=2,
            chunk=chunk,
        )
        for chunk in (None, window)
    }
    at, width = f"{prefix}.merger.mlp", hidden * unit
    return _tower(
        vision,
        hidden,
        tuple(kinds[None if number in full else window] for number in range(count)),
        patch_embedding(f"{prefix}.patch_embed.proj", hidden, _pixels(vision), bias=False),
        *two_layers(f"{at}.0", f"{at}.2", width, width, vision.need("out_hidden_size")),
        vectors=hidden,
    )


def third(vision: Config, *, deep: bool = True, prefix: str = "model.visual") -> Tower:
    """Of Qwen3-VL: ``deep`` layers are read too, each by a merger of its own. Of Qwen3.5: the last alone, unless the
    file lists others."""
    vision = vision.having(**(THIRD if deep else {**THIRD, "deepstack_visual_indexes": []}))
    hidden, unit = vision.need("hidden_size"), vision.need("spatial_merge_size") ** 2
    width, out = hidden * unit, vision.need("out_hidden_size")
    one = block(
        hidden,
        vision.need("num_heads"),
        vision.need("intermediate_size"),
        prefix=f"{prefix}.blocks",
        names=_LINEAR_FC,
    )
    levels = len(vision.entries("deepstack_visual_indexes"))
    mergers = [f"{prefix}.merger", *(f"{prefix}.deepstack_merger_list.{number}" for number in range(levels))]
    behind = (two_layers(f"{at}.linear_fc1", f"{at}.linear_fc2", width, width, out) for at in mergers)
    return _tower(
        vision,
        hidden,
        (one,) * vision.need("depth"),
        patch_embedding(f"{prefix}.patch_embed.proj", hidden, _pixels(vision)),
        *(matrix for pair in behind for matrix in pair),
        vectors=vision.need("num_position_embeddings") * hidden + 2 * hidden + levels * 2 * width,
    )


def _pixels(vision: Config) -> int:
    channels = vision.need("in_chans") if vision.stated("in_chans") else vision.need("in_channels")
    return channels * vision.need("temporal_patch_size") * vision.need("patch_size") ** 2


def _tower(vision: Config, hidden: int, layers: tuple[Block, ...], *around: Matrix, vectors: int) -> Tower:
    merge = vision.need("spatial_merge_size")
    patches = rows(SIDE, vision.need("patch_size"), merge)
    return Tower(
        kind="vision",
        hidden=hidden,
        layers=layers,
        around=around,
        vectors=Vectors(whole=vectors),
        patches=patches,
        tokens=patches // merge**2,
        image=SIDE,
    )
