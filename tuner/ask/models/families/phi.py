"""Phi 1, 1.5 and 2: attention and MLP side by side, each with an all-reduce (vLLM ``models/phi.py``, PhiConfig of
Transformers 5)."""

from __future__ import annotations

from tuner.ask.models.attention import Attention, ProjectionNames
from tuner.ask.models.blocks import Mlp, MlpNames
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import uniform
from tuner.ask.models.described import Described

DEFAULTS = {
    "vocab_size": 51200,
    "hidden_size": 2048,
    "num_hidden_layers": 24,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
}


def read(config: Config, text: Config) -> Described:
    """Biases everywhere, one norm a layer. The MLP is four times as wide as the model unless ``n_inner`` says
    otherwise; the class knows no grouped queries."""
    text = text.having(**DEFAULTS)
    text.only("tie_word_embeddings", False)
    text.only("qk_layernorm", False)
    hidden, heads = text.need("hidden_size"), text.need("num_attention_heads")
    text.only("num_key_value_heads", heads)
    attention = Attention(
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        bias=True,
        output_bias=True,
        names=ProjectionNames(output="dense"),
    )
    names = MlpNames(up="fc1", down="fc2")
    mlp = Mlp(inter=text.count("n_inner") or 4 * hidden, gated=False, bias=True, names=names)
    return uniform(config, text, attention, mlp, norms=2, norm=2, head_bias=True, pipeline_tensors=1)
