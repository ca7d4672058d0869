"""DBRX (vLLM ``models/dbrx.py``): a mixture in every layer, norms without biases."""

from __future__ import annotations

from tuner.ask.models.attention import Attention
from tuner.ask.models.blocks import Block, Experts
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import two_norms
from tuner.ask.models.described import Described
from tuner.ask.models.matrices import Vectors
from tuner.ask.models.positions import longest

DEFAULTS = {"d_model": 2048, "n_heads": 16, "n_layers": 24, "max_seq_len": 2048, "vocab_size": 32000}  # of DbrxConfig


def read(config: Config, text: Config) -> Described:
    """All layers are alike; vLLM refuses tied embeddings."""
    text = text.having(**DEFAULTS)
    text.only("tie_word_embeddings", False)
    hidden, heads = text.need("d_model", "hidden_size"), text.need("n_heads", "num_attention_heads")
    own = text.part("attn_config").having(kv_n_heads=1)
    mlp = text.part("ffn_config").having(ffn_hidden_size=3584, moe_num_experts=4, moe_top_k=1)
    experts = Experts(
        count=mlp.need("moe_num_experts"), topk=mlp.need("moe_top_k"), inter=mlp.need("ffn_hidden_size"), place="ffn"
    )
    attention = Attention(
        heads=heads, kv_heads=own.need("kv_n_heads"), head_dim=hidden // heads, place="norm_attn_norm.attn"
    )
    layer = Block(mixer=attention, experts=experts, norms=two_norms(hidden), prefix="transformer.blocks")
    return Described(
        hidden=hidden,
        vocab=text.need("vocab_size"),
        layers=[layer] * text.need("n_layers", "num_hidden_layers"),
        tied=False,
        max_position=longest(text),
        pipeline_tensors=1,
        vectors=Vectors(whole=hidden),
        embedding_names=("transformer.wte",),
    )
