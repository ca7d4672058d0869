"""Persimmon, through the class of Transformers (PersimmonConfig), which has no plan for tensor parallelism: the
embedding alone is divided."""

from __future__ import annotations

from tuner.ask.models.attention import Attention
from tuner.ask.models.blocks import Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import uniform
from tuner.ask.models.described import Described
from tuner.ask.models.families.falcon import FEED_FORWARD, PROJECTIONS

DEFAULTS = {
    "vocab_size": 262144,
    "hidden_size": 4096,
    "intermediate_size": 16384,
    "num_hidden_layers": 36,
    "num_attention_heads": 64,
    "max_position_embeddings": 16384,
}


def read(config: Config, text: Config) -> Described:
    """Biases everywhere; norms of queries and keys unless the file says no."""
    text = text.having(**DEFAULTS)
    hidden, heads = text.need("hidden_size"), text.need("num_attention_heads")
    attention = Attention(
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        bias=True,
        output_bias=True,
        norm_elements=4 * (hidden // heads) if text.flag("qk_layernorm", True) else 0,
        names=PROJECTIONS,
        whole=True,
    )
    mlp = Mlp(inter=text.need("intermediate_size"), gated=False, bias=True, names=FEED_FORWARD, whole=True)
    return uniform(config, text, attention, mlp, norms=4, norm=2, pipeline_tensors=1)
