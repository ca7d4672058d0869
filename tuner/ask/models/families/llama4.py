"""Llama 4 (vLLM ``models/llama4.py``): aligned chunks, every so many layers all tokens without rotary embedding."""

from __future__ import annotations

from tuner.ask.models.blocks import Block, Experts, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import decoder, grouped_attention, two_norms
from tuner.ask.models.described import Described

DEFAULTS = {  # of Llama4TextConfig
    "vocab_size": 202048,
    "hidden_size": 5120,
    "intermediate_size": 8192,
    "intermediate_size_mlp": 16384,
    "num_hidden_layers": 48,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 131072,
    "num_experts_per_tok": 1,
    "num_local_experts": 16,
    "interleave_moe_layer_step": 1,
    "no_rope_layer_interval": 4,
    "attention_chunk_size": 8192,
}


def read(config: Config, text: Config) -> Described:
    """The shared expert is as wide as a routed one."""
    text = text.having(**DEFAULTS)
    inter, count = text.need("intermediate_size"), text.need("num_hidden_layers")
    experts = Experts(
        count=text.need("num_local_experts"),
        topk=text.need("num_experts_per_tok"),
        inter=inter,
        shared_inter=inter,
        place="feed_forward",
        shared_place="feed_forward.shared_expert",
    )
    dense = Mlp(inter=text.need("intermediate_size_mlp"), place="feed_forward")
    chunk = None if text.values.get("attention_chunk_size", 1) is None else text.need("attention_chunk_size")
    norms, step = two_norms(text.need("hidden_size")), text.count("interleave_moe_layer_step")
    layers = []
    for number, rotary in enumerate(_rotary(text, count)):
        attention = grouped_attention(text, chunk=chunk if rotary else None)
        if step and (number + 1) % step == 0:
            layers.append(Block(mixer=attention, experts=experts, norms=norms))
        else:
            layers.append(Block(mixer=attention, mlp=dense, norms=norms))
    return decoder(config, text, layers)


def _rotary(text: Config, count: int) -> list[bool]:
    listed = text.entries("no_rope_layers")  # 1: with rotary embedding
    if listed and len(listed) != count:
        raise text.refuse("no_rope_layers", f"{count} of 0 and 1, or none")
    interval = text.need("no_rope_layer_interval")
    return [bool(one) for one in listed] or [bool((n + 1) % interval) for n in range(count)]
