"""Qwen2-Audio, Qwen2.5-Omni and Qwen3-Omni without what speaks, and Qwen3-ASR (vLLM ``models/qwen2_audio.py``,
``qwen2_5_omni_thinker.py``, ``qwen3_omni_moe_thinker.py``, ``qwen3_asr.py``)."""

from __future__ import annotations

from tuner.ask.models.config import Config
from tuner.ask.models.described import Described, Tower
from tuner.ask.models.families import qwen2, qwen3, qwen_moe
from tuner.ask.models.qwen_towers import second_and_a_half, third
from tuner.ask.models.towers import linear, with_towers
from tuner.ask.models.whisper import encoder

AUDIO = {  # of Qwen2AudioEncoderConfig and its followers in Transformers 5
    "num_mel_bins": 128,
    "encoder_layers": 32,
    "encoder_attention_heads": 20,
    "encoder_ffn_dim": 5120,
    "d_model": 1280,
    "max_source_positions": 1500,
    "output_dim": 3584,
    "downsample_hidden_size": 480,
}
TEXT = {  # of Qwen2_5OmniTextConfig
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
}
_PIXELS = 9  # of a convolution


def read(config: Config, text: Config) -> Described:
    """The thinker alone: talkers are not served."""
    architecture = str(next(iter(config.entries("architectures"))))
    inner = config.part("thinker_config") if config.has("thinker_config") else config
    audio = inner.part("audio_config").having(**AUDIO)
    if architecture.startswith("Qwen2Audio"):
        found = qwen2.read(inner, text)
        width = audio.need("d_model")
        projector = linear("multi_modal_projector.linear", found.hidden, width)
        return with_towers(found, [encoder(audio, around=(projector,), whole=True, key_bias=False)])
    if architecture.startswith("Qwen2_5Omni"):
        found = qwen2.read(inner, text.filled(**TEXT))
        return with_towers(found, [_second(audio), second_and_a_half(inner.part("vision_config"))])
    if architecture.startswith("Qwen3ASR"):
        return with_towers(qwen3.read(inner, text), [_third(audio)])
    found = qwen_moe.read(inner, text)
    return with_towers(found, [_third(audio), third(inner.part("vision_config"), prefix="visual")])


def _second(audio: Config) -> Tower:
    """Whisper's of Transformers, whole on every rank, with marks of begin and end."""
    out = audio.need("output_dim")
    projector = linear("audio_tower.proj", out, audio.need("d_model"))
    return encoder(audio, around=(projector,), vectors=2 * out, positions=False, whole=True, key_bias=False)


def _third(audio: Config) -> Tower:
    """Three convolutions that halve both sides of a spectrum."""
    width, hidden, bins = audio.need("downsample_hidden_size"), audio.need("d_model"), audio.need("num_mel_bins")
    for _ in range(3):
        bins = (bins + 1) // 2
    return encoder(
        audio,
        around=(
            linear("audio_tower.conv_out", hidden, width * bins, bias=False),
            linear("audio_tower.proj1", hidden, hidden),
            linear("audio_tower.proj2", audio.need("output_dim"), hidden),
        ),
        positions=False,
        convolutions=_PIXELS * width * (1 + 2 * width) + 3 * width,
    )
