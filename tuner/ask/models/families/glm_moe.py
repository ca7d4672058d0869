"""GLM-4.5 (vLLM ``models/glm4_moe.py``) and dots.llm1 (through its Transformers backend): grouped-query attention, the
first layers dense."""

from __future__ import annotations

from tuner.ask.models.blocks import Block, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import SILU, decoder, grouped_attention, two_norms
from tuner.ask.models.described import Described
from tuner.ask.models.families.deepseek import is_mixture, mixture
from tuner.ask.models.keys import called
from tuner.ask.models.positions import FULL

DEFAULTS = {  # of Glm4MoeConfig
    "num_attention_heads": 96,
    "num_key_value_heads": 8,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "num_experts_per_tok": 8,
    "n_shared_experts": 1,
    "n_routed_experts": 128,
    "first_k_dense_replace": 1,
    "max_position_embeddings": 131072,
    "topk_method": "noaux_tc",  # the class always has the router's biases
}
DOTS = {  # of Dots1Config
    "num_attention_heads": 32,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "first_k_dense_replace": 0,
    "max_position_embeddings": 2048,
    "topk_method": "noaux_tc",
}


def read(config: Config, text: Config) -> Described:
    """Queries and keys are normed where the file says so."""
    dots = "dots1" in called(config, text)
    text = text.having(**(DOTS if dots else DEFAULTS))
    text.only("hidden_act", *SILU)
    text.only("moe_layer_freq", 1)
    if dots and set(text.entries("layer_types")) - {FULL}:
        raise text.refuse("layer_types", f"{FULL} alone")
    dim, bias = grouped_attention(text).head_dim, text.flag("attention_bias")
    normed = dots or text.flag("use_qk_norm")
    attention = grouped_attention(
        text, bias=bias, output_bias=dots and bias, norm_elements=2 * dim if normed else 0, apart=dots
    )
    norms, experts = two_norms(text.need("hidden_size")), mixture(text)
    routed = Block(mixer=attention, experts=experts, norms=norms)
    dense = Block(mixer=attention, mlp=Mlp(inter=text.need("intermediate_size")), norms=norms)
    layers = [routed if experts and is_mixture(text, n) else dense for n in range(text.need("num_hidden_layers"))]
    return decoder(config, text, layers, own_head=not dots)
