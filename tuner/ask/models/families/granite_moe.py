"""Granite mixtures and hybrids (vLLM ``models/granitemoe.py``, ``granitemoeshared.py``, ``granitemoehybrid.py``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tuner.ask.models.blocks import Block, Experts, Mixer, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import SILU, decoder, grouped_attention, two_norms
from tuner.ask.models.described import Described
from tuner.ask.models.families.falcon_h1 import state_space
from tuner.ask.models.keys import called
from tuner.ask.models.matrices import Layer
from tuner.ask.models.positions import FULL, SLIDING

DEFAULTS: dict[str, Any] = {  # of GraniteMoeConfig and GraniteMoeHybridConfig
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 2048,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "mamba_n_heads": 128,
    "mamba_n_groups": 1,
    "mamba_d_state": 256,
    "mamba_d_head": 64,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_chunk_size": 256,
}
_RECURRENT, _FULL = ("mamba", "linear_attention"), ("attention", FULL)


def read(config: Config, text: Config) -> Described:
    """A mixture, a shared MLP, or both follow each mixer; a hybrid's list says which mixers are state spaces."""
    hybrid = "hybrid" in called(config, text)
    shared = text.having(shared_intermediate_size=1024) if hybrid else text
    text = text.having(**DEFAULTS)
    text.only("hidden_act", *SILU)
    mlp = None
    if text.values.get("shared_intermediate_size", 1) and (width := shared.count("shared_intermediate_size")):
        mlp = Mlp(inter=width, place="shared_mlp", layer=Layer.SHARED if _routed(text) else Layer.DENSE)
    norms, experts, layers = two_norms(text.need("hidden_size")), _routed(text), []
    for kind in _kinds(text, hybrid):
        mixer: Mixer = _mamba(text) if kind in _RECURRENT else _attention(text, kind, hybrid)
        layers.append(Block(mixer=mixer, mlp=mlp, experts=experts, norms=norms))
    return decoder(config, text, layers)


def _kinds(text: Config, hybrid: bool) -> Sequence[str]:
    count = text.need("num_hidden_layers")
    allowed = (*_RECURRENT, *_FULL) if hybrid else (*_FULL, SLIDING)
    listed = text.entries("layer_types") or ["mamba" if hybrid else "attention"] * count
    if len(listed) != count or any(one not in allowed for one in listed):
        raise text.refuse("layer_types", f"{count} of {', '.join(allowed)}")
    return listed


def _routed(text: Config) -> Experts | None:
    if text.values.get("num_local_experts", 1) == 0:
        return None
    return Experts(
        count=text.need("num_local_experts"),
        topk=text.need("num_experts_per_tok"),
        inter=text.need("intermediate_size"),
        place="block_sparse_moe",
    )


def _attention(text: Config, kind: str, hybrid: bool) -> Mixer:
    bias = hybrid and text.flag("attention_bias")
    window = text.need("sliding_window") if kind == SLIDING else None
    sinks = not hybrid and text.flag("attention_sinks", bool(text.entries("layer_types")))
    dim = text.need("hidden_size") // text.need("num_attention_heads")
    return grouped_attention(text, head_dim=dim, bias=bias, output_bias=bias, window=window, sinks=sinks)


def _mamba(text: Config) -> Mixer:
    heads, dim = text.need("mamba_n_heads"), text.need("mamba_d_head")
    if heads * dim != text.need("mamba_expand") * text.need("hidden_size"):
        raise text.refuse("mamba_d_head", "mamba_expand * hidden_size / mamba_n_heads")
    return state_space(text, heads, dim)
