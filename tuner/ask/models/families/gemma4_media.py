"""Gemma 4 with images and sounds (vLLM ``models/gemma4_mm.py``): encoders of Transformers, whole on every rank."""

from __future__ import annotations

from tuner.ask.models.attention import ProjectionNames
from tuner.ask.models.blocks import MlpNames
from tuner.ask.models.config import Config
from tuner.ask.models.conformer import conformer
from tuner.ask.models.described import Described, Tower
from tuner.ask.models.families import gemma4
from tuner.ask.models.matrices import Vectors
from tuner.ask.models.towers import TowerNames, block, linear, rows, with_towers

VISION = {  # of Gemma4VisionConfig of Transformers 5
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 16,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
    "head_dim": 64,
    "pooling_kernel_size": 3,
    "patch_size": 16,
    "position_embedding_size": 10240,
}
AUDIO = {  # of Gemma4AudioConfig
    "hidden_size": 1024,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "conv_kernel_size": 5,
    "subsampling_conv_channels": [128, 32],
    "output_proj_dims": 1536,
}
SIDE = 768  # pixels of a square image, of which at most 280 tokens are made
_LINEAR = TowerNames(
    "self_attn",
    "mlp",
    ProjectionNames("q_proj.linear", "k_proj.linear", "v_proj.linear", "qkv_proj", "o_proj.linear"),
    MlpNames("gate_proj.linear", "up_proj.linear", "down_proj.linear"),
)


def read(config: Config, text: Config) -> Described:
    """Encoders are there where the file has their settings."""
    found = gemma4.read(config, text)
    towers = [_vision(config.part("vision_config"), found.hidden)] if config.has("vision_config") else []
    if config.has("audio_config"):
        towers.append(_audio(config.part("audio_config"), found.hidden))
    return with_towers(found, towers)


def _vision(vision: Config, outputs: int) -> Tower:
    vision = vision.having(**VISION)
    vision.only("attention_bias", False)
    hidden, patch, pool = vision.need("hidden_size"), vision.need("patch_size"), vision.need("pooling_kernel_size")
    one = block(
        hidden,
        vision.need("num_attention_heads"),
        vision.need("intermediate_size"),
        prefix="vision_tower.encoder.layers",
        names=_LINEAR,
        head_dim=vision.need("head_dim"),
        kv_heads=vision.need("num_key_value_heads"),
        gated=True,
        bias=False,
        norms=4,
        head_norms=2 * vision.need("head_dim"),
    )
    patches = rows(SIDE, patch, pool)
    return Tower(
        kind="vision",
        hidden=hidden,
        layers=(one,) * vision.need("num_hidden_layers"),
        around=(
            linear("vision_tower.patch_embedder.input_proj", hidden, 3 * patch**2, bias=False, plain=True),
            linear("embed_vision.embedding_projection", outputs, hidden, bias=False),
        ),
        vectors=Vectors(whole=2 * vision.need("position_embedding_size") * hidden),
        whole=True,
        patches=patches,
        tokens=patches // pool**2,
        image=SIDE,
    )


def _audio(audio: Config, outputs: int) -> Tower:
    audio = audio.having(**AUDIO)
    first, second = audio.numbers("subsampling_conv_channels", 2)
    width = audio.need("output_proj_dims")
    return conformer(
        audio,
        layers=audio.need("num_hidden_layers"),
        heads=audio.need("num_attention_heads"),
        kernel=audio.need("conv_kernel_size"),
        channels=(first, second),
        around=(
            linear("audio_tower.output_proj", width, audio.need("hidden_size")),
            linear("embed_audio.embedding_projection", outputs, width, bias=False),
        ),
    )
