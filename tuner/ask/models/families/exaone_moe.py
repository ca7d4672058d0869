"""EXAONE mixtures (vLLM ``models/exaone_moe.py``): windows in three of four layers, the first layer dense."""

from __future__ import annotations

from tuner.ask.models.blocks import Block, Experts, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import SILU, decoder, grouped_attention, two_norms
from tuner.ask.models.described import Described
from tuner.ask.models.keys import number, of_kinds
from tuner.ask.models.positions import FULL, SLIDING

DEFAULTS = {  # of ExaoneMoeConfig
    "vocab_size": 102400,
    "hidden_size": 4096,
    "intermediate_size": 16384,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 2048,
    "moe_intermediate_size": 1024,
    "num_experts": 64,
    "num_experts_per_tok": 8,
}


def read(config: Config, text: Config) -> Described:
    """Windows stand in ``sliding_windows``, a number or nothing for each layer, or are all the same."""
    text = text.having(**DEFAULTS)
    text.only("hidden_act", *SILU)
    shared = number(text, "num_shared_experts", 1)
    inter, bias = text.need("moe_intermediate_size"), text.flag("attention_bias") or text.flag("bias")
    experts = Experts(
        count=text.need("num_experts"),
        topk=text.need("num_experts_per_tok"),
        inter=inter,
        shared_inter=shared * inter,
        router_bias=True,
    )
    dim, norms = grouped_attention(text).head_dim, two_norms(text.need("hidden_size"))
    dense, count = Mlp(inter=text.need("intermediate_size"), bias=text.flag("mlp_bias")), text.need("num_hidden_layers")
    windows, layers = text.entries("sliding_windows") or [text.count("sliding_window")] * count, []
    if len(windows) < count or any(one is not None and not isinstance(one, int) for one in windows):
        raise text.refuse("sliding_windows", f"{count} windows or nulls")
    for at, kind in enumerate(of_kinds(text, "layer_types", SLIDING, FULL)):
        window = windows[at] if kind == SLIDING else None
        mixer = grouped_attention(text, bias=bias, output_bias=bias, norm_elements=2 * dim, window=window or None)
        if _routed(text, at):
            layers.append(Block(mixer=mixer, experts=experts, norms=norms))
        else:
            layers.append(Block(mixer=mixer, mlp=dense, norms=norms))
    return decoder(config, text, layers)


def _routed(text: Config, layer: int) -> bool:
    if text.has("mlp_layer_types"):
        return bool(of_kinds(text, "mlp_layer_types", "dense", "sparse")[layer] == "sparse")
    return layer >= number(text, "first_k_dense_replace", 1)
