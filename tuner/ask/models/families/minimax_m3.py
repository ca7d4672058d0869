"""MiniMax-M3 (vLLM ``models/minimax_m3/``): block-sparse attention chosen by index heads, dense in the first layers."""

from __future__ import annotations

from typing import Any

from tuner.ask.models.attention import BlockIndex
from tuner.ask.models.blocks import Block, Experts, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import decoder, grouped_attention, two_norms
from tuner.ask.models.described import Described

DEFAULTS: dict[str, Any] = {  # of vLLM's MiniMaxM3TextConfig
    "vocab_size": 200064,
    "hidden_size": 6144,
    "intermediate_size": 3072,
    "dense_intermediate_size": 12288,
    "num_hidden_layers": 60,
    "num_attention_heads": 64,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "max_position_embeddings": 524288,
    "num_local_experts": 128,
    "num_experts_per_tok": 4,
    "n_shared_experts": 1,
    "moe_layer_freq": [0] * 3 + [1] * 57,
    "sparse_attention_config": {
        "sparse_index_dim": 128,
        "sparse_num_index_heads": 4,
        "sparse_topk_blocks": 16,
        "sparse_block_size": 128,
        "sparse_attention_freq": [0] * 3 + [1] * 57,
    },
}


def read(config: Config, text: Config) -> Described:
    """Sparse where ``sparse_attention_freq`` is not 0, a mixture where ``moe_layer_freq`` is not 0."""
    text = text.having(**DEFAULTS)
    text.only("hidden_act", "swigluoai")
    text.only("attention_output_gate", False)
    chosen, count = text.part("sparse_attention_config"), text.need("num_hidden_layers")
    index = BlockIndex(
        heads=chosen.need("sparse_num_index_heads"),
        width=chosen.need("sparse_index_dim"),
        block=chosen.need("sparse_block_size"),
        topk=chosen.need("sparse_topk_blocks"),
    )
    norms, dim = two_norms(text.need("hidden_size")), text.need("head_dim")
    full = grouped_attention(text, norm_elements=2 * dim)
    sparse = grouped_attention(text, norm_elements=2 * dim + 2 * index.width, index=index)
    experts, dense = _experts(text), Mlp(inter=text.need("dense_intermediate_size"))
    picked, routed = chosen.entries("sparse_attention_freq"), text.entries("moe_layer_freq")
    if len(routed) < count:
        raise text.refuse("moe_layer_freq", f"{count} of 0 and 1")
    layers = []
    for number in range(count):
        mixer = sparse if number < len(picked) and picked[number] else full
        if routed[number]:
            layers.append(Block(mixer=mixer, experts=experts, norms=norms))
        else:
            layers.append(Block(mixer=mixer, mlp=dense, norms=norms))
    return decoder(config, text, layers, own_head=True)


def _experts(text: Config) -> Experts:
    inter = text.need("intermediate_size")
    return Experts(
        count=text.need("num_local_experts"),
        topk=text.need("num_experts_per_tok"),
        inter=inter,
        shared_inter=inter * text.count("n_shared_experts"),
        router_bias=text.flag("use_routing_bias", True),
        place="block_sparse_moe",
        shared_place="block_sparse_moe.shared_experts",
    )
