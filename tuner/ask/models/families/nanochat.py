"""NanoChat, through the class of Transformers (NanoChatConfig): norms without weights, an ungated MLP."""

from __future__ import annotations

from tuner.ask.models.blocks import Mlp, MlpNames
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import grouped_attention, uniform
from tuner.ask.models.described import Described
from tuner.ask.models.positions import everywhere

DEFAULTS = {
    "vocab_size": 50304,
    "hidden_size": 768,
    "intermediate_size": 8192,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "max_position_embeddings": 2048,
}


def read(config: Config, text: Config) -> Described:
    """Biases of the attention where the file says so."""
    text = text.having(**DEFAULTS)
    bias = text.flag("attention_bias")
    attention = grouped_attention(
        text,
        window=everywhere(text),
        bias=bias,
        output_bias=bias,
        apart=True,
    )
    mlp = Mlp(inter=text.need("intermediate_size"), gated=False, names=MlpNames(up="fc1", down="fc2"))
    return uniform(config, text, attention, mlp, norms=0, norm=0, pipeline_tensors=1)
