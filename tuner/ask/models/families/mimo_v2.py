"""MiMo-V2 (vLLM ``models/mimo_v2.py``): windows with heads of their own, keys wider than values."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.ask.models.attention import Attention
from tuner.ask.models.blocks import Block, Experts, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import SILU, decoder, two_norms
from tuner.ask.models.described import Described

DEFAULTS = {"max_position_embeddings": 131072}  # of MiMoV2FlashConfig


def read(config: Config, text: Config) -> Described:
    """Windows where ``hybrid_layer_pattern`` is 1, mixtures where ``moe_layer_freq`` is."""
    text = text.having(**DEFAULTS)
    text.only("hidden_act", *SILU)
    text.only("n_shared_experts", 0)
    config.only("vision_config", None)
    norms = two_norms(text.need("hidden_size"))
    mixers = (_attention(text, ""), _attention(text, "swa_"))
    experts = Experts(
        count=text.need("n_routed_experts"),
        topk=text.need("num_experts_per_tok"),
        inter=text.need("moe_intermediate_size"),
        router_bias=True,
    )
    dense = Mlp(inter=text.need("intermediate_size"))
    layers = [
        Block(mixer=mixers[window], experts=experts, norms=norms)
        if routed
        else Block(mixer=mixers[window], mlp=dense, norms=norms)
        for window, routed in zip(_marks(text, "hybrid_layer_pattern"), _marks(text, "moe_layer_freq"), strict=True)
    ]
    return decoder(config, text, layers, own_head=True)


def _marks(text: Config, key: str) -> Sequence[int]:
    listed, count = text.get(key), text.need("num_hidden_layers")
    if key == "moe_layer_freq" and (listed is None or isinstance(listed, int)):
        return [0] * count
    if not isinstance(listed, list) or len(listed) != count or any(one not in (0, 1) for one in listed):
        raise text.refuse(key, f"{count} of 0 and 1")
    return [int(one) for one in listed]


def _attention(text: Config, kind: str) -> Attention:
    head_dim = text.need(f"{kind}head_dim")
    sinks = "add_swa_attention_sink_bias" if kind else "add_full_attention_sink_bias"
    return Attention(
        heads=text.need(f"{kind}num_attention_heads"),
        kv_heads=text.need(f"{kind}num_key_value_heads"),
        head_dim=head_dim,
        value_dim=text.count(f"{kind}v_head_dim") or head_dim,
        window=text.need("sliding_window_size", "sliding_window") if kind else None,
        bias=text.flag("attention_bias"),
        sinks=text.flag(sinks),
        recut=True,  # mimo_v2.py, a rank's queries, keys and values in order again
    )
