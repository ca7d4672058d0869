"""Falcon-H1 (vLLM ``models/falcon_h1.py``): attention and a Mamba-2 mixer side by side in every layer."""

from __future__ import annotations

from tuner.ask.models.beside import Beside
from tuner.ask.models.blocks import Block, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import SILU, decoder, grouped_attention, two_norms
from tuner.ask.models.described import Described
from tuner.ask.models.recurrent import Mamba2

DEFAULTS = {  # of FalconH1Config
    "vocab_size": 128000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "mamba_n_heads": 128,
    "mamba_n_groups": 1,
    "mamba_d_state": 256,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_chunk_size": 256,
}


def read(config: Config, text: Config) -> Described:
    """All layers are alike; the width of the state space is said, or that of the layer times its expansion."""
    said = "mamba_d_ssm" in text.values
    text = text.having(**DEFAULTS)
    text.only("hidden_act", *SILU)
    expanded = text.need("mamba_expand") * text.need("hidden_size")
    inner = (text.count("mamba_d_ssm") or expanded) if said else 1024
    heads = text.need("mamba_n_heads")
    dim = inner // heads if text.get("mamba_d_head") in (None, "auto") else text.need("mamba_d_head")
    if heads * dim != inner:
        raise text.refuse("mamba_d_head", f"{inner} / mamba_n_heads")
    mamba = state_space(text, heads, dim, norm=text.flag("mamba_rms_norm"))
    mlp = Mlp(inter=text.need("intermediate_size"), bias=text.flag("mlp_bias"), place="feed_forward")
    layer = Block(
        mixer=Beside(mixers=(grouped_attention(text), mamba)), mlp=mlp, norms=two_norms(text.need("hidden_size"))
    )
    return decoder(config, text, [layer] * text.need("num_hidden_layers"))


def state_space(text: Config, heads: int, head_dim: int, *, norm: bool = True) -> Mamba2:
    """A Mamba-2 mixer of so many heads, by the keys of hybrids."""
    return Mamba2(
        heads=heads,
        head_dim=head_dim,
        groups=text.need("mamba_n_groups"),
        state_size=text.need("mamba_d_state"),
        conv=text.need("mamba_d_conv"),
        chunk=text.need("mamba_chunk_size"),
        conv_bias=text.flag("mamba_conv_bias", True),
        bias=text.flag("mamba_proj_bias"),
        norm=norm,
        place="mamba",
    )
