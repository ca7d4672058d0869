"""EXAONE 3 and 3.5: Llama under other names (vLLM ``models/exaone.py``)."""

from __future__ import annotations

from tuner.ask.models.attention import ProjectionNames
from tuner.ask.models.blocks import Mlp, MlpNames
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import grouped_attention, uniform
from tuner.ask.models.described import Described
from tuner.ask.models.positions import everywhere

# ExaoneConfig of Transformers 5
DEFAULTS = {
    "vocab_size": 102400,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 4096,
}


def read(config: Config, text: Config) -> Described:
    """Biases of all four projections, or of none."""
    text = text.having(**DEFAULTS).renamed(num_hidden_layers="num_layers", hidden_act="activation_function")
    text.only("hidden_act", "silu")
    bias = text.flag("attention_bias") or text.flag("bias")
    attention = grouped_attention(
        text,
        window=everywhere(text),
        bias=bias,
        output_bias=bias,
        place="attn.attention",
        names=ProjectionNames(output="out_proj"),
    )
    names = MlpNames(gate="c_fc_0", up="c_fc_1", down="c_proj")
    return uniform(
        config,
        text,
        attention,
        Mlp(inter=text.need("intermediate_size"), bias=text.flag("mlp_bias"), names=names),
        norms=2,
        prefix="transformer.h",
        embedding_names=("transformer.wte",),
    )
