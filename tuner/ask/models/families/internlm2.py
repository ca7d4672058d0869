"""InternLM2: Llama under other names (vLLM ``models/internlm2.py``)."""

from __future__ import annotations

from tuner.ask.models.attention import ProjectionNames
from tuner.ask.models.blocks import Mlp, MlpNames
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import grouped_attention, sizes, uniform
from tuner.ask.models.described import Described
from tuner.ask.models.positions import everywhere


def read(config: Config, text: Config) -> Described:
    """Without biases, whatever the file says; heads divide the width."""
    text.only("hidden_act", "silu")
    size = sizes(text)
    attention = grouped_attention(
        text,
        head_dim=size.hidden // size.heads,
        window=everywhere(text),
        place="attention",
        names=ProjectionNames(merged="wqkv", output="wo"),
    )
    mlp = Mlp(
        inter=text.need("intermediate_size"),
        place="feed_forward",
        names=MlpNames(gate="w1", up="w3", down="w2"),
    )
    return uniform(
        config,
        text,
        attention,
        mlp,
        norms=2,
        embedding_names=("model.tok_embeddings",),
        head_names=("output",),
    )
