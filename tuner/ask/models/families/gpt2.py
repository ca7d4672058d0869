"""GPT-2: learned positions, biases everywhere, an ungated MLP (vLLM ``models/gpt2.py``, GPT2Config of Transformers
5)."""

from __future__ import annotations

from collections.abc import Mapping

from tuner.ask.models.attention import Attention, ProjectionNames
from tuner.ask.models.blocks import Mlp, MlpNames
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import uniform
from tuner.ask.models.described import Described
from tuner.ask.models.matrices import Vectors

DEFAULTS = {"vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024}
PROJECTIONS = ProjectionNames(merged="c_attn", output="c_proj")
FEED_FORWARD = MlpNames(up="c_fc", down="c_proj")


def named(text: Config, defaults: Mapping[str, int]) -> Config:
    """With the defaults of a class, under the names of most families."""
    text = text.having(**defaults)
    return text.renamed(
        hidden_size="n_embd",
        num_hidden_layers="n_layer",
        num_attention_heads="n_head",
        max_position_embeddings="n_positions",
    )


def read(config: Config, text: Config) -> Described:
    """The class refuses cross-attention and scales by layer."""
    text = named(text, DEFAULTS)
    for key in ("add_cross_attention", "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn"):
        text.only(key, False)
    hidden, heads = text.need("hidden_size"), text.need("num_attention_heads")
    attention = Attention(
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        bias=True,
        output_bias=True,
        place="attn",
        names=PROJECTIONS,
    )
    return uniform(
        config,
        text,
        attention,
        Mlp(inter=text.count("n_inner") or 4 * hidden, gated=False, bias=True, names=FEED_FORWARD),
        norms=4,
        prefix="transformer.h",
        tied=True,
        vectors=Vectors(whole=(text.need("max_position_embeddings") + 2) * hidden),
        embedding_names=("transformer.wte",),
        pipeline_tensors=1,
    )
