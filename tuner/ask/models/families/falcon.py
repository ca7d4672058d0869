"""Falcon: attention and MLP side by side in most (vLLM ``models/falcon.py``, FalconConfig of Transformers 5)."""

from __future__ import annotations

from tuner.ask.models.attention import Attention, ProjectionNames
from tuner.ask.models.blocks import Mlp, MlpNames
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import uniform
from tuner.ask.models.described import Described

DEFAULTS = {
    "vocab_size": 65024,
    "hidden_size": 4544,
    "num_hidden_layers": 32,
    "num_attention_heads": 71,
    "max_position_embeddings": 2048,
}
PROJECTIONS = ProjectionNames(merged="query_key_value", output="dense")
FEED_FORWARD = MlpNames(up="dense_h_to_4h", down="dense_4h_to_h")


def read(config: Config, text: Config) -> Described:
    """One all-reduce a layer where both halves are parallel. The MLP is four times as wide as the model whatever the
    file says. One KV head, as many as heads, or by the file in the newer architecture."""
    text = text.having(**DEFAULTS)
    text.only("model_type", "falcon")
    hidden, heads = text.need("hidden_size"), text.need("num_attention_heads")
    newer, parallel = text.flag("new_decoder_architecture"), text.flag("parallel_attn", True)
    kv_heads = 1 if text.flag("multi_query", True) else heads
    if newer:
        kv_heads = text.count("num_kv_heads") or heads
    norms = text.count("num_ln_in_parallel_attn") or (2 if newer else 1)
    bias = text.flag("bias")
    attention = Attention(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=hidden // heads,
        bias=bias,
        output_bias=bias,
        place="self_attention",
        names=PROJECTIONS,
    )
    return uniform(
        config,
        text,
        attention,
        Mlp(inter=4 * hidden, gated=False, bias=bias, names=FEED_FORWARD),
        norms=2 * norms if parallel else 4,
        joined=newer or parallel,
        prefix="transformer.h",
        tied=True,
        norm=2,
        embedding_names=("transformer.word_embeddings",),
        pipeline_tensors=1,
    )
