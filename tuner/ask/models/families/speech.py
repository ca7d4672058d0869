"""Voxtral and Ultravox: a language model behind Whisper (vLLM ``models/voxtral.py``, ``ultravox.py``)."""

from __future__ import annotations

from tuner.ask.models.config import Config
from tuner.ask.models.described import Described
from tuner.ask.models.nested import language_model
from tuner.ask.models.towers import linear, two_layers, with_towers
from tuner.ask.models.whisper import DEFAULTS, encoder

VOXTRAL = {  # of VoxtralEncoderConfig of Transformers 5
    "d_model": 1280,
    "encoder_layers": 32,
    "encoder_attention_heads": 20,
    "encoder_ffn_dim": 5120,
    "num_mel_bins": 128,
    "max_source_positions": 1500,
}
STACKED = 4  # frames that Voxtral reads as one
ULTRAVOX = {"stack_factor": 8, "hidden_size": 4096}
_NAMES = {
    "d_model": "hidden_size",
    "encoder_layers": "num_hidden_layers",
    "encoder_attention_heads": "num_attention_heads",
    "encoder_ffn_dim": "intermediate_size",
}


def read(config: Config, text: Config) -> Described:
    """Ultravox's own matrices alone are in its file where it names a language model elsewhere: that is refused."""
    audio = config.part("audio_config")
    if str(next(iter(config.entries("architectures")))).startswith("Voxtral"):
        found = language_model(config, text, "llama")
        audio = audio.having(**VOXTRAL).renamed(**_NAMES)
        factor = audio.count("downsample_factor") or STACKED
        at, width = "audio_language_adapter", audio.need("d_model") * factor
        adapter = two_layers(f"{at}.w_in", f"{at}.w_out", width, found.hidden, found.hidden, bias=False, whole=True)
        return with_towers(found, [encoder(audio, prefix="whisper_encoder.whisper_encoder", around=adapter)])
    if text is config:
        raise config.refuse("text_config", "the settings of its language model")
    found = language_model(config, text)
    config, audio = config.having(**ULTRAVOX), audio.having(**DEFAULTS)
    config.only("num_projector_layers", 0)
    width, middle = audio.need("d_model") * config.need("stack_factor"), config.need("hidden_size")
    inner = middle // 2 if config.word("projector_act", "swiglu") == "swiglu" else middle
    at, between = "multi_modal_projector", config.flag("projector_ln_mid")
    projector = (
        linear(f"{at}.linear_1", middle, width, bias=False),
        linear(f"{at}.linear_2", found.hidden, inner, bias=False),
    )
    norms = width + (inner if between else found.hidden)
    return with_towers(found, [encoder(audio, around=projector, vectors=norms)])
