"""The rules of shards and formats beside vLLM's own functions, where it is installed (its CPU build has them all)."""

import copy
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.test_shard_rules import ALONE, QWEN_MOE, model
from tests.unit.test_weight_formats import AWQ, BLOCKS, FLOAT8, GPTQ, LLAMA, NV4, PACKED, compressed, group
from tuner.ask.shard_rules import straddling
from tuner.errors import BadInput

pytestmark = pytest.mark.slow

UNITS, TP = st.integers(1, 300), st.sampled_from([1, 2, 4, 8])


@pytest.fixture(autouse=True, scope="module")
def installed():
    """Not while tests are collected: it takes seconds to import."""
    pytest.importorskip("vllm", reason="vLLM is not installed: nothing to compare with")


def straddles(quantization, config, tp, **sizes):
    return straddling(model(quantization, config, mlp_only_layers=[], **sizes), tp, False) is not None


@settings(max_examples=60, deadline=None)
@given(units=UNITS, hidden=UNITS, tp=TP)
def test_blocks_of_routed_experts(units, hidden, tp):
    from vllm.model_executor.layers.fused_moe.oracle.fp8 import refine_fp8_moe_block_shape

    width, size = 8 * units // tp, 128 * hidden
    config = SimpleNamespace(intermediate_size_per_partition=width, tp_size=tp, hidden_dim=size)
    fits = width % 128 == 0 or refine_fp8_moe_block_shape(config, [128, 128]) is not None
    sizes = ALONE | {"moe_intermediate_size": 8 * units, "hidden_size": size}
    assert straddles(BLOCKS, QWEN_MOE, tp, **sizes) != fits


@settings(max_examples=60, deadline=None)
@given(units=UNITS, tp=TP, kv_heads=st.sampled_from([1, 2, 4, 8]), head_dim=st.sampled_from([64, 80, 128]))
def test_blocks_of_dense_layers(units, tp, kv_heads, head_dim):
    from vllm.model_executor.layers.quantization.utils.fp8_utils import validate_fp8_block_shape

    heads, width, hidden = 16, 32 * units // tp * tp, 2048
    query, key = heads // tp * head_dim, max(1, kv_heads // tp) * head_dim
    layers = [  # inputs and outputs whole, inputs and merged outputs of a rank
        (hidden, (query + 2 * key) * tp, hidden, [query, key, key]),
        (heads * head_dim, hidden, query, [hidden]),
        (hidden, 2 * width, hidden, [width // tp] * 2),
        (width, hidden, width // tp, [hidden]),
    ]
    fits = True
    for inputs, outputs, own_inputs, own_outputs in layers:
        layer = SimpleNamespace(tp_size=tp)
        with patch("vllm.distributed.get_tensor_model_parallel_world_size", return_value=tp):
            try:
                validate_fp8_block_shape(layer, inputs, outputs, own_inputs, own_outputs, [128, 128])
            except ValueError:
                fits = False
    sizes = {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head_dim}
    sizes |= {"intermediate_size": width, "hidden_size": hidden}
    assert straddles(BLOCKS, LLAMA, tp, **sizes) != fits


@settings(max_examples=60, deadline=None)
@given(units=UNITS, tp=TP, size=st.sampled_from([32, 64, 128]), by_order=st.booleans())
@example(units=1, tp=2, size=64, by_order=True)  # one group alone: the tiles hold all the same
def test_tiles_and_groups_of_marlin(units, tp, size, by_order):
    from vllm.model_executor.layers.quantization.utils.marlin_utils import (
        check_marlin_supports_layer,
        check_marlin_supports_shape,
    )

    width, hidden = 64 * units // tp * tp, 8192
    layers = [(hidden, hidden, 2 * width // tp), (width, width // tp, hidden), (hidden, hidden // tp, hidden)]
    if by_order and tp > 1:
        fits = all(check_marlin_supports_shape(out, own, whole, size)[0] for whole, own, out in layers)
    else:
        names = ("input_size", "input_size_per_partition", "output_size_per_partition")
        made = [SimpleNamespace(**dict(zip(names, sides, strict=True))) for sides in layers]
        fits = all(check_marlin_supports_layer(layer, size, allow_tile_padding=True) for layer in made)
    sizes = {"num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128, "hidden_size": hidden}
    quantization = GPTQ | {"group_size": size, "desc_act": by_order}
    assert straddles(quantization, LLAMA, tp, intermediate_size=width, **sizes) != fits


BY_TENSOR = NV4 | {"strategy": "tensor_group"}
MODULES = ["self_attn.o_proj", "mlp.down_proj"]
NAMED = group(["re:.*self_attn.*"], **FLOAT8, strategy="channel", acts=FLOAT8 | {"dynamic": True, "strategy": "token"})


@pytest.mark.parametrize(
    "quantization",
    [
        compressed(group(**PACKED), format="pack-quantized"),
        compressed(NAMED, group(**PACKED), format="pack-quantized"),
        compressed(group(**PACKED), ignore=["re:.*self_attn.*", "lm_head"], format="pack-quantized"),
        compressed(group(["re:.*down_proj"], **PACKED), format="pack-quantized"),
        compressed(group(**BY_TENSOR, acts=BY_TENSOR), format="nvfp4-pack-quantized"),
    ],
)
def test_groups_of_compressed_tensors_are_matched_alike(quantization):
    """Ours speaks for a whole kind of layer, of which the named matrix is one."""
    from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors import CompressedTensorsConfig

    theirs = CompressedTensorsConfig.from_config(copy.deepcopy(quantization))
    ours = model(quantization, LLAMA).weights
    layer = type("RowParallelLinear", (), {})()
    for name, storage in zip(MODULES, (ours.attention, ours.dense), strict=True):
        found = theirs.get_scheme_dict(layer, f"model.layers.0.{name}")
        bits = None if found is None else found["weights"].num_bits
        assert {one.bits for one in storage.formats} >= {bits or 16}


@pytest.mark.parametrize(("bits", "sym"), [(4, True), (8, True), (4, False), (3, True)])
def test_what_gptq_reads(bits, sym):
    from vllm.model_executor.layers.quantization.auto_gptq import AutoGPTQConfig

    assert ((bits, sym) in AutoGPTQConfig.TYPE_MAP) == _is_read(GPTQ | {"bits": bits, "sym": sym})


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_what_awq_reads(bits):
    from vllm.model_executor.layers.quantization.auto_awq import AutoAWQConfig

    assert (bits in AutoAWQConfig.TYPE_MAP) == _is_read(AWQ | {"bits": bits})


def _is_read(quantization):
    try:
        return model(quantization, LLAMA).weights.grouped
    except BadInput:
        return False
