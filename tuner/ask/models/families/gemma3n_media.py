"""Gemma 3n with images and sounds (vLLM ``models/gemma3n_mm.py``): MobileNetV5 and a Conformer, whole on every rank."""

from __future__ import annotations

from tuner.ask.models.config import Config
from tuner.ask.models.conformer import conformer
from tuner.ask.models.described import Described, Tower
from tuner.ask.models.families import gemma3n
from tuner.ask.models.matrices import Matrix, Vectors
from tuner.ask.models.towers import linear, with_towers

AUDIO = {  # of Gemma3nAudioConfig of Transformers 5
    "hidden_size": 1536,
    "vocab_size": 128,
    "conf_num_hidden_layers": 12,
    "conf_num_attention_heads": 8,
    "conf_conv_kernel_size": 5,
    "sscp_conv_channel_size": [128, 32],
}
VISION = {"hidden_size": 2048, "vocab_size": 128, "architecture": "mobilenetv5_300m_enc"}
MOBILENET = 294_284_096  # parameters of timm's mobilenetv5_300m_enc
SIDE, TOKENS = 768, 256


def read(config: Config, text: Config) -> Described:
    """Each encoder has a small vocabulary of its own beside its projection."""
    found = gemma3n.read(config, text)
    vision = config.part("vision_config").having(**VISION)
    vision.only("architecture", VISION["architecture"])
    width = vision.need("hidden_size")
    seen = Tower(
        kind="vision",
        hidden=width,
        layers=(),
        around=(_projection("embed_vision", found.hidden, width),),
        vectors=Vectors(whole=MOBILENET + _beside(vision)),
        whole=True,
        tokens=config.count("vision_soft_tokens_per_image") or TOKENS,
        image=SIDE,
    )
    audio = config.part("audio_config").having(**AUDIO)
    first, second = audio.numbers("sscp_conv_channel_size", 2)
    heard = conformer(
        audio,
        layers=audio.need("conf_num_hidden_layers"),
        heads=audio.need("conf_num_attention_heads"),
        kernel=audio.need("conf_conv_kernel_size"),
        channels=(first, second),
        around=(_projection("embed_audio", found.hidden, audio.need("hidden_size")),),
        vectors=_beside(audio),
        prefix="audio_tower.conformer",
    )
    return with_towers(found, [seen, heard], "the image encoder (MobileNetV5, convolutions)")


def _projection(name: str, outputs: int, width: int) -> Matrix:
    return linear(f"{name}.embedding_projection", outputs, width, bias=False)


def _beside(part: Config) -> int:
    """Its vocabulary, and two norms."""
    return (part.need("vocab_size") + 2) * part.need("hidden_size")
