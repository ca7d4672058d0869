"""StableLM: Llama with norms that have a bias (vLLM ``models/stablelm.py``, StableLmConfig of Transformers 5)."""

from __future__ import annotations

from tuner.ask.models.blocks import Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import grouped_attention, sizes, uniform
from tuner.ask.models.described import Described
from tuner.ask.models.positions import everywhere

DEFAULTS = {
    "vocab_size": 50304,
    "hidden_size": 2560,
    "intermediate_size": 6912,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 4096,
}


def read(config: Config, text: Config) -> Described:
    """The class knows no norms of queries and keys and no parallel halves: it builds such files without them."""
    text = text.having(**DEFAULTS)
    size = sizes(text)
    attention = grouped_attention(
        text,
        head_dim=size.hidden // size.heads,
        window=everywhere(text),
        bias=text.flag("use_qkv_bias"),
    )
    mlp = Mlp(inter=text.need("intermediate_size"))
    return uniform(config, text, attention, mlp, norms=4, norm=2, pipeline_tensors=1)
