"""Gemma 3n, the language model: several streams of the residual, low-rank and per-layer inputs, caches that the last
layers share (vLLM ``models/gemma3n.py``, Gemma3nTextConfig of Transformers 5)."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.ask.models.blocks import Block, Mlp
from tuner.ask.models.config import Config
from tuner.ask.models.decoder import decoder, grouped_attention, sizes
from tuner.ask.models.described import Described
from tuner.ask.models.matrices import Cut, Layer, Matrix, Vectors
from tuner.ask.models.positions import SLIDING, every, kinds, longest
from tuner.ask.models.vocabulary import padded

DEFAULTS = {
    "vocab_size": 262400,
    "vocab_size_per_layer_input": 262144,
    "hidden_size_per_layer_input": 256,
    "hidden_size": 2048,
    "intermediate_size": 16384,
    "num_hidden_layers": 35,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "max_position_embeddings": 32768,
    "sliding_window": 512,
    "altup_num_inputs": 4,
    "laurel_rank": 64,
}
SHARED_LAYERS = 15
PERIOD = 5
NORMS = 8  # vectors of a layer: six norms, one of the router of streams, the scale of what it corrects


def read(config: Config, text: Config) -> Described:
    """The class has no head of its own and cannot be cut into stages. Its length is that of the scaled positions."""
    text = text.having(**DEFAULTS)
    text.only("hidden_activation", "gelu_pytorch_tanh")
    size, streams = sizes(text), text.need("altup_num_inputs")
    found = kinds(text, size.layers, every(size.layers, PERIOD))
    shared = text.count("num_kv_shared_layers") if text.stated("num_kv_shared_layers") else SHARED_LAYERS
    per_layer, width = text.need("hidden_size_per_layer_input"), size.hidden
    layers = [
        _layer(text, kind, inter, at >= size.layers - shared)
        for at, (kind, inter) in enumerate(zip(found, _widths(text, size.layers), strict=True))
    ]
    table = padded(text.need("vocab_size_per_layer_input"))
    inputs, at = size.layers * per_layer, "model"
    mixing = [
        Matrix(Layer.DENSE, (f"{at}.{name}.{one}",), width, width, Cut.OUTPUTS)
        for name in ("altup_projections", "altup_unembed_projections")
        for one in range(streams - 1)
    ]
    outside = (
        Matrix(Layer.EMBEDDING, (f"{at}.embed_tokens_per_layer",), table, inputs, Cut.OUTPUTS),
        Matrix(Layer.DENSE, (f"{at}.per_layer_model_projection",), inputs, width, Cut.OUTPUTS),
        *mixing,
    )
    return decoder(
        config,
        text,
        layers,
        headless=True,
        max_position=longest(text, scaled=False),
        vectors=Vectors(whole=width + per_layer),
        outside=outside,
        pipeline_tensors=0,
        not_priced=("a third all-reduce of each layer, after its low-rank half (LAuReL)",),
    )


def _widths(text: Config, layers: int) -> Sequence[int]:
    """Of each layer's MLP: one for all, or a list."""
    width = text.get("intermediate_size")
    found = list(width) if isinstance(width, list | tuple) else [width] * layers
    if len(found) != layers or any(not isinstance(one, int) or one < 1 for one in found):
        raise text.refuse("intermediate_size", f"a width, or one for each of {layers} layers")
    return found


def _layer(text: Config, kind: str, inter: int, shares: bool) -> Block:
    size, streams = sizes(text), text.need("altup_num_inputs")
    per_layer, rank = text.need("hidden_size_per_layer_input"), text.need("laurel_rank")
    bias = text.flag("attention_bias")
    attention = grouped_attention(
        text,
        window=text.need("sliding_window") if kind == SLIDING else None,
        bias=bias,
        output_bias=bias,
        norm_elements=2 * size.head_dim,
        reuses_cache=shares,
        projects_anyway=shares,
    )

    def matrix(name: str, outputs: int, inputs: int, cut: Cut = Cut.NOTHING) -> Matrix:
        return Matrix(Layer.DENSE, (name,), outputs, inputs, cut)

    extra = (
        matrix("altup.correction_coefs", streams, streams),
        matrix("altup.prediction_coefs", streams**2, streams),
        matrix("altup.modality_router", streams, size.hidden),
        matrix("laurel.linear_left", rank, size.hidden, Cut.OUTPUTS),
        matrix("laurel.linear_right", size.hidden, rank, Cut.INPUTS),
        matrix("per_layer_input_gate", per_layer, size.hidden),
        matrix("per_layer_projection", size.hidden, per_layer),
    )
    return Block(
        mixer=attention,
        mlp=Mlp(inter=inter),
        norms=Vectors(whole=NORMS * size.hidden),
        streams=streams,
        extra=extra,
    )
