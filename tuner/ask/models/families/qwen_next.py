"""Qwen3-Next, Qwen3.5 and Qwen3.6 (vLLM ``models/qwen3_next.py``, ``qwen3_5.py``): three gated delta nets to one full
attention with an output gate; dense, or a mixture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tuner.ask.models.blocks import Block, Mixer, Mlp
from tuner.ask.models.cache import STATE_BYTES
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import SILU, decoder, grouped_attention, two_norms
from tuner.ask.models.described import Described
from tuner.ask.models.families.qwen_moe import is_mixture, mixture
from tuner.ask.models.keys import called, of_kinds
from tuner.ask.models.positions import FULL
from tuner.ask.models.recurrent import GatedDelta

_ALL: Mapping[str, Any] = {
    "head_dim": 256,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "full_attention_interval": 4,
    "max_position_embeddings": 32768,
}
_ROUTED = {"num_experts_per_tok": 8, "num_experts": 256}
_ROUTED |= {"moe_intermediate_size": 512, "shared_expert_intermediate_size": 512}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {  # of Qwen3NextConfig, Qwen3_5TextConfig, Qwen3_5MoeTextConfig of vLLM
    "qwen3_next": {**_ALL, **_ROUTED, "num_experts_per_tok": 10, "num_experts": 512, "intermediate_size": 5632},
    "qwen3_5": {**_ALL, "num_key_value_heads": 4, "intermediate_size": 12288},
    "qwen3_5_moe": {**_ALL, **_ROUTED},
}
LINEAR = "linear_attention"


def read(config: Config, text: Config) -> Described:
    """The delta rule's state has the precision that Qwen3.5's files name; Qwen3-Next's the model's."""
    architecture = called(config, text)
    family = "qwen3_next" if "next" in architecture else "qwen3_5_moe" if "moe" in architecture else "qwen3_5"
    text = text.having(**_DEFAULTS[family])
    text.only("hidden_act", *SILU)
    text.only("dual_chunk_attention_config", None)
    text.only("layer_scale", False)
    text.only("is_causal", True)
    mixers = {LINEAR: _linear(text, family), FULL: _full(text)}
    norms = two_norms(text.need("hidden_size"))
    experts = None if family == "qwen3_5" else mixture(text)
    dense = Mlp(inter=text.count("intermediate_size") or 1)
    layers = []
    for number, kind in enumerate(_kinds(text)):
        if experts is not None and (family != "qwen3_next" or is_mixture(text, number)):
            layers.append(Block(mixer=mixers[kind], experts=experts, norms=norms))
        else:
            layers.append(Block(mixer=mixers[kind], mlp=dense, norms=norms))
    return decoder(config, text, layers)


def _linear(text: Config, family: str) -> Mixer:
    named = text.word("mamba_ssm_dtype") if family != "qwen3_next" else ""
    if named and named not in STATE_BYTES:
        raise text.refuse("mamba_ssm_dtype", ", ".join(STATE_BYTES))
    return GatedDelta(
        key_heads=text.need("linear_num_key_heads"),
        value_heads=text.need("linear_num_value_heads"),
        key_dim=text.need("linear_key_head_dim"),
        value_dim=text.need("linear_value_head_dim"),
        conv=text.need("linear_conv_kernel_dim"),
        state_dtype=named or None,
        split_gates=family != "qwen3_next",
    )


def _full(text: Config) -> Mixer:
    dim = grouped_attention(text).head_dim
    gated = text.flag("attn_output_gate", True)
    return grouped_attention(text, gated=gated, bias=text.flag("qkv_bias"), norm_elements=2 * dim)


def _kinds(text: Config) -> Sequence[str]:
    if text.has("layer_types"):
        return of_kinds(text, "layer_types", LINEAR, FULL)
    every = text.need("full_attention_interval")
    return [LINEAR if (n + 1) % every else FULL for n in range(text.need("num_hidden_layers"))]
