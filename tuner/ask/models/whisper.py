"""Encoders of sound after Whisper (vLLM ``models/whisper.py``, and its likes in Qwen's Audio and Omni models)."""

from __future__ import annotations

from tuner.ask.models.attention import ProjectionNames
from tuner.ask.models.blocks import MlpNames
from tuner.ask.models.config import Config
from tuner.ask.models.described import Tower
from tuner.ask.models.matrices import Matrix, Vectors
from tuner.ask.models.towers import TowerNames, block

DEFAULTS = {  # of WhisperConfig of Transformers 5, whose sizes most take over
    "d_model": 384,
    "encoder_layers": 4,
    "encoder_attention_heads": 6,
    "encoder_ffn_dim": 1536,
    "num_mel_bins": 80,
    "max_source_positions": 1500,
}
KERNEL = 3  # of both convolutions
_NAMES = TowerNames("self_attn", "", ProjectionNames(output="out_proj"), MlpNames(up="fc1", down="fc2"))


def encoder(
    audio: Config,
    *,
    prefix: str = "audio_tower",
    around: tuple[Matrix, ...] = (),
    vectors: int = 0,
    positions: bool = True,
    convolutions: int | None = None,
    whole: bool = False,
    key_bias: bool = True,
) -> Tower:
    """Whisper's, with what projects to the language model in ``around`` and so many more numbers in ``vectors``.
    ``convolutions``: elements of others than Whisper's two; ``positions``: a table of them is kept;
    ``key_bias``: keys have one, too."""
    hidden = audio.need("d_model")
    one = block(
        hidden,
        audio.need("encoder_attention_heads"),
        audio.need("encoder_ffn_dim"),
        prefix=f"{prefix}.layers",
        names=_NAMES,
        more=0 if key_bias else -hidden,
    )
    if convolutions is None:
        convolutions = KERNEL * hidden * (audio.need("num_mel_bins") + hidden) + 2 * hidden
    table = audio.need("max_source_positions") * hidden if positions else 0
    return Tower(
        kind="audio",
        hidden=hidden,
        layers=(one,) * audio.need("encoder_layers"),
        around=around,
        vectors=Vectors(whole=convolutions + table + 2 * hidden + vectors),
        whole=whole,
    )
