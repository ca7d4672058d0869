"""Hunyuan mixtures: A13B through vLLM's Transformers backend, HY-V3 (vLLM ``models/hy_v3.py``)."""

from __future__ import annotations

from tuner.ask.models.blocks import Block, Experts, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import SILU, decoder, grouped_attention, two_norms
from tuner.ask.models.described import Described
from tuner.ask.models.keys import called, number

_FIRST = {  # of HunYuanMoEV1Config
    "num_attention_heads": 32,
    "intermediate_size": 11008,
    "num_experts": 1,
    "moe_topk": 1,
    "max_position_embeddings": 2048,
}
_THIRD = {  # of vLLM's HYV3Config
    "vocab_size": 120832,
    "hidden_size": 4096,
    "intermediate_size": 13312,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 131072,
    "num_experts": 192,
    "num_experts_per_tok": 8,
    "expert_hidden_dim": 1536,
}


def read(config: Config, text: Config) -> Described:
    """The first has one shared MLP as wide as an expert in every layer; the third dense layers before the mixtures."""
    if "v3" not in called(config, text):
        return _first(config, text.having(**_FIRST))
    text = text.having(**_THIRD)
    text.only("hidden_act", *SILU)
    dim = text.need("head_dim")
    attention = grouped_attention(text, norm_elements=2 * dim if text.flag("qk_norm", True) else 0)
    shared = number(text, "num_shared_experts", 1)
    inter, norms = text.need("expert_hidden_dim", "moe_intermediate_size"), two_norms(text.need("hidden_size"))
    experts = Experts(
        count=text.need("num_experts"),
        topk=text.need("num_experts_per_tok"),
        inter=inter,
        shared_inter=shared * inter,
        router_bias=True,
        shared_place="mlp.shared_mlp",
    )
    routed = Block(mixer=attention, experts=experts, norms=norms)
    dense = Block(mixer=attention, mlp=Mlp(inter=text.need("intermediate_size")), norms=norms)
    first = number(text, "first_k_dense_replace", 1)
    return decoder(config, text, [dense if n < first else routed for n in range(text.need("num_hidden_layers"))])


def _first(config: Config, text: Config) -> Described:
    text.only("use_cla", False)
    bias, dim = text.flag("attention_bias"), grouped_attention(text).head_dim
    inter, topk = text.need("intermediate_size"), _same(text, "moe_topk")
    experts = Experts(
        count=_same(text, "num_experts"),
        topk=topk,
        inter=inter,
        shared_inter=inter,
        shared_place="mlp.shared_mlp",
    )
    attention = grouped_attention(text, bias=bias, output_bias=bias, norm_elements=2 * dim, whole=True)
    layer = Block(mixer=attention, experts=experts, norms=two_norms(text.need("hidden_size")))
    return decoder(config, text, [layer] * text.need("num_hidden_layers"))


def _same(text: Config, key: str) -> int:
    """A number, or one for each layer of which all are equal."""
    value = text.get(key)
    if not isinstance(value, list):
        return text.need(key)
    if len(set(text.entries(key))) != 1:
        raise text.refuse(key, "one number for all layers")
    return Config({key: value[0]}, text.name).need(key)
