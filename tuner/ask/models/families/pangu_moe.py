"""openPangu Ultra MoE (vLLM ``models/openpangu.py``): latent attention, four norms a layer."""

from __future__ import annotations

from tuner.ask.models.blocks import Block, Experts, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import SILU, decoder, latent_attention
from tuner.ask.models.described import Described
from tuner.ask.models.matrices import Vectors


def read(config: Config, text: Config) -> Described:
    """The first layers are dense."""
    text.only("hidden_act", *SILU)
    text.only("param_sink_number", 0)
    text = text.renamed(
        kv_lora_rank="attention_kv_lora_dim",
        q_lora_rank="attention_q_lora_dim",
        qk_nope_head_dim="attention_qk_dim",
        qk_rope_head_dim="attention_qk_rope_dim",
        v_head_dim="attention_v_dim",
    )
    attention = latent_attention(text)
    inter, dense = text.need("moe_intermediate_size"), Mlp(inter=text.need("intermediate_size"))
    experts = Experts(
        count=text.need("n_routed_experts", "num_routed_experts"),
        topk=text.need("num_experts_per_tok"),
        inter=inter,
        shared_inter=inter * text.count("n_shared_experts", "num_shared_experts"),
        router_bias=text.flag("router_enable_expert_bias"),
    )
    norms = Vectors(whole=(4 if text.flag("sandwich_norm") else 2) * text.need("hidden_size"))
    routed = Block(mixer=attention, experts=experts, norms=norms)
    plain = Block(mixer=attention, mlp=dense, norms=norms)
    first = text.count("first_k_dense_replace", "num_dense_layers")
    return decoder(config, text, [plain if at < first else routed for at in range(text.need("num_hidden_layers"))])
