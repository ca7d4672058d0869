"""MiniCPM3: latent attention whose keys and values are cached by head (vLLM ``models/minicpm3.py``)."""

from __future__ import annotations

from tuner.ask.models.blocks import Block, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import decoder, latent_attention
from tuner.ask.models.described import Described
from tuner.ask.models.matrices import Vectors

# MiniCPM3Config of Transformers 5
DEFAULTS = {
    "vocab_size": 73448,
    "hidden_size": 2560,
    "intermediate_size": 6400,
    "num_hidden_layers": 62,
    "num_attention_heads": 40,
    "max_position_embeddings": 32768,
    "kv_lora_rank": 256,
    "q_lora_rank": 768,
    "qk_nope_head_dim": 64,
    "qk_rope_head_dim": 32,
}


def read(config: Config, text: Config) -> Described:
    """A value's width is by default the width by heads."""
    text = text.having(**DEFAULTS)
    text.only("num_experts", 0)
    hidden, heads = text.need("hidden_size"), text.need("num_attention_heads")
    attention = latent_attention(
        text.having(v_head_dim=hidden // heads), q_rank=text.need("q_lora_rank"), expanded=True
    )
    layer = Block(mixer=attention, mlp=Mlp(inter=text.need("intermediate_size")), norms=Vectors(whole=2 * hidden))
    return decoder(config, text, [layer] * text.need("num_hidden_layers"), tied=True)
