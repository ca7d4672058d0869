"""TeleChat2: Llama under older names, biases of the outputs of both halves (vLLM ``models/telechat2.py``)."""

from __future__ import annotations

from tuner.ask.models.attention import ProjectionNames
from tuner.ask.models.blocks import Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import grouped_attention, uniform
from tuner.ask.models.described import Described
from tuner.ask.models.positions import everywhere


def read(config: Config, text: Config) -> Described:
    """Checkpoints keep keys and values in one matrix."""
    text = text.renamed(num_hidden_layers="n_layer", num_attention_heads="n_head", intermediate_size="ffn_hidden_size")
    attention = grouped_attention(
        text,
        window=everywhere(text),
        output_bias=True,
        place="self_attention",
        names=ProjectionNames(query="query", key="key_value", value="key_value", output="dense"),
    )
    mlp = Mlp(inter=text.need("intermediate_size"), down_bias=True)
    return uniform(
        config,
        text,
        attention,
        mlp,
        norms=2,
        prefix="transformer.h",
        embedding_names=("transformer.word_embeddings",),
    )
