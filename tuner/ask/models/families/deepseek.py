"""DeepSeek's V2, V3, V3.2 and their like (Kimi-K2, GLM-4.7-Flash, GLM-5): latent attention, shared and routed experts
(vLLM ``models/deepseek_v2.py``, ``deepseek_v32/``, ``glm4_moe_lite.py``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.ask.models.blocks import Block, Experts, Mixer, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import SILU, decoder, grouped_attention, latent_attention, two_norms
from tuner.ask.models.described import Described
from tuner.ask.models.latent import Indexer, LatentAttention
from tuner.ask.models.matrices import Vectors

_THIRD: Mapping[str, Any] = {  # of DeepseekV3Config
    "num_attention_heads": 128,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 2048,
    "intermediate_size": 18432,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "first_k_dense_replace": 3,
    "max_position_embeddings": 4096,
}
_SECOND = {  # of DeepseekV2Config
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "moe_intermediate_size": 1407,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "first_k_dense_replace": 0,
    "max_position_embeddings": 2048,
}
_LITE = {  # of Glm4MoeLiteConfig
    "n_routed_experts": 64,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 1536,
    "intermediate_size": 10240,
    "num_attention_heads": 20,
    "q_lora_rank": 768,
    "qk_nope_head_dim": 192,
    "v_head_dim": 256,
    "first_k_dense_replace": 1,
    "max_position_embeddings": 202752,
}
_SPARSE = {  # of GlmMoeDsaConfig
    "num_attention_heads": 64,
    "intermediate_size": 12288,
    "q_lora_rank": 2048,
    "qk_nope_head_dim": 192,
    "v_head_dim": 256,
    "max_position_embeddings": 202752,
    "index_topk": 2048,
    "index_head_dim": 128,
    "index_n_heads": 32,
}
_THICK = {  # of vLLM's AXK1Config
    "num_attention_heads": 64,
    "n_routed_experts": 192,
    "first_k_dense_replace": 1,
    "topk_method": "noaux_tc",
    "max_position_embeddings": 131072,
}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "deepseek_v2": _SECOND,
    "glm4_moe_lite": _LITE,
    "glm_moe_dsa": _SPARSE,
    "deepseek": {"n_shared_experts": 0},
    "axk1": _THICK,
}
PLAIN = "deepseek"  # the first generation, of ordinary heads


def read(config: Config, text: Config) -> Described:
    """Latent attention unless the model is of the first generation or has no rotary and plain dimensions."""
    kind = text.word("model_type") or config.word("model_type")
    text = text.having(**{**_THIRD, **_DEFAULTS.get(kind, {})})
    text.only("hidden_act", *SILU)
    norms, layers = two_norms(text.need("hidden_size")), []
    if kind == "axk1":  # one more behind each MLP
        norms = norms + Vectors(whole=text.need("hidden_size"))
    dense, experts = Mlp(inter=text.need("intermediate_size")), mixture(text)
    ordinary = kind == PLAIN or all(text.values.get(key) == 0 for key in ("qk_nope_head_dim", "qk_rope_head_dim"))
    for number in range(text.need("num_hidden_layers")):
        mixer: Mixer = grouped_attention(text) if ordinary else latent(text, number)
        if experts is not None and is_mixture(text, number):
            layers.append(Block(mixer=mixer, experts=experts, norms=norms))
        else:
            layers.append(Block(mixer=mixer, mlp=dense, norms=norms))
    return decoder(config, text, layers, own_head=True)


def latent(text: Config, layer: int) -> LatentAttention:
    """Multi-head latent attention; with an indexer where the file says how many tokens it chooses."""
    text.only("attention_bias", False)
    chosen = indexer(text, layer) if text.has("index_topk") else None
    return latent_attention(text, q_rank=given(text, "q_lora_rank"), indexer=chosen)


def given(text: Config, key: str) -> int | None:
    """A number that a file may set to null to have none, and leaves out to have its class's."""
    return None if text.stated(key) and text.values[key] is None else text.need(key)


def indexer(text: Config, layer: int) -> Indexer:
    """All layers have one, or every so many, or those that a pattern marks F."""
    pattern = text.get("index_topk_pattern")
    if isinstance(pattern, list):
        pattern = text.entries("index_topk_pattern")
    if pattern is not None and not (isinstance(pattern, str | list) and set(pattern) <= {"F", "S"}):
        raise text.refuse("index_topk_pattern", "F and S")
    if pattern is None:
        offset = text.get("index_skip_topk_offset")
        past = max(layer - (2 if offset is None else text.count("index_skip_topk_offset")) + 1, 0)
        own = past % (text.count("index_topk_freq") or 1) == 0
    else:
        own = layer >= len(pattern) or pattern[layer] == "F"
    return Indexer(text.need("index_n_heads"), text.need("index_head_dim"), text.need("index_topk"), own)


def mixture(text: Config, place: str = "mlp") -> Experts | None:
    """Routed experts and shared ones as one MLP; the router has biases where it balances without a loss."""
    if "n_routed_experts" in text.values and text.values["n_routed_experts"] is None:
        return None
    inter = text.need("moe_intermediate_size")
    absent = "n_shared_experts" in text.values and text.values["n_shared_experts"] is None
    return Experts(
        count=text.need("n_routed_experts", "num_local_experts"),
        topk=text.need("num_experts_per_tok"),
        inter=inter,
        shared_inter=0 if absent else inter * text.count("n_shared_experts"),
        router_bias=text.word("topk_method") == "noaux_tc",
        place=place,
        shared_place=f"{place}.shared_experts",
    )


def is_mixture(text: Config, layer: int) -> bool:
    """After the first dense ones, every so many layers."""
    return layer >= text.count("first_k_dense_replace") and layer % (text.count("moe_layer_freq") or 1) == 0
