"""Llama-Nemotron: Llama whose layers were searched: KV heads and MLP of their own, or no attention or MLP at all (vLLM
``models/nemotron_nas.py``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.ask.models.attention import Attention
from tuner.ask.models.blocks import Block, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import decoder
from tuner.ask.models.described import Described
from tuner.ask.models.matrices import Vectors
from tuner.ask.models.positions import everywhere
from tuner.errors import BadInput

MULTIPLE = 256  # of an MLP's width


def read(config: Config, text: Config) -> Described:
    """``block_configs`` has an entry for each layer. A half that is left out has no norm either."""
    text.only("hidden_act", "silu")
    blocks = text.items("block_configs")
    layers = text.need("num_hidden_layers")
    if len(blocks) < layers:
        raise BadInput(text.place("block_configs"), len(blocks), f"an entry for each of {layers} layers")
    return decoder(config, text, [_layer(text, blocks[at], f"block_configs.{at}.") for at in range(layers)])


def _layer(text: Config, block: Any, where: str) -> Block:
    if not isinstance(block, Mapping):
        raise BadInput(f"{text.name}: {where}", block, "an object")
    attention, ffn = (Config(block, text.name, where).part(one) for one in ("attention", "ffn"))
    hidden, bias = text.need("hidden_size"), text.flag("attention_bias") or text.flag("bias")
    heads = text.need("num_attention_heads")
    mixer = mlp = None
    attends, transforms = not attention.flag("no_op"), not ffn.flag("no_op")
    if attends:
        for key, plain in (("replace_with_linear", False), ("window_length", None), ("num_sink_tokens", None)):
            attention.only(key, plain)
        mixer = Attention(
            heads=heads,
            kv_heads=heads // attention.need("n_heads_in_group"),
            head_dim=text.count("head_dim") or hidden // heads,
            window=everywhere(text),
            bias=text.flag("qkv_bias", bias),
            output_bias=bias,
        )
    if transforms:
        ffn.only("replace_with_linear", False)
        ffn.only("hidden_act", "silu")
        mlp = Mlp(inter=_width(ffn, hidden), bias=text.flag("mlp_bias"))
    return Block(mixer=mixer, mlp=mlp, norms=Vectors(whole=(attends + transforms) * hidden))


def _width(ffn: Config, hidden: int) -> int:
    """Of an MLP: two thirds of a multiple of the model's, rounded up."""
    if not ffn.has("ffn_mult"):
        return ffn.need("intermediate_size")
    width = int(2 * ffn.share("ffn_mult", 1.0) * hidden / 3)
    return -(-width // MULTIPLE) * MULTIPLE
