"""StarCoder 1, SantaCoder, Granite-Code 20B and 34B, through the class of Transformers (GPTBigCodeConfig), which has no
plan for tensor parallelism: ranks divide the attention where it has one KV head, and nothing else but the embedding."""

from __future__ import annotations

from tuner.ask.models.attention import Attention
from tuner.ask.models.blocks import Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import uniform
from tuner.ask.models.described import Described
from tuner.ask.models.families.gpt2 import DEFAULTS, FEED_FORWARD, PROJECTIONS, named
from tuner.ask.models.matrices import Vectors


def read(config: Config, text: Config) -> Described:
    """As GPT-2 otherwise."""
    text = named(text, DEFAULTS)
    text.only("add_cross_attention", False)
    hidden, heads, single = text.need("hidden_size"), text.need("num_attention_heads"), text.flag("multi_query", True)
    attention = Attention(
        heads=heads,
        kv_heads=1 if single else heads,
        head_dim=hidden // heads,
        bias=True,
        output_bias=True,
        place="attn",
        names=PROJECTIONS,
        whole=not single,
    )
    return uniform(
        config,
        text,
        attention,
        Mlp(inter=text.count("n_inner") or 4 * hidden, gated=False, bias=True, names=FEED_FORWARD, whole=True),
        norms=4,
        prefix="transformer.h",
        tied=True,
        vectors=Vectors(whole=(text.need("max_position_embeddings") + 2) * hidden),
        embedding_names=("transformer.wte",),
        pipeline_tensors=1,
    )
