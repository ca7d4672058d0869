"""CodeGen, through the class of Transformers (CodeGenConfig): GPT-J with merged projections."""

from __future__ import annotations

from tuner.ask.models.attention import Attention, ProjectionNames
from tuner.ask.models.blocks import Mlp, MlpNames
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import uniform
from tuner.ask.models.described import Described
from tuner.ask.models.families.gpt2 import named

DEFAULTS = {"vocab_size": 50400, "n_embd": 4096, "n_layer": 28, "n_head": 16, "n_positions": 2048}


def read(config: Config, text: Config) -> Described:
    """Biases of the MLP alone; one norm a layer."""
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
        embedding_names=("transformer.wte",),
        pipeline_tensors=1,
    )
