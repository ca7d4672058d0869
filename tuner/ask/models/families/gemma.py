"""Gemma 1: wide heads, tied embeddings (vLLM ``models/gemma.py``, GemmaConfig of Transformers 5)."""

from __future__ import annotations

from tuner.ask.models.blocks import Block, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import decoder, grouped_attention, sizes
from tuner.ask.models.described import Described
from tuner.ask.models.matrices import Vectors
from tuner.ask.models.positions import everywhere

DEFAULTS = {
    "vocab_size": 256000,
    "hidden_size": 3072,
    "intermediate_size": 24576,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 256,
    "max_position_embeddings": 8192,
}


def read(config: Config, text: Config) -> Described:
    """The class has no biases, whatever the file says."""
    text = text.having(**DEFAULTS)
    size = sizes(text)
    attention = grouped_attention(text, window=everywhere(text))
    mlp = Mlp(inter=text.need("intermediate_size"))
    layer = Block(mixer=attention, mlp=mlp, norms=Vectors(whole=2 * size.hidden))
    return decoder(config, text, [layer] * size.layers, tied=True)
