"""Gemma 4, the language model: wider heads in full layers, per-layer inputs and shared caches in the small ones, a
mixture beside the MLP in some (vLLM ``models/gemma4.py``, Gemma4TextConfig of Transformers 5)."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.ask.models.attention import Attention
from tuner.ask.models.blocks import Block, Experts, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import decoder, sizes
from tuner.ask.models.described import Described
from tuner.ask.models.matrices import Cut, Layer, Matrix, Vectors
from tuner.ask.models.positions import FULL, SLIDING, every, kinds
from tuner.ask.models.vocabulary import padded

DEFAULTS = {
    "vocab_size": 262144,
    "vocab_size_per_layer_input": 262144,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 30,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "global_head_dim": 512,
    "max_position_embeddings": 131072,
    "sliding_window": 512,
}
PER_LAYER = 256  # width of a layer's own input
PERIOD = 6


def read(config: Config, text: Config) -> Described:
    """The last layer is full whatever the file says. Embeddings are tied unless it says otherwise."""
    text = text.having(**DEFAULTS)
    text.one_of("use_bidirectional_attention", {"vision": 1, "": 1}, "")
    text.only("per_layer_config", None)
    size = sizes(text)
    found = [*kinds(text, size.layers, every(size.layers, PERIOD))[:-1], FULL]
    stated = text.stated("hidden_size_per_layer_input")
    per_layer = text.count("hidden_size_per_layer_input") if stated else PER_LAYER
    own = size.layers - text.count("num_kv_shared_layers")
    layers = [_layer(text, kind, per_layer, at >= own > 0) for at, kind in enumerate(found)]
    inputs = size.layers * per_layer
    return decoder(
        config,
        text,
        layers,
        tied=True,
        vectors=Vectors(whole=size.hidden + per_layer),
        outside=_outside(text, inputs) if per_layer else (),
        pipeline_tensors=1 + -(-inputs // size.hidden),
    )


def _outside(text: Config, inputs: int) -> Sequence[Matrix]:
    """The table of all layers' own inputs, and what projects the embedding to them."""
    table, at = padded(text.need("vocab_size_per_layer_input")), "model"
    return (
        Matrix(Layer.EMBEDDING, (f"{at}.embed_tokens_per_layer",), table, inputs, Cut.OUTPUTS),
        Matrix(Layer.DENSE, (f"{at}.per_layer_model_projection",), inputs, text.need("hidden_size"), Cut.OUTPUTS),
    )


def _layer(text: Config, kind: str, per_layer: int, shares: bool) -> Block:
    size, full = sizes(text), kind == FULL
    width = text.need("global_head_dim") if full else size.head_dim
    merged = text.flag("attention_k_eq_v")
    kv_heads = text.count("num_global_key_value_heads") if full and merged else 0
    bias = text.flag("attention_bias")
    attention = Attention(
        heads=size.heads,
        kv_heads=kv_heads or size.kv_heads,
        head_dim=width,
        window=text.need("sliding_window") if kind == SLIDING else None,
        bias=bias,
        output_bias=bias,
        norm_elements=2 * width,
        reuses_cache=shares,
        projects_anyway=shares,
        one_projection=merged and full,
    )
    inter = text.need("intermediate_size") * (2 if shares and text.flag("use_double_wide_mlp") else 1)
    experts, norms = _experts(text), 4 + (1 if per_layer else 0)
    extra: tuple[Matrix, ...] = ()
    if per_layer:
        gate = Matrix(Layer.DENSE, ("per_layer_input_gate",), per_layer, size.hidden, Cut.NOTHING)
        extra = gate, Matrix(Layer.DENSE, ("per_layer_projection",), size.hidden, per_layer, Cut.NOTHING)
    weights = norms * size.hidden
    if experts is not None:
        weights += 4 * size.hidden  # three norms, and a scale of the router's inputs
    return Block(
        mixer=attention,
        mlp=Mlp(inter=inter),
        experts=experts,
        norms=Vectors(whole=weights),
        extra=extra,
    )


def _experts(text: Config) -> Experts | None:
    """The mixture beside the MLP; a scale for each expert."""
    if not text.flag("enable_moe_block") and not text.flag("use_second_mlp_block"):
        return None
    return Experts(
        count=text.need("num_experts"),
        topk=text.need("top_k_experts"),
        inter=text.need("moe_intermediate_size", "expert_intermediate_size"),
        router_bias=True,
        place="moe",
    )
