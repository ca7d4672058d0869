"""Command R, R+ and A, Aya: attention and MLP side by side behind one norm (vLLM ``models/commandr.py``)."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.ask.models.blocks import Block, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import alternating, decoder, grouped_attention, sizes
from tuner.ask.models.described import Described
from tuner.ask.models.matrices import Vectors
from tuner.ask.models.positions import FULL

# CohereConfig of Transformers 5
DEFAULTS = {
    "vocab_size": 256000,
    "hidden_size": 8192,
    "intermediate_size": 22528,
    "num_hidden_layers": 40,
    "num_attention_heads": 64,
    "max_position_embeddings": 8192,
}


def read(config: Config, text: Config) -> Described:
    """All layers attend to all tokens."""
    text = text.having(**DEFAULTS)
    return parallel(config, text, [FULL] * text.need("num_hidden_layers"), None)


def parallel(config: Config, text: Config, kinds: Sequence[str], window: int | None) -> Described:
    """One all-reduce a layer. Norms of queries and keys have weights by head, which ranks divide. The class has no head
    of its own, and no biases whatever the file says."""
    size = sizes(text)
    by_head = (size.heads + size.kv_heads) * size.head_dim if text.flag("use_qk_norm") else 0

    def layer(window: int | None) -> Block:
        attention = grouped_attention(text, window=window)
        mlp = Mlp(inter=text.need("intermediate_size"))
        return Block(mixer=attention, mlp=mlp, norms=Vectors(whole=size.hidden, split=by_head), joined=True)

    return decoder(config, text, alternating(kinds, window, layer), headless=True)
