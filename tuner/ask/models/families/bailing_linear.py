"""Ling 2.5 and 3 (vLLM ``models/bailing_moe_linear.py``, ``bailing_moe_v3.py``): some layers of linear attention to one
of latent attention; lightning attention in 2.5, Kimi delta attention in 3."""

from __future__ import annotations

from tuner.ask.models.blocks import Block, Mixer, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import decoder, latent_attention, two_norms
from tuner.ask.models.described import Described
from tuner.ask.models.families.bailing import mixture
from tuner.ask.models.keys import called, number
from tuner.ask.models.lightning import Lightning
from tuner.ask.models.matrices import Cut, Layer, Matrix
from tuner.ask.models.recurrent import KimiDelta

LATENT = {"qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "kv_lora_rank": 512}
SHORT = 4  # taps of the convolutions


def read(config: Config, text: Config) -> Described:
    """Of each group of layers the last is latent; in version 3 so are those that fill no group."""
    text, third = text.having(**LATENT), "v3" in called(config, text)
    text.only("use_bias", False)
    group, count = number(text, "layer_group_size", 1), text.need("num_hidden_layers")
    norms, dense, experts = (
        two_norms(text.need("hidden_size")),
        Mlp(inter=text.need("intermediate_size")),
        mixture(text),
    )
    full, linear = latent_attention(text, place="attention"), _delta(text) if third else _lightning(text)
    gate, first = _gate(text, full.heads) if third else (), number(text, "first_k_dense_replace", 0)
    layers = []
    for at in range(count):
        recurrent = group > 0 and (at + 1) % group != 0 and not (third and at >= count // group * group)
        mixer, extra = (linear, ()) if recurrent else (full, gate)
        if at >= first:
            layers.append(Block(mixer=mixer, experts=experts, norms=norms, extra=extra))
        else:
            layers.append(Block(mixer=mixer, mlp=dense, norms=norms, extra=extra))
    return decoder(config, text, layers, own_head=True, embedding_names=("model.word_embeddings",))


def _gate(text: Config, heads: int) -> tuple[Matrix, ...]:
    key = "gated_attention_proj_granularity_type"
    wide = {"": 0, "head_wise": heads, "element_wise": heads * text.need("v_head_dim")}
    width = int(text.one_of(key, wide, ""))
    if not width:
        return ()
    return (Matrix(Layer.ATTENTION, ("attention.g_proj",), width, text.need("hidden_size"), Cut.OUTPUTS),)


def _head_dim(text: Config) -> int:
    return text.count("head_dim") or text.need("hidden_size") // text.need("num_attention_heads")


def _lightning(text: Config) -> Mixer:
    dim = _head_dim(text)
    return Lightning(
        heads=text.need("num_attention_heads"),
        head_dim=dim,
        groups=number(text, "group_norm_size", 1),
        bias=text.flag("use_qkv_bias"),
        norm_elements=2 * dim if text.flag("use_qk_norm") else 0,
    )


def _delta(text: Config) -> Mixer:
    text.only("no_kda_lora", True)
    if not text.has("no_kda_lora"):
        raise text.refuse("no_kda_lora", "true: the engine knows no other")
    return KimiDelta(
        heads=text.need("num_attention_heads"),
        head_dim=_head_dim(text),
        conv=number(text, "short_conv_kernel_size", SHORT),
        gate_bias=False,
        full_gate=True,
        full_decay=True,
        place="attention",
    )
