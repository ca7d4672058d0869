"""Hunyuan, dense, through the class of Transformers (HunYuanDenseV1Config), which has no plan for tensor parallelism:
ranks divide the MLP and the embedding, not the attention's projections."""

from __future__ import annotations

from tuner.ask.models.blocks import Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import grouped_attention, sizes, uniform
from tuner.ask.models.described import Described
from tuner.ask.models.positions import everywhere

DEFAULTS = {
    "vocab_size": 290943,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
}


def read(config: Config, text: Config) -> Described:
    """Queries and keys are normed whatever the file says."""
    text = text.having(**DEFAULTS)
    text.only("hidden_act", "silu")
    size, bias = sizes(text), text.flag("attention_bias")
    attention = grouped_attention(
        text,
        window=everywhere(text),
        bias=bias,
        output_bias=bias,
        norm_elements=2 * size.head_dim,
        whole=True,
    )
    return uniform(config, text, attention, Mlp(inter=text.need("intermediate_size")), norms=2, pipeline_tensors=1)
