"""Kernel times: limits that physics sets, properties, measured samples, and what is refused."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.fit.tables import read_table
from tuner.ask.profile import known_profiles, load_profile
from tuner.cost.compute import (
    Routing,
    decode_attention_ms,
    decode_attention_terms,
    elementwise_ms,
    gemm_ms,
    gemm_terms,
    moe_ms,
    moe_terms,
    precision,
    prefill_attention_ms,
    prefill_attention_terms,
    sampling_ms,
)
from tuner.errors import BadInput
from tuner.validate.operations import predict_rows

SAMPLES = Path(__file__).parents[1] / "data" / "kernels"
GPUS = ("a100_sxm", "h100_sxm", "h200_sxm", "b200_sxm", "l40s", "gh200", "b300_sxm")
HEADS = {"heads": 16, "kv_heads": 2, "head_dim": 128}
sizes = st.integers(min_value=1, max_value=20_000)
gpus = st.sampled_from(GPUS)


def prefill(name: str, new: float, **more: Any) -> float:
    return float(prefill_attention_ms(load_profile(name), new_tokens=new, **(HEADS | more)))


def decode(name: str, batch: float, context: float, **more: Any) -> float:
    return float(decode_attention_ms(load_profile(name), batch=batch, context_tokens=context, **(HEADS | more)))


# --- against measurements -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "median_percent"), [("gemm", 9), ("attention_context", 11), ("attention_generation", 10), ("moe", 15)]
)
def test_measured_kernels_are_predicted_well(kind: str, median_percent: float) -> None:
    table = read_table(SAMPLES / f"{kind}.csv")
    error = np.abs(predict_rows(kind, table) / table["latency_ms"] - 1) * 100
    assert len(error) == 60
    assert np.median(error) <= median_percent


# --- what physics allows --------------------------------------------------------------------------------------------


@given(name=gpus, m=sizes, n=sizes, k=sizes)
def test_a_product_is_never_faster_than_the_datasheet(name: str, m: int, n: int, k: int) -> None:
    profile = load_profile(name)
    for dtype in ("bf16", "fp8", "nvfp4", "int4"):
        kind = precision(profile, dtype)
        arithmetic = 2e3 * m * n * k / profile.peak_flops_per_s[kind.math]
        weights = 1e3 * kind.weight_bytes * n * k / profile.memory_bytes_per_s
        assert float(gemm_ms(profile, dtype, m, n, k)) >= max(arithmetic, weights)


@given(name=gpus, m=sizes, n=sizes, k=sizes)
def test_more_depth_never_costs_less(name: str, m: int, n: int, k: int) -> None:
    profile = load_profile(name)
    assert float(gemm_ms(profile, "bf16", m, n, k + 64)) >= float(gemm_ms(profile, "bf16", m, n, k)) * 0.999


@pytest.mark.slow
@given(name=gpus, new=st.integers(1, 50_000), past=st.integers(0, 50_000))
@example(name="l40s", new=2, past=1)
@example(name="generic", new=4, past=5)
def test_prefill_grows_with_tokens_and_context(name: str, new: int, past: int) -> None:
    here = prefill(name, new, context_tokens=past)
    assert prefill(name, new * 2, context_tokens=past) >= here
    assert prefill(name, new, context_tokens=past + 256) >= here


@pytest.mark.slow
@given(name=gpus, batch=st.integers(1, 500), context=st.integers(1, 100_000))
def test_decode_grows_with_batch_and_reads_its_cache_no_faster_than_memory(name: str, batch: int, context: int) -> None:
    here = decode(name, batch, context)
    cache_ms = 1e3 * batch * context * 2 * 2 * 128 * 2 / load_profile(name).memory_bytes_per_s
    assert here >= cache_ms
    assert decode(name, batch * 2, context) >= here * 0.98


@pytest.mark.slow
@given(name=gpus, tokens=st.integers(1, 20_000))
def test_experts_cost_more_with_more_tokens_and_less_when_shared(name: str, tokens: int) -> None:
    profile = load_profile(name)
    whole = float(moe_ms(profile, "bf16", tokens, 4096, 1536, 8, 128))
    assert float(moe_ms(profile, "bf16", tokens * 2, 4096, 1536, 8, 128)) >= whole
    assert float(moe_ms(profile, "bf16", tokens, 4096, 1536, 8, 128, moe_ep=8)) <= whole * 1.001
    assert float(moe_ms(profile, "bf16", tokens, 4096, 1536, 8, 128, moe_tp=8)) <= whole * 1.001


# --- what each term is for ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GPUS)
def test_few_rows_are_bound_by_memory_and_many_by_compute(name: str) -> None:
    profile = load_profile(name)
    assert gemm_terms(profile, "bf16", [1, 16384], 28672, 8192).bound.tolist() == ["memory", "compute"]


@pytest.mark.parametrize("name", GPUS)
def test_terms_add_up_to_no_more_than_their_sum_and_no_less_than_the_largest(name: str) -> None:
    profile = load_profile(name)
    for terms in (
        gemm_terms(profile, "fp8", [1, 100, 8192], 4096, 4096),
        prefill_attention_terms(profile, new_tokens=[1, 100, 8192], **HEADS),  # type: ignore[arg-type]
        decode_attention_terms(profile, batch=[1, 100, 1000], context_tokens=4096, **HEADS),  # type: ignore[arg-type]
        moe_terms(profile, "fp8", [1, 100, 8192], 4096, 1536, 8, 128),
    ):
        parts = terms.compute_ms + terms.memory_ms + terms.overhead_ms
        largest = np.maximum(terms.compute_ms, terms.memory_ms) + terms.overhead_ms
        assert (terms.total_ms <= parts * 1.0001).all()
        assert (terms.total_ms >= largest * 0.9999).all()


def test_narrow_weights_help_where_memory_is_the_bound() -> None:
    profile = load_profile("h100_sxm")
    cost = {dtype: float(gemm_ms(profile, dtype, 8, 28672, 8192)) for dtype in ("bf16", "fp8", "int4")}
    assert cost["bf16"] > 1.6 * cost["fp8"]
    assert cost["fp8"] > 1.3 * cost["int4"]


def test_a_device_without_fp8_units_multiplies_in_bf16_but_reads_half_the_weights() -> None:
    profile = load_profile("a100_sxm")
    bf16, fp8 = (gemm_ms(profile, dtype, np.array([1, 8192]), 28672, 8192) for dtype in ("bf16", "fp8"))
    assert fp8[0] < 0.65 * bf16[0]
    assert fp8[1] > 0.95 * bf16[1]


def test_the_launch_path_counts_only_without_graphs() -> None:
    profile = load_profile("h100_sxm")
    assert float(gemm_ms(profile, "fp8_block", 64, 2048, 2048, eager=True)) > 0.05
    assert float(gemm_ms(profile, "fp8_block", 64, 2048, 2048)) < 0.03


def test_a_warm_cache_speeds_up_small_products_only() -> None:
    profile = load_profile("l40s")
    cold, warm = (gemm_ms(profile, "bf16", 16, np.array([512, 65536]), 2048, warm=w) for w in (False, True))
    assert warm[0] < cold[0]
    assert warm[1] == pytest.approx(cold[1], rel=0.01)


def test_a_window_caps_the_keys() -> None:
    for name in GPUS:
        assert prefill(name, 16_384, window=1024) < 0.5 * prefill(name, 16_384)
        assert decode(name, 64, 32_768, window=1024) < 0.4 * decode(name, 64, 32_768)
        assert prefill(name, 512, window=1024) == prefill(name, 512)
        assert decode(name, 64, 512, window=0) == decode(name, 64, 512)


def test_chunks_cost_at_least_the_whole_prompt() -> None:
    for name in GPUS:
        chunks = sum(prefill(name, 2048, context_tokens=done) for done in range(0, 16_384, 2048))
        assert prefill(name, 16_384) <= chunks <= 1.4 * prefill(name, 16_384)


def test_fewer_kv_heads_make_decode_cheaper() -> None:
    for name in GPUS:
        assert decode(name, 128, 8192, heads=32, kv_heads=4) < decode(name, 128, 8192, heads=32, kv_heads=32)


def test_an_fp8_cache_is_cheaper_to_read_where_memory_is_the_bound() -> None:
    for name in ("h100_sxm", "b200_sxm", "l40s", "a100_sxm"):
        assert decode(name, 256, 8192, kv_dtype="fp8") < 0.8 * decode(name, 256, 8192)


def test_a_compressed_cache_counts_its_576_bytes_per_token_once() -> None:
    profile = load_profile("h100_sxm")
    shape: dict[str, Any] = {"batch": 64, "context_tokens": 8192, "heads": 16, "kv_heads": 1, "head_dim": 576}
    latent = decode_attention_terms(profile, **shape, value_dim=512).memory_ms
    both = decode_attention_terms(profile, **shape).memory_ms
    assert float(both) == pytest.approx(2 * float(latent))


def test_prefill_of_latent_attention_counts_narrow_values() -> None:
    wide = prefill("h100_sxm", 8192, heads=16, kv_heads=16, head_dim=192)
    assert prefill("h100_sxm", 8192, heads=16, kv_heads=16, head_dim=192, value_dim=128) < wide


# --- routing --------------------------------------------------------------------------------------------------------


def expected_weights_ms(name: str, experts_read: float) -> float:
    profile = load_profile(name)
    efficiency = profile.moe["bf16"].memory_efficiency
    return 1e3 * experts_read * 3 * 4096 * 1536 * 2 / (profile.memory_bytes_per_s * efficiency)


@pytest.mark.parametrize(("tokens", "read"), [(1, 8), (4, 32), (16, 128), (4096, 128)])
def test_even_routing_reads_each_chosen_expert_once(tokens: int, read: int) -> None:
    terms = moe_terms(load_profile("h100_sxm"), "bf16", tokens, 4096, 1536, 8, 128, routing=Routing(0.0))
    assert float(terms.memory_ms) == pytest.approx(expected_weights_ms("h100_sxm", read))


@given(tokens=st.integers(1, 400))
def test_random_routing_reads_the_expected_number_of_distinct_experts(tokens: int) -> None:
    terms = moe_terms(load_profile("h100_sxm"), "bf16", tokens, 4096, 1536, 8, 128)
    distinct = 128 * (1 - (1 - 8 / 128) ** tokens)
    assert float(terms.memory_ms) == pytest.approx(expected_weights_ms("h100_sxm", distinct), rel=1e-6)


@pytest.mark.parametrize(
    ("tokens", "tile"), [(16, 8), (128, 8), (200, 16), (512, 32), (1000, 64), (8192, 64)]
)  # of 128 experts, 8 each: 1 to 512 rows per expert
def test_few_rows_per_expert_are_padded_to_small_tiles(tokens: int, tile: int) -> None:
    profile = load_profile("h100_sxm")
    terms = moe_terms(profile, "bf16", tokens, 4096, 1536, 8, 128, routing=Routing(0.0))
    load = tokens * 8 / 128
    rows = 128 * (tile if load < tile else load + tile / 2)
    peak = profile.peak_flops_per_s["bf16"] * profile.moe["bf16"].compute_efficiency
    assert float(terms.compute_ms) == pytest.approx(1e3 * 6 * 4096 * 1536 * rows / peak)


@pytest.mark.parametrize(("dtype", "hidden", "inter"), [("int4", 3072, 384), ("mxfp4", 3072, 384), ("bf16", 2880, 360)])
def test_sides_of_4_bit_weights_are_rounded_up(dtype: str, hidden: int, inter: int) -> None:
    """gpt-oss on 8 devices: 2880 wide, 2880 / 8 = 360 per device."""
    given, padded = (
        float(moe_terms(load_profile("h100_sxm"), dtype, 4096, h, i, 4, 128, t).compute_ms)
        for h, i, t in ((2880, 2880, 8), (hidden, inter, 1))
    )
    assert given == pytest.approx(padded)


def test_skewed_routing_costs_more_on_the_busiest_device() -> None:
    profile = load_profile("h100_sxm")
    even, skewed = (
        float(moe_ms(profile, "bf16", 8192, 4096, 1536, 8, 128, moe_ep=8, routing=Routing(e))) for e in (0.0, 1.2)
    )
    assert skewed > 1.2 * even


def test_random_routing_approaches_even_routing_with_many_tokens() -> None:
    profile = load_profile("h100_sxm")
    even, random = (
        float(moe_ms(profile, "bf16", 60_000, 4096, 1536, 8, 128, moe_ep=4, routing=Routing(e))) for e in (0.0, None)
    )
    assert random == pytest.approx(even, rel=0.03)


# --- small kernels --------------------------------------------------------------------------------------------------


def test_small_kernels_move_bytes_above_a_floor() -> None:
    profile = load_profile("h100_sxm")
    floor_ms = profile.elementwise.floor_us / 1e3
    assert float(elementwise_ms(profile, 0)) == pytest.approx(floor_ms)
    streamed = float(elementwise_ms(profile, 1e9)) - floor_ms
    assert streamed == pytest.approx(1e3 * 1e9 / (profile.memory_bytes_per_s * profile.elementwise.memory_efficiency))
    assert (np.diff(sampling_ms(profile, np.array([1, 16, 256]), 128_256)) > 0).all()


# --- shapes, speed, refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", known_profiles())
def test_every_device_prices_every_operation(name: str) -> None:
    profile = load_profile(name)
    for dtype in ("bf16", "fp8", "fp8_block", "nvfp4", "mxfp4", "int4", "int8", "w4a8_mxfp4_mxfp8"):
        for value in (
            gemm_ms(profile, dtype, [1, 4096], 4096, 4096),
            moe_ms(profile, dtype, [1, 4096], 2048, 768, 8, 64),
        ):
            assert np.isfinite(value).all()
            assert (value > 0).all()
    assert prefill(name, 1024) > 0
    assert decode(name, 4, 1024, kv_dtype="fp8_e4m3") > 0


def test_arrays_broadcast_and_agree_with_scalars() -> None:
    profile = load_profile("h100_sxm")
    m, n = np.array([1, 64, 4096])[:, None], np.array([1024, 8192])
    both: tuple[Callable[..., NDArray[np.float64]], ...] = (
        lambda a, b: gemm_ms(profile, "fp8", a, b, 4096),
        lambda a, b: prefill_attention_ms(profile, new_tokens=a, context_tokens=b, **HEADS),  # type: ignore[arg-type]
        lambda a, b: decode_attention_ms(profile, batch=a, context_tokens=b, **HEADS),  # type: ignore[arg-type]
        lambda a, b: moe_ms(profile, "bf16", a, b, 1536, 8, 128, routing=Routing(1.2)),
    )
    for price in both:
        table = price(m, n)
        assert table.shape == (3, 2)
        for (i, a), (j, b) in itertools.product(enumerate(m[:, 0]), enumerate(n)):
            assert float(price(int(a), int(b))) == pytest.approx(table[i, j])


def test_a_hundred_thousand_shapes_take_a_fraction_of_a_second() -> None:
    profile, m = load_profile("h100_sxm"), np.arange(1.0, 100_001.0)
    started = time.perf_counter()
    gemm_ms(profile, "bf16", m, 4096, 4096)
    decode_attention_ms(profile, batch=m, context_tokens=4096, **HEADS)  # type: ignore[arg-type]
    assert time.perf_counter() - started < 1.0


@pytest.mark.parametrize("dtype", ["fp3", "", "bf17"])
def test_an_unknown_precision_is_refused_by_name(dtype: str) -> None:
    profile = load_profile("h100_sxm")
    for price in (
        lambda: gemm_ms(profile, dtype, 1, 1, 1),
        lambda: moe_ms(profile, dtype, 1, 1, 1, 1, 1),
        lambda: decode_attention_ms(profile, batch=1, context_tokens=1, **HEADS, kv_dtype=dtype),  # type: ignore[arg-type]
    ):
        with pytest.raises(BadInput, match="precision") as error:
            price()
        assert error.value.given == dtype
        assert "fp8_block" in error.value.allowed


GEMM_ROW = {"system": ["h100_sxm"], "gemm_dtype": ["fp8"], "m": ["1"], "n": ["1024"], "k": ["1024"]}


@pytest.mark.parametrize(
    ("kind", "change", "place"),
    [
        ("conv", {}, "kind"),
        ("gemm", {"system": ["h900"]}, "gpu"),
        ("gemm", {"gemm_dtype": ["fp3"]}, "precision"),
        ("gemm", {"m": ["many"]}, "column m"),
        ("moe", {}, "column"),
    ],
)
def test_a_table_that_cannot_be_priced_is_refused(kind: str, change: dict[str, Any], place: str) -> None:
    with pytest.raises(BadInput) as error:
        predict_rows(kind, GEMM_ROW | change)
    assert place in error.value.where


def test_rows_may_be_text_or_numbers() -> None:
    numbers = GEMM_ROW | {name: np.array([float(GEMM_ROW[name][0])]) for name in ("m", "n", "k")}
    assert predict_rows("gemm", GEMM_ROW) == pytest.approx(predict_rows("gemm", numbers))
