"""ERNIE 4.5 mixtures (vLLM ``models/ernie45_moe.py``)."""

from __future__ import annotations

from tuner.ask.models.blocks import Block, Experts, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import SILU, decoder, grouped_attention, two_norms
from tuner.ask.models.described import Described
from tuner.ask.models.keys import number

DEFAULTS = {  # of Ernie4_5_MoeConfig
    "vocab_size": 103424,
    "hidden_size": 2560,
    "intermediate_size": 12288,
    "num_hidden_layers": 28,
    "num_attention_heads": 20,
    "num_key_value_heads": 4,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": True,
    "moe_intermediate_size": 1536,
    "moe_k": 6,
    "moe_num_experts": 64,
    "moe_layer_interval": 1,
}


def read(config: Config, text: Config) -> Described:
    """Mixtures between a first and a last layer, every so many; shared experts as one MLP."""
    text = text.having(**DEFAULTS)
    text.only("hidden_act", *SILU)
    bias, inter = text.flag("use_bias"), text.need("moe_intermediate_size")
    experts = Experts(
        count=text.need("moe_num_experts"),
        topk=text.need("moe_k"),
        inter=inter,
        shared_inter=inter * number(text, "moe_num_shared_experts", 2),
        router_bias=True,
    )
    norms, attention = two_norms(text.need("hidden_size")), grouped_attention(text, bias=bias)
    routed = Block(mixer=attention, experts=experts, norms=norms)
    dense = Block(mixer=attention, mlp=Mlp(inter=text.need("intermediate_size"), bias=bias), norms=norms)
    count, every = text.need("num_hidden_layers"), text.need("moe_layer_interval")
    first, last = number(text, "moe_layer_start_index", 1), count - 1
    if text.get("moe_layer_end_index") not in (None, -1):
        last = text.count("moe_layer_end_index")
    use = text.flag("use_moe", True)
    layers = [routed if use and first <= n <= last and (n + 1) % every == 0 else dense for n in range(count)]
    return decoder(config, text, layers)
