"""BLOOM: biases everywhere, positions by slopes of attention (vLLM ``models/bloom.py``, BloomConfig of
Transformers 5)."""

from __future__ import annotations

from tuner.ask.models.attention import Attention
from tuner.ask.models.blocks import Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import uniform
from tuner.ask.models.described import Described
from tuner.ask.models.families.falcon import FEED_FORWARD, PROJECTIONS
from tuner.ask.models.matrices import Vectors

DEFAULTS = {"vocab_size": 250880, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 8}


def read(config: Config, text: Config) -> Described:
    """An MLP of four times the width; a norm after the embedding, and one at the end."""
    text = text.having(**DEFAULTS)
    text = text.renamed(hidden_size="n_embed", num_hidden_layers="n_layer", num_attention_heads="n_head")
    hidden, heads = text.need("n_embed", "hidden_size"), text.need("num_attention_heads")
    attention = Attention(
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        bias=True,
        output_bias=True,
        place="self_attention",
        names=PROJECTIONS,
    )
    return uniform(
        config,
        text.having(hidden_size=hidden),
        attention,
        Mlp(inter=4 * hidden, gated=False, bias=True, names=FEED_FORWARD),
        norms=4,
        prefix="transformer.h",
        tied=True,
        vectors=Vectors(whole=4 * hidden),
        embedding_names=("transformer.word_embeddings",),
        pipeline_tensors=1,
    )
