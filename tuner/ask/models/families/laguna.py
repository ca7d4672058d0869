"""Laguna (vLLM ``models/laguna.py``): windows, heads by layer, a gate on attention's output."""

from __future__ import annotations

from typing import Any

from tuner.ask.models.attention import Attention
from tuner.ask.models.blocks import Block, Experts, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import SILU, decoder, grouped_attention, two_norms
from tuner.ask.models.described import Described
from tuner.ask.models.families.qwen_moe import is_mixture
from tuner.ask.models.keys import number, of_kinds
from tuner.ask.models.matrices import Cut, Layer, Matrix
from tuner.ask.models.positions import FULL, SLIDING

DEFAULTS: dict[str, Any] = {  # of vLLM's LagunaConfig
    "vocab_size": 100352,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 40,
    "num_attention_heads": 48,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 131072,
    "num_experts": 256,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 512,
    "mlp_only_layers": [0],
}


def read(config: Config, text: Config) -> Described:
    """One expert is shared; the gate is one number per head, or one per element."""
    text = text.having(**DEFAULTS)
    text.only("hidden_act", *SILU)
    hidden, count = text.need("hidden_size"), text.need("num_hidden_layers")
    kinds = of_kinds(text, "layer_types", SLIDING, FULL) if text.has("layer_types") else [FULL] * count
    heads = text.numbers("num_attention_heads_per_layer") or [text.need("num_attention_heads")] * count
    if len(heads) < count or 0 in heads:
        raise text.refuse("num_attention_heads_per_layer", f"{count} numbers")
    dense, experts, layers = Mlp(inter=text.need("intermediate_size")), _experts(text), []
    for at, kind in enumerate(kinds):
        mixer = _attention(text, kind, heads[at])
        gate, norms = _gate(text, mixer, hidden), two_norms(hidden)
        if is_mixture(text, at):
            layers.append(Block(mixer=mixer, experts=experts, norms=norms, extra=gate))
        else:
            layers.append(Block(mixer=mixer, mlp=dense, norms=norms, extra=gate))
    return decoder(config, text, layers)


def _attention(text: Config, kind: str, heads: int) -> Attention:
    dim = text.need("head_dim")
    return grouped_attention(
        text,
        heads=heads,
        bias=text.flag("qkv_bias"),
        output_bias=text.flag("attention_bias"),
        norm_elements=2 * dim,
        window=text.need("sliding_window") if kind == SLIDING else None,
        sinks=kind == SLIDING and text.flag("swa_attention_sink_enabled"),
    )


def _gate(text: Config, mixer: Attention, hidden: int) -> tuple[Matrix, ...]:
    gating = text.values.get("gating", True)
    if gating not in (True, False, "per-head", "per-element"):
        raise text.refuse("gating", "true, false, per-head or per-element")
    if not gating:
        return ()
    width = mixer.heads * (1 if gating in (True, "per-head") else mixer.head_dim)
    return (Matrix(Layer.ATTENTION, ("self_attn.g_proj",), width, hidden, Cut.OUTPUTS),)


def _experts(text: Config) -> Experts:
    return Experts(
        count=text.need("num_experts"),
        topk=text.need("num_experts_per_tok"),
        inter=text.need("moe_intermediate_size"),
        shared_inter=number(text, "shared_expert_intermediate_size", 512),
        router_bias=True,
        shared_place="mlp.shared_expert",
    )
