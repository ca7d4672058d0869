"""Jamba (vLLM ``models/jamba.py``): Mamba layers, every so many an attention; every so many a mixture."""

from __future__ import annotations

from tuner.ask.models.blocks import Block, Experts, Mixer, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import SILU, decoder, grouped_attention, two_norms
from tuner.ask.models.described import Described
from tuner.ask.models.keys import number
from tuner.ask.models.recurrent import Mamba1

DEFAULTS = {  # of JambaConfig
    "vocab_size": 65536,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 262144,
    "num_experts_per_tok": 2,
    "num_experts": 16,
    "expert_layer_period": 2,
    "attn_layer_period": 8,
    "mamba_d_state": 16,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
}
_OFFSETS = {"expert_layer_offset": 1, "attn_layer_offset": 4}


def read(config: Config, text: Config) -> Described:
    """Which layer is what follows from two periods and two offsets."""
    text = text.having(**DEFAULTS)
    text.only("hidden_act", *SILU)
    mixers: dict[bool, Mixer] = {
        True: grouped_attention(text, head_dim=text.need("hidden_size") // text.need("num_attention_heads")),
        False: _mamba(text),
    }
    inter, norms = text.need("intermediate_size"), two_norms(text.need("hidden_size"))
    experts = Experts(
        count=text.need("num_experts"), topk=text.need("num_experts_per_tok"), inter=inter, place="feed_forward"
    )
    layers = []
    for at in range(text.need("num_hidden_layers")):
        mixer = mixers[_falls(text, at, "attn_layer")]
        if experts.count > 1 and _falls(text, at, "expert_layer"):
            layers.append(Block(mixer=mixer, experts=experts, norms=norms))
        else:
            layers.append(Block(mixer=mixer, mlp=Mlp(inter=inter, place="feed_forward"), norms=norms))
    return decoder(config, text, layers, own_head=True)


def _falls(text: Config, layer: int, what: str) -> bool:
    wanted = number(text, f"{what}_offset", _OFFSETS[f"{what}_offset"])
    return layer % text.need(f"{what}_period") == wanted


def _mamba(text: Config) -> Mixer:
    hidden, rank = text.need("hidden_size"), text.get("mamba_dt_rank")
    return Mamba1(
        inner=text.need("mamba_expand") * hidden,
        state_size=text.need("mamba_d_state"),
        conv=text.need("mamba_d_conv"),
        time_rank=-(-hidden // 16) if rank in (None, "auto") else text.need("mamba_dt_rank"),
        conv_bias=text.flag("mamba_conv_bias", True),
        bias=text.flag("mamba_proj_bias"),
        norms=True,
        place="mamba",
    )
