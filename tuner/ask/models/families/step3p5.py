"""Step-3.5 and the text part of Step-3.7 (vLLM ``models/step3p5.py``): windows with heads of their own."""

from __future__ import annotations

from typing import Any

from tuner.ask.models.attention import Attention
from tuner.ask.models.blocks import Block, Experts, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import decoder, two_norms
from tuner.ask.models.described import Described
from tuner.ask.models.matrices import Cut, Layer, Matrix
from tuner.ask.models.positions import FULL, SLIDING, every

DEFAULTS: dict[str, Any] = {  # of vLLM's Step3p5Config
    "num_attention_groups": 8,
    "num_attention_heads": 40,
    "intermediate_size": 13312,
    "moe_intermediate_size": 10240,
    "moe_num_experts": 16,
    "moe_top_k": 4,
    "max_seq_len": 4096,
}


def read(config: Config, text: Config) -> Described:
    """All but the first layer are mixtures unless ``moe_layers_enum`` lists them."""
    text = text.having(**DEFAULTS)
    text.only("att_impl_type", "GQA")
    text.only("use_moe_router_bias", True)
    text.only("need_fp32_gate", True)
    hidden, count = text.need("hidden_size"), text.need("num_hidden_layers")
    kinds = text.entries("layer_types")[:count] or every(count, 2)
    if len(kinds) != count or set(kinds) - {SLIDING, FULL}:
        raise text.refuse("layer_types", f"{count} of {SLIDING} and {FULL}")
    routed, experts, dense = routed_layers(text, count), _experts(text), Mlp(inter=text.need("intermediate_size"))
    layers = []
    for number, kind in enumerate(kinds):
        mixer = _attention(text, kind)
        extra: tuple[Matrix, ...] = ()
        if text.flag("use_head_wise_attn_gate"):
            extra = (Matrix(Layer.ATTENTION, ("self_attn.g_proj",), mixer.heads, hidden, Cut.OUTPUTS),)
        if number in routed:
            layers.append(Block(mixer=mixer, experts=experts, norms=two_norms(hidden), extra=extra))
        else:
            layers.append(Block(mixer=mixer, mlp=dense, norms=two_norms(hidden), extra=extra))
    return decoder(config, text, layers, own_head=True, pipeline_tensors=1)


def _attention(text: Config, kind: str) -> Attention:
    heads, groups, dim = text.need("num_attention_heads"), text.need("num_attention_groups"), text.count("head_dim")
    other = text.part("attention_other_setting")
    if other.values and text.has("layer_types") and kind == other.word("attention_type"):
        heads, groups = other.need("num_attention_heads"), other.need("num_attention_groups")
        dim = other.count("head_dim")
    dim = dim or text.need("hidden_size") // heads
    window = text.count("sliding_window") if kind == SLIDING else 0
    return Attention(
        heads=heads,
        kv_heads=groups,
        head_dim=dim,
        window=window or None,
        bias=text.flag("attention_bias"),
        norm_elements=2 * dim,
    )


def routed_layers(text: Config, count: int) -> set[int]:
    """Those listed in a text, else all but the first."""
    listed = text.word("moe_layers_enum")
    if not listed:
        return set(range(1, count))
    if not all(one.strip().isdigit() for one in listed.split(",")):
        raise text.refuse("moe_layers_enum", "numbers between commas")
    return {int(one) for one in listed.split(",")}


def _experts(text: Config) -> Experts:
    inter, topk = text.need("moe_intermediate_size"), text.need("moe_top_k")
    return Experts(
        count=text.need("moe_num_experts"),
        topk=topk,
        inter=inter,
        shared_inter=text.count("share_expert_dim") or inter * topk,
        router_bias=True,
        place="moe",
        shared_place="share_expert",
    )
