"""GPT-J: attention and MLP side by side, each with an all-reduce; a head with a bias (vLLM ``models/gpt_j.py``,
GPTJConfig of Transformers 5)."""

from __future__ import annotations

from tuner.ask.models.attention import Attention, ProjectionNames
from tuner.ask.models.blocks import Mlp, MlpNames
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import uniform
from tuner.ask.models.described import Described
from tuner.ask.models.families.gpt2 import named

DEFAULTS = {"vocab_size": 50400, "n_embd": 4096, "n_layer": 28, "n_head": 16, "n_positions": 2048}


def read(config: Config, text: Config) -> Described:
    """Embedding and head are two matrices."""
    text.only("tie_word_embeddings", False)
    return side_by_side(config, text, head_bias=True)


def side_by_side(config: Config, text: Config, *, head_bias: bool = False) -> Described:
    """Biases of the MLP alone, and of the head; one norm a layer."""
    text = named(text, DEFAULTS)
    hidden, heads = text.need("hidden_size"), text.need("num_attention_heads")
    attention = Attention(
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        place="attn",
        names=ProjectionNames(output="out_proj"),
    )
    names = MlpNames(up="fc_in", down="fc_out")
    return uniform(
        config,
        text,
        attention,
        Mlp(inter=text.count("n_inner") or 4 * hidden, gated=False, bias=True, names=names),
        norms=2,
        norm=2,
        prefix="transformer.h",
        head_bias=head_bias,
        embedding_names=("transformer.wte",),
        pipeline_tensors=1,
    )
