"""GPT-NeoX, Pythia, Dolly, RedPajama: attention and MLP side by side or not, an all-reduce after each (vLLM
``models/gpt_neox.py``, GPTNeoXConfig of Transformers 5)."""

from __future__ import annotations

from tuner.ask.models.attention import Attention
from tuner.ask.models.blocks import Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import uniform
from tuner.ask.models.described import Described
from tuner.ask.models.families.falcon import FEED_FORWARD, PROJECTIONS

DEFAULTS = {
    "vocab_size": 50432,
    "hidden_size": 6144,
    "intermediate_size": 24576,
    "num_hidden_layers": 44,
    "num_attention_heads": 64,
    "max_position_embeddings": 2048,
}


def read(config: Config, text: Config) -> Described:
    """Biases everywhere, or in the MLP alone."""
    text = text.having(**DEFAULTS)
    hidden, heads, bias = text.need("hidden_size"), text.need("num_attention_heads"), text.flag("attention_bias", True)
    attention = Attention(
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        bias=bias,
        output_bias=bias,
        place="attention",
        names=PROJECTIONS,
    )
    return uniform(
        config,
        text,
        attention,
        Mlp(inter=text.need("intermediate_size"), gated=False, bias=True, names=FEED_FORWARD),
        norms=4,
        norm=2,
        prefix="gpt_neox.layers",
        embedding_names=("gpt_neox.embed_in",),
        head_names=("embed_out",),
        pipeline_tensors=1,
    )
