"""LFM2 and LFM2-MoE (vLLM ``models/lfm2.py``, ``lfm2_moe.py``): short convolutions, some layers attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tuner.ask.models.blocks import Block, Experts, Mixer, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import decoder, grouped_attention, two_norms
from tuner.ask.models.described import Described
from tuner.ask.models.keys import called, number
from tuner.ask.models.positions import FULL
from tuner.ask.models.recurrent import ShortConvolution

_DENSE: dict[str, Any] = {  # of Lfm2Config
    "vocab_size": 65536,
    "hidden_size": 2560,
    "intermediate_size": 12288,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 128000,
    "conv_L_cache": 3,
    "block_multiple_of": 256,
    "block_ffn_dim_multiplier": 1.0,
    "block_auto_adjust_ff_dim": True,
}
_ROUTED: dict[str, Any] = {  # of vLLM's Lfm2MoeConfig
    **_DENSE,
    "hidden_size": 2048,
    "intermediate_size": 7168,
    "moe_intermediate_size": 1792,
    "num_experts_per_tok": 4,
    "num_experts": 32,
    "use_expert_bias": True,
}
CONVOLUTION = "conv"


def read(config: Config, text: Config) -> Described:
    """Embedding and head are always one matrix."""
    routed = "moe" in called(config, text)
    text = text.having(**(_ROUTED if routed else _DENSE))
    hidden = text.need("hidden_size")
    dim = hidden // text.need("num_attention_heads")
    width = hidden if routed else text.count("conv_dim") or hidden
    if width != hidden:
        raise text.refuse("conv_dim", f"{hidden}, the width of the layers")
    mixers: dict[str, Mixer] = {
        FULL: grouped_attention(text, head_dim=dim, norm_elements=2 * dim),
        CONVOLUTION: ShortConvolution(
            width=width, conv=text.need("conv_L_cache"), bias=text.flag("conv_bias"), place="conv"
        ),
    }
    experts = _experts(text) if routed else None
    inter = text.need("intermediate_size") if routed else _inter(text)
    first = number(text, "num_dense_layers", 2)
    dense, norms, layers = Mlp(inter=inter, place="feed_forward"), two_norms(hidden), []
    for at, kind in enumerate(_kinds(text)):
        if experts is not None and at >= first:
            layers.append(Block(mixer=mixers[kind], experts=experts, norms=norms))
        else:
            layers.append(Block(mixer=mixers[kind], mlp=dense, norms=norms))
    return decoder(config, text, layers, headless=True)


def _kinds(text: Config) -> Sequence[str]:
    count = text.need("num_hidden_layers")
    if not text.has("layer_types"):
        full = text.get("full_attn_idxs")
        full = range(count) if full is None else text.entries("full_attn_idxs")
        return [FULL if n in full else CONVOLUTION for n in range(count)]
    listed = [CONVOLUTION if one == "short_conv" else one for one in text.entries("layer_types")]
    if len(listed) != count or any(one not in (CONVOLUTION, FULL) for one in listed):
        raise text.refuse("layer_types", f"{count} of {CONVOLUTION} and {FULL}")
    return listed


def _inter(text: Config) -> int:
    """As ``Lfm2MLP`` rounds it."""
    inter = text.need("block_ff_dim", "intermediate_size")
    if not text.flag("block_auto_adjust_ff_dim"):
        return inter
    inter = int(text.share("block_ffn_dim_multiplier", 1.0) * int(2 * inter / 3))
    multiple = text.need("block_multiple_of")
    return multiple * -(-inter // multiple)


def _experts(text: Config) -> Experts:
    return Experts(
        count=text.need("num_experts"),
        topk=text.need("num_experts_per_tok"),
        inter=text.need("moe_intermediate_size"),
        router_bias=text.flag("use_expert_bias"),
        place="feed_forward",
    )
