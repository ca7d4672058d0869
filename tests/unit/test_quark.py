"""What AMD's Quark writes: formats by name and of all, and what has no price."""

from __future__ import annotations

from typing import Any

import pytest

from tuner.ask.model import ModelShape, from_config
from tuner.ask.registry import known_config
from tuner.errors import BadInput

FP8 = {"dtype": "fp8_e4m3", "qscheme": "per_tensor", "is_dynamic": False, "symmetric": None, "group_size": None}
INT8 = FP8 | {"dtype": "int8", "symmetric": True}
KV = {"weight": FP8, "input_tensors": FP8, "output_tensors": FP8, "bias": None}


def read(weight: Any = FP8, inputs: Any = FP8, **more: Any) -> ModelShape:
    """Llama-3.1-8B as AMD publishes it, or otherwise."""
    everything = {"weight": weight, "input_tensors": inputs, "output_tensors": None, "bias": None}
    written = {"quant_method": "quark", "quant_mode": "eager_mode", "global_quant_config": everything}
    written |= {"exclude": ["lm_head"], "export": {"kv_cache_group": ["*k_proj", "*v_proj"], "pack_method": "reorder"}}
    written |= {"layer_quant_config": {"*k_proj": KV, "*v_proj": KV} if weight is FP8 else {}}
    config = known_config("meta-llama/Llama-3.1-8B")
    assert config is not None
    return from_config({**config, "quantization_config": written | more}, "m")


def test_fp8_of_everything_but_the_head() -> None:
    model = read()
    weights = model.weights
    assert {one.main.kind for one in (weights.attention, weights.dense)} == {"fp8"}
    assert {one.main.kind for one in (weights.head, weights.embedding)} == {"bf16"}
    assert len(weights.attention.parts) == 1
    assert model.cached_dtype == "bf16"


@pytest.mark.parametrize(("weight", "kind"), [(FP8, "fp8"), (INT8, "int8")])
def test_a_scale_per_output_or_matrix(weight: dict[str, Any], kind: str) -> None:
    inputs = weight | {"is_dynamic": True, "qscheme": "per_channel"}
    one = read(weight | {"qscheme": "per_channel"}, inputs).weights.dense.main
    assert (one.kind, one.bytes(64, 128)) == (kind, 64 * 128 + 64 * 4)
    assert read(weight, weight).weights.dense.main.bytes(64, 128) == 64 * 128 + 4


def test_what_is_excluded_and_what_has_a_format_of_its_own() -> None:
    weights = read(exclude=["lm_head", "re:.*layers.0.mlp.*"]).weights
    assert [(one.kind, share) for one, share in weights.dense.parts] == [("fp8", 31 / 32), ("bf16", 1 / 32)]
    own = {"weight": FP8 | {"qscheme": "per_channel"}, "input_tensors": FP8}
    assert read(layer_quant_config={"*o_proj": own}).weights.attention.formats[1].block == (1, 0)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"weight": FP8 | {"dtype": "fp4", "qscheme": "per_group"}}, "global_quant_config.weight"),
        ({"weight": [FP8, INT8]}, "global_quant_config.weight"),
        ({"weight": FP8 | {"is_dynamic": True}}, "global_quant_config.weight"),
        ({"weight": INT8 | {"symmetric": False}, "inputs": INT8}, "global_quant_config.weight"),
        ({"inputs": INT8}, "global_quant_config.weight"),
        ({"inputs": None}, "global_quant_config.weight"),
        ({"inputs": FP8 | {"qscheme": "per_channel"}}, "global_quant_config.input_tensors.qscheme"),
        ({"export": None}, "export"),
        ({"global_quant_config": KV | {"bias": FP8}}, "global_quant_config.bias"),
        ({"global_quant_config": None}, "global_quant_config.weight"),
    ],
)
def test_what_is_not_understood_is_named(changes: dict[str, Any], where: str) -> None:
    with pytest.raises(BadInput) as caught:
        read(**changes)
    assert caught.value.where == f"m: quantization_config.{where}"
