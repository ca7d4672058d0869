"""Qwen's mixtures (vLLM ``models/qwen2_moe.py``, ``qwen3_moe.py``): some layers are dense, one expert is shared."""

from __future__ import annotations

from tuner.ask.models.attention import Attention
from tuner.ask.models.blocks import Block, Experts, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import SILU, decoder, grouped_attention, two_norms
from tuner.ask.models.described import Described
from tuner.ask.models.keys import called, of_kinds
from tuner.ask.models.positions import FULL, SLIDING

SECOND = {  # of Qwen2MoeConfig
    "num_experts": 60,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 1408,
    "shared_expert_intermediate_size": 5632,
    "intermediate_size": 5632,
    "num_key_value_heads": 16,
    "decoder_sparse_step": 1,
    "max_position_embeddings": 32768,
}
THIRD = {  # of Qwen3MoeConfig
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
    "intermediate_size": 6144,
    "num_key_value_heads": 4,
    "decoder_sparse_step": 1,
    "max_position_embeddings": 32768,
}


def mixture(text: Config) -> Experts:
    """Routed experts, and one shared, weighed by a gate."""
    shared = text.count("shared_expert_intermediate_size")
    return Experts(
        count=text.need("num_experts", "num_local_experts"),
        topk=text.need("num_experts_per_tok"),
        inter=text.need("moe_intermediate_size"),
        shared_inter=shared,
        shared_gate=shared > 0,
        shared_place="mlp.shared_expert",
    )


def is_mixture(text: Config, layer: int) -> bool:
    """Every so many layers (``decoder_sparse_step``), but not those that are listed as dense."""
    step = text.count("decoder_sparse_step") or 1
    return layer not in text.entries("mlp_only_layers") and (layer + 1) % step == 0


def read(config: Config, text: Config) -> Described:
    """Queries and keys are normed in the third generation; the second has biases."""
    architecture = called(config, text)
    text = text.having(**(SECOND if "qwen2" in architecture else THIRD))
    text.only("hidden_act", *SILU)
    text.only("dual_chunk_attention_config", None)
    if "mellum" in architecture:
        return _listed(config, text)
    text.only("use_sliding_window", False)
    attention = grouped_attention(text, bias=True) if "qwen2" in architecture else _normed(text)
    norms = two_norms(text.need("hidden_size"))
    routed = Block(mixer=attention, experts=mixture(text), norms=norms)
    dense = Block(mixer=attention, mlp=Mlp(inter=text.need("intermediate_size")), norms=norms)
    layers = [routed if is_mixture(text, n) else dense for n in range(text.need("num_hidden_layers"))]
    return decoder(config, text, layers)


def _normed(text: Config, window: int | None = None) -> Attention:
    dim = grouped_attention(text).head_dim
    return grouped_attention(text, bias=text.flag("attention_bias"), norm_elements=2 * dim, window=window)


def _listed(config: Config, text: Config) -> Described:
    """Mellum (vLLM ``models/mellum.py``): the file lists each layer's attention and MLP."""
    kinds = of_kinds(text, "layer_types", SLIDING, FULL)
    after = of_kinds(text, "mlp_layer_types", "sparse", "dense")
    window = text.count("sliding_window") if text.flag("use_sliding_window") else 0
    mixers = {FULL: _normed(text), SLIDING: _normed(text, window or None)}
    norms, experts, dense = (
        two_norms(text.need("hidden_size")),
        mixture(text),
        Mlp(inter=text.need("intermediate_size")),
    )
    layers = [
        Block(mixer=mixers[kind], experts=experts, norms=norms)
        if mlp == "sparse"
        else Block(mixer=mixers[kind], mlp=dense, norms=norms)
        for kind, mlp in zip(kinds, after, strict=True)
    ]
    return decoder(config, text, layers)
