"""Kimi-Linear and Kimi-K3 (vLLM ``models/kimi_k3/``): three Kimi delta attentions to one latent attention."""

from __future__ import annotations

from tuner.ask.models.blocks import Block, Experts, Mixer, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import decoder, latent_attention
from tuner.ask.models.described import Described
from tuner.ask.models.matrices import Cut, Layer, Matrix, Vectors
from tuner.ask.models.recurrent import KimiDelta

DEFAULTS = {  # of vLLM's KimiLinearConfig
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "moe_layer_freq": 1,
    "max_position_embeddings": 4096,
}


LEAST = 256  # width of an expert on a rank (``min_moe_intermediate_per_partition``)


def read(config: Config, text: Config) -> Described:
    """Kinds of layers by their numbers, counted from 1; in K3 every half also reads the blocks before it."""
    text = text.having(**DEFAULTS)
    text.only("hidden_act", "silu", "situ")
    text.only("mla_use_nope", True)
    hidden, experts = text.need("hidden_size"), _experts(text)
    recurrent = set(text.part("linear_attn_config").numbers("kda_layers"))
    mixers: dict[bool, Mixer] = {False: latent_attention(text, output_gate=text.flag("mla_use_output_gate"))}
    if recurrent:
        mixers[True] = _delta(text.part("linear_attn_config"))
    read_back = text.has("attn_res_block_size")
    norms = Vectors(whole=(4 if read_back else 2) * hidden)
    if experts and experts.width and text.flag("latent_moe_use_norm"):
        routed_norms = norms + Vectors(whole=experts.width)
    else:
        routed_norms = norms
    extra = tuple(_mix(name, hidden) for name in ("self_attention_res_proj", "mlp_res_proj")) if read_back else ()
    dense = Mlp(inter=text.need("intermediate_size"))
    layers = []
    for number in range(text.need("num_hidden_layers")):
        mixer = mixers[number + 1 in recurrent]
        if experts and number >= text.count("first_k_dense_replace") and number % text.need("moe_layer_freq") == 0:
            layers.append(Block(mixer=mixer, experts=experts, norms=routed_norms, extra=extra))
        else:
            layers.append(Block(mixer=mixer, mlp=dense, norms=norms, extra=extra))
    last = (_mix("output_attn_res_proj", hidden),) if read_back else ()
    around = Vectors(whole=(2 if read_back else 1) * hidden)
    return decoder(config, text, layers, own_head=True, outside=last, vectors=around)


def _mix(name: str, hidden: int) -> Matrix:
    return Matrix(Layer.DENSE, (name,), 1, hidden, Cut.NOTHING, plain=True)


def _delta(part: Config) -> KimiDelta:
    return KimiDelta(
        heads=part.need("num_heads"),
        head_dim=part.need("head_dim"),
        conv=part.need("short_conv_kernel_size"),
        gate_bias=False,
        full_gate=part.flag("use_full_rank_gate"),
        bounded_gate=part.has("gate_lower_bound"),
    )


def _experts(text: Config) -> Experts | None:
    if not text.has("num_experts"):
        return None
    inter, place = text.need("moe_intermediate_size"), "block_sparse_moe"
    return Experts(
        count=text.need("num_experts"),
        topk=text.need("num_experts_per_token"),
        inter=inter,
        shared_inter=inter * text.count("num_shared_experts"),
        router_bias=True,
        width=text.count("routed_expert_hidden_size") or None,
        place=place,
        shared_place=f"{place}.shared_experts",
        narrow=("routed_expert_down_proj", "routed_expert_up_proj"),
        narrow_plain=True,
        least=text.count("min_moe_intermediate_per_partition") or LEAST,
    )
