"""StarCoder2, through the class of Transformers (Starcoder2Config): biases everywhere, an ungated MLP, norms with a
bias."""

from __future__ import annotations

from tuner.ask.models.blocks import Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import grouped_attention, uniform
from tuner.ask.models.described import Described
from tuner.ask.models.families.gpt2 import FEED_FORWARD
from tuner.ask.models.positions import everywhere

DEFAULTS = {
    "vocab_size": 49152,
    "hidden_size": 3072,
    "intermediate_size": 12288,
    "num_hidden_layers": 30,
    "num_attention_heads": 24,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}


def read(config: Config, text: Config) -> Described:
    """A window holds for all layers. Embeddings are tied by default."""
    text = text.having(**DEFAULTS)
    bias = text.flag("use_bias", True)
    attention = grouped_attention(
        text,
        window=everywhere(text),
        bias=bias,
        output_bias=bias,
        apart=True,
    )
    mlp = Mlp(inter=text.need("intermediate_size"), gated=False, bias=bias, names=FEED_FORWARD)
    return uniform(config, text, attention, mlp, norms=4, norm=2, tied=True, pipeline_tensors=1)
